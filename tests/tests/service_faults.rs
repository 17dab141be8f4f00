//! What a disk can do to a service: flipped bytes, failing operations, a full disk; and what deleting leaves behind. Calls
//! succeed or say why not, the answers are those of a good disk, and no acknowledged token is lost.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use concertina::kv::store::{Fault, MemoryMedium, Options as StoreOptions, Store};
use concertina::service::{ContextId, Policy, Service, ServiceOptions, Split};
use concertina::{Engine, Error, Options, Result};
use concertina_tests::system::{ask, by, greedy, ids, load, note, options, serve, store, tiny};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use pollster::block_on;

fn engine(options: Options) -> Engine {
    load(tiny("llama").gguf(), options)
}

fn service(store: Store) -> Service {
    serve(store, by(Policy::OursNoCompression), options(Some("cpu")), engine)
}

/// Two contexts of two apps, and what each answers next.
fn prepared(medium: &Arc<MemoryMedium>) -> [(ContextId, &'static str); 2] {
    let mut service = service(store(medium, 1));
    let made = ["mail", "notes"].map(|app| {
        let id = block_on(service.create(app, None)).unwrap();
        ask(&mut service, app, id, &ids(75, app.len() as u64), 3).unwrap();
        (id, app)
    });
    block_on(service.close()).unwrap();
    made
}

fn answers(service: &mut Service, contexts: &[(ContextId, &'static str); 2]) -> Result<Vec<Vec<u32>>> {
    contexts.iter().map(|(id, app)| Ok(ask(service, app, *id, &ids(3, 5), 5)?.answer.tokens)).collect()
}

#[test]
fn a_flipped_byte_anywhere_changes_no_answer() {
    let good = Arc::new(MemoryMedium::new());
    let contexts = prepared(&good);
    let expected = answers(&mut service(store(&Arc::new(good.copy()), 2)), &contexts).unwrap();
    let (mut flips, mut lost) = (0, 0);
    for name in ["seg.00000000", "index.0", "index.1", "keys", "store"] {
        let len = good.bytes(name).unwrap_or_else(|| panic!("no file {name}")).len();
        // Payload by the kilobyte, the small files more closely; an odd step meets all alignments.
        for at in (0..len).step_by(if len > 100_000 { (len / 60) | 1 } else { (len / 25) | 1 }) {
            let medium = Arc::new(good.copy());
            medium.corrupt(name, at as u64, 0x40);
            let mut service = service(store(&medium, 3));
            flips += 1;
            for ((id, app), expected) in contexts.iter().zip(&expected) {
                match ask(&mut service, app, *id, &ids(3, 5), 5) {
                    Ok(served) => {
                        assert_eq!(&served.answer.tokens, expected, "{name} at {at}");
                        lost += served.switch.lost;
                    }
                    // A context's only key: it says so, and the other context goes on.
                    Err(e) => assert!(name == "keys", "{name} at {at}: {e}"),
                }
            }
        }
    }
    note(format!("{flips} flips, {lost} chunks found damaged and computed anew"));
    assert!(lost > 20);
}

#[test]
fn failing_operations_lose_nothing_that_was_acknowledged() {
    let good = Arc::new(MemoryMedium::new());
    let contexts = prepared(&good);
    let work = |service: &mut Service, acknowledged: &mut Vec<(ContextId, Vec<u32>)>| {
        let mut failed = 0;
        for round in 0..2 {
            for (id, app) in &contexts {
                match ask(service, app, *id, &ids(20, round), 2) {
                    Ok(_) => acknowledged.push((*id, block_on(service.tokens(app, *id)).unwrap())),
                    Err(_) => failed += 1,
                }
            }
        }
        failed
    };
    let counting = Arc::new(good.copy());
    let mut whole = service(store(&counting, 2));
    let before = counting.operations();
    assert_eq!(work(&mut whole, &mut Vec::new()), 0);
    block_on(whole.idle()).unwrap();
    let operations = counting.operations() - before;
    let (mut runs, mut refused) = (0, 0);
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for count in [1, u64::MAX] {
            for at in 0..operations {
                let medium = Arc::new(good.copy());
                let mut struck = service(store(&medium, 3));
                medium.set_fault(Some(Fault { at, count, kind }));
                let mut acknowledged = Vec::new();
                refused += work(&mut struck, &mut acknowledged);
                drop(struck);
                medium.set_fault(None);
                let mut store = store(&medium, 4);
                for (id, tokens) in &acknowledged {
                    let app = contexts.iter().find(|(other, _)| other == id).unwrap().1;
                    assert!(store.tokens(app, *id).unwrap().starts_with(tokens), "{kind:?} at {at}");
                }
                runs += 1;
            }
        }
    }
    note(format!("{operations} operations, {runs} runs with failures, {refused} calls refused"));
    assert!(refused > 0);
}

/// The store's files are sealed, so a deleted context's words are never in them; its chunks must not open any more, and its
/// keys and values must be gone from the pages, also from places that it left before.
#[test]
fn a_deleted_context_leaves_nothing() {
    let medium = Arc::new(MemoryMedium::new());
    let how = by(Policy::Ours);
    let mut service = serve(store(&medium, 1), how, Options { kv_budget_bytes: 2 << 20, ..options(None) }, engine);
    let id = block_on(service.create("mail", None)).unwrap();
    let canary = ids(120, 77);
    let before = pieces(&block_on(service.read_pages()).unwrap());
    ask(&mut service, "mail", id, &canary, 3).unwrap();
    let with = pieces(&block_on(service.read_pages()).unwrap());
    let mine: BTreeSet<_> = with.difference(&before).copied().collect();
    assert!(mine.len() > 1000, "keys and values are found while it lives");
    block_on(service.idle()).unwrap();
    block_on(service.delete("mail", id)).unwrap();
    let after = pieces(&block_on(service.read_pages()).unwrap());
    assert_eq!(mine.intersection(&after).count(), 0, "keys and values are left in pages");
    let bytes: Vec<u8> = canary.iter().flat_map(|token| token.to_le_bytes()).collect();
    for name in ["seg.00000000", "index.0", "index.1", "keys", "store"] {
        let file = medium.bytes(name).unwrap_or_default();
        assert!(!file.windows(16).any(|w| w == &bytes[..16]), "tokens in {name}");
        assert_eq!(mine.intersection(&pieces(&file)).count(), 0, "keys and values in {name}");
    }
    assert!(block_on(service.tokens("mail", id)).is_err());
    drop(service);
    let mut store = Store::open(medium, &StoreOptions::new([7; 32], [9; 32])).unwrap();
    assert!(store.list("mail").unwrap().is_empty() && store.readers("mail", id).is_err());
}

/// Aligned pieces of 16 bytes that are not mostly zero.
fn pieces(bytes: &[u8]) -> BTreeSet<[u8; 16]> {
    let telling = |piece: &&[u8]| piece.iter().filter(|byte| **byte != 0).count() > 8;
    bytes.chunks_exact(16).filter(telling).map(|piece| piece.try_into().expect("16 bytes")).collect()
}

/// Two apps that say the same share nothing: the second has to compute what the first one has, on disk and in memory.
#[test]
fn apps_do_not_share_what_they_both_say() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = service(store(&medium, 1));
    let text = "the same long system prompt for both, word for word, again and again and again";
    let first = block_on(service.create("mail", Some(text))).unwrap();
    ask(&mut service, "mail", first, &ids(5, 1), 2).unwrap();
    block_on(service.idle()).unwrap();
    for in_memory in [true, false] {
        for (app, shares) in [("mail", true), ("spy", false)] {
            if !in_memory {
                block_on(service.set_memory_budget(0)).unwrap();
                block_on(service.set_memory_budget(u64::MAX)).unwrap();
            }
            let id = block_on(service.create(app, Some(text))).unwrap();
            let switch = ask(&mut service, app, id, &ids(5, 1), 2).unwrap().switch;
            let found = if in_memory { switch.shared } else { switch.read };
            assert_eq!(found > 0, shares, "{app}: {switch:?}");
            let usage = block_on(service.usage(app, id)).unwrap();
            assert_eq!(usage.shared_bytes > 0, shares && in_memory, "{app}: {usage:?}");
            block_on(service.delete(app, id)).unwrap();
        }
    }
}

#[test]
fn a_lost_device_costs_time_only() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = serve(store(&medium, 1), by(Policy::OursNoCompression), options(None), engine);
    let id = block_on(service.create("mail", None)).unwrap();
    ask(&mut service, "mail", id, &ids(60, 1), 3).unwrap();
    let twin = block_on(service.fork("mail", id, None)).unwrap();
    let expected = ask(&mut service, "mail", id, &ids(4, 2), 6).unwrap().answer.tokens;
    service.engine().destroy_device();
    let served = ask(&mut service, "mail", twin, &ids(4, 2), 6).unwrap();
    assert_eq!(served.answer.tokens, expected);
    assert!(served.switch.read > 0, "what is on disk was read: {:?}", served.switch);
}

/// The same calls, with the device lost at some point while one context comes back, its chunks read and computed in turn, some
/// of them damaged, and the other's evicted. The call may fail, once, and nothing else may show: not in the answers that follow,
/// and not in those of the next process, which reads what this one wrote.
#[test]
fn a_device_lost_in_the_middle_of_a_restore_costs_a_call_at_most() {
    for policy in [Policy::OursNoCompression, Policy::ChunkSwap] {
        let good = Arc::new(MemoryMedium::new());
        let split = |split| ServiceOptions { split, ..by(policy) };
        let small = |medium: &Arc<MemoryMedium>, opening, how| {
            serve(store(medium, opening), how, Options { kv_budget_bytes: 300_000, ..options(None) }, engine)
        };
        let mut service = small(&good, 1, split(Split::Planned));
        let [id, other] = [1, 2].map(|seed| {
            let id = block_on(service.create("app", None)).unwrap();
            ask(&mut service, "app", id, &ids(200, seed), 3).unwrap();
            id
        });
        // Some policies write what goes, and only then.
        block_on(service.set_memory_budget(0)).unwrap();
        block_on(service.close()).unwrap();
        for at in (100..good.bytes("seg.00000000").expect("a segment").len() as u64).step_by(70_000) {
            good.corrupt("seg.00000000", at, 1);
        }
        // Polls of the call before the device is lost.
        let run = |prewarms: bool, polls: Option<usize>| {
            let medium = Arc::new(good.copy());
            let mut service = small(&medium, 2, split(Split::Alternating));
            let mut answers = vec![ask(&mut service, "app", other, &ids(3, 3), 4).unwrap().answer.tokens];
            let destroy = service.engine().destroyer().expect("a GPU");
            let mut lost = None;
            {
                let (prompt, options) = (ids(3, 4), greedy(4));
                let mut call: LocalBoxFuture<'_, Result<Option<Vec<u32>>>> = if prewarms {
                    service.prewarm("app", id, 100).map(|switch| switch.map(|_| None)).boxed_local()
                } else {
                    let called = service.generate("app", id, &prompt, &options, |_| ControlFlow::Continue(()));
                    called.map(|served| served.map(|served| Some(served.answer.tokens))).boxed_local()
                };
                let mut done = None;
                for _ in 0..polls.unwrap_or(0) {
                    done = done.or_else(|| (&mut call).now_or_never());
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                if polls.is_some() {
                    destroy();
                }
                match done.unwrap_or_else(|| block_on(call)) {
                    Ok(answer) => answers.extend(answer),
                    Err(e) => lost = Some(e),
                }
            }
            if let Some(e) = &lost {
                assert!(matches!(e, Error::DeviceLost(_)), "{policy:?}, {polls:?}: {e}");
            }
            if lost.is_some() || prewarms {
                answers.push(ask(&mut service, "app", id, &ids(3, 4), 4).unwrap().answer.tokens);
            }
            answers.push(ask(&mut service, "app", other, &ids(3, 5), 4).unwrap().answer.tokens);
            let (used, peak, limit) = service.memory();
            assert!(used <= limit && peak <= limit);
            block_on(service.close()).unwrap();
            let mut service = small(&medium, 3, split(Split::AllRead));
            answers.extend([id, other].map(|id| ask(&mut service, "app", id, &ids(3, 6), 4).unwrap().answer.tokens));
            (answers, lost.is_some())
        };
        let mut failed = 0;
        for prewarms in [false, true] {
            let expected = run(prewarms, None).0;
            for polls in [0, 1, 2, 4, 7, 12] {
                let (answers, lost) = run(prewarms, Some(polls));
                assert_eq!(answers, expected, "{policy:?}, lost after {polls} polls");
                failed += usize::from(lost);
            }
        }
        note(format!("{policy:?}: {failed} of 12 calls failed"));
        assert!(failed > 0, "{policy:?}: the device was lost in the middle of no call");
    }
}
