//! Contexts of one app hold the chunks that they have in common once: what a fork adds to memory, and that nobody's answers
//! change by what becomes of the others.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use concertina::kv::policy::Compression;
use concertina::kv::store::MemoryMedium;
use concertina::service::{ContextId, Policy, Residence, Service, Switch};
use concertina::{Engine, GenerateOptions, Options};
use concertina_tests::system::{ask, by, greedy, ids, load, note, options, serve, store, tiny};
use pollster::block_on;

/// Bytes of a chunk of the tiny model at 16 bits.
fn chunk_bytes() -> u64 {
    let engine = load(tiny("llama").gguf(), Options::default());
    let spec = &engine.model().spec;
    (2 * spec.layers.len() * spec.n_groups * spec.head_dim * 2 * 16) as u64
}

/// A service with memory for so many chunks.
fn service(policy: Policy, chunks: u64) -> Service {
    let bytes = (chunks + chunks.div_ceil(8)) * chunk_bytes();
    let options = Options { kv_budget_bytes: bytes, ..options(None) };
    let load = |options: Options| -> Engine { load(tiny("llama").gguf(), options) };
    serve(store(&Arc::new(MemoryMedium::new()), 1), by(policy), options, load)
}

fn say(service: &mut Service, id: ContextId, seed: u64) -> (Vec<u32>, Switch) {
    let served = ask(service, "app", id, &ids(3, seed), 2).unwrap();
    (served.answer.tokens, served.switch)
}

/// A context of 75 tokens: four full chunks and one that is not.
fn begun(service: &mut Service) -> ContextId {
    let id = block_on(service.create("app", None)).unwrap();
    ask(service, "app", id, &ids(70, 1), 5).unwrap();
    id
}

fn fork(service: &mut Service, id: ContextId) -> ContextId {
    block_on(service.fork("app", id, None)).unwrap()
}

#[test]
fn a_fork_adds_its_tail_to_memory_and_answers_the_same() {
    for policy in [Policy::Ours, Policy::OursNoCompression, Policy::Lmk] {
        let mut alone = service(policy, 64);
        let id_alone = begun(&mut alone);
        let expected = say(&mut alone, id_alone, 2).0;

        let mut service = service(policy, 64);
        let id = begun(&mut service);
        let before = service.memory().0;
        let twin = fork(&mut service, id);
        assert_eq!(service.memory().0, before, "{policy:?}: a fork that was not called adds nothing");
        let (answer, switch) = say(&mut service, twin, 2);
        let narrow = policy.features().compression != Compression::None;
        // Rounded, the first one's unfinished chunk is not quite what the fork computes anew.
        assert!(narrow || answer == expected, "{policy:?}: {answer:?}, {expected:?}");
        assert_eq!(
            (switch.shared, switch.read + switch.recomputed),
            (4, 1),
            "{policy:?}: all but the unfinished chunk"
        );
        let usage = block_on(service.list("app")).unwrap();
        let [one, other] = &usage[..] else { panic!("{usage:?}") };
        assert_eq!(one.shared_bytes, other.shared_bytes);
        assert!(one.shared_bytes > 0, "{one:?}");
        // What only the fork has is its last chunk: at rest as narrow as the policy wants it.
        let own = other.memory_bytes - other.shared_bytes;
        assert_eq!(service.memory().0 - before, own, "{policy:?}");
        assert!(if narrow { own < chunk_bytes() } else { own == chunk_bytes() }, "{policy:?}: {own}");
        assert_eq!(one.memory_bytes + other.memory_bytes - one.shared_bytes, service.memory().0);
        // The first goes on too, as if there had been no fork, and from there they differ.
        assert_eq!(say(&mut service, id, 2).0, expected, "{policy:?}");
        assert_eq!(
            [3, 4].map(|seed| say(&mut service, id, seed).0),
            [3, 4].map(|seed| say(&mut alone, id_alone, seed).0)
        );
        say(&mut service, twin, 5);
    }
}

#[test]
fn system_prompts_lie_in_memory_once() {
    let mut service = service(Policy::Ours, 64);
    let text = "a system prompt of an app, which all of its conversations begin with, again and again and again";
    let made: Vec<ContextId> = (0..3).map(|_| block_on(service.create("app", Some(text))).unwrap()).collect();
    let mut used = Vec::new();
    for (n, id) in made.iter().enumerate() {
        // They were made before anything of it was computed.
        let (_, switch) = say(&mut service, *id, n as u64);
        assert_eq!((switch.shared > 0, switch.recomputed > 1), (n > 0, n == 0), "{switch:?}");
        used.push(service.memory().0);
    }
    let full = block_on(service.tokens("app", made[0])).unwrap().len() / 16;
    note(format!("{full} full chunks; bytes in use after each call: {used:?}"));
    assert!(used[1] - used[0] <= 2 * chunk_bytes() && used[2] - used[1] <= 2 * chunk_bytes(), "{used:?}");
}

#[test]
fn deleting_one_leaves_the_others_and_nothing_of_its_own() {
    let run = |deletes: bool| {
        let mut service = service(Policy::Ours, 64);
        let id = begun(&mut service);
        let [one, other] = [fork(&mut service, id), fork(&mut service, id)];
        say(&mut service, one, 2);
        let mut answers = vec![say(&mut service, other, 3).0];
        let pages = |service: &mut Service| pieces(&block_on(service.read_pages()).unwrap());
        let before = pages(&mut service);
        ask(&mut service, "app", one, &ids(60, 77), 3).unwrap();
        let own: BTreeSet<_> = pages(&mut service).difference(&before).copied().collect();
        if deletes {
            block_on(service.delete("app", one)).unwrap();
            assert_eq!(own.intersection(&pages(&mut service)).count(), 0, "what only it held is overwritten");
        }
        answers.push(say(&mut service, other, 4).0);
        if deletes {
            block_on(service.delete("app", id)).unwrap();
            let usage = block_on(service.usage("app", other)).unwrap();
            assert_eq!((usage.residence, usage.shared_bytes), (Residence::Memory, 0), "it holds them alone now");
        }
        answers.push(say(&mut service, other, 5).0);
        if deletes {
            block_on(service.delete("app", other)).unwrap();
            assert_eq!(service.memory().0, 0);
            assert!(pages(&mut service).is_empty(), "nothing is left of any");
        }
        answers
    };
    assert_eq!(run(true), run(false));
}

/// Aligned pieces of 16 bytes that are not mostly zero.
fn pieces(bytes: &[u8]) -> BTreeSet<[u8; 16]> {
    let telling = |piece: &&[u8]| piece.iter().filter(|byte| **byte != 0).count() > 8;
    bytes.chunks_exact(16).filter(telling).map(|piece| piece.try_into().expect("16 bytes")).collect()
}

#[test]
fn a_higher_level_gets_its_own_copy_and_shares_that() {
    let at = |service: &mut Service, id, seed, level| {
        let options = GenerateOptions { level, ..greedy(3) };
        block_on(service.generate("app", id, &ids(3, seed), &options, |_| ControlFlow::Continue(()))).unwrap()
    };
    let run = |upgrades: bool| {
        let mut service = service(Policy::OursNoCompression, 64);
        let id = block_on(service.create("app", None)).unwrap();
        block_on(service.append("app", id, &ids(70, 1), 40)).unwrap();
        let twin = fork(&mut service, id);
        let mut answers = vec![at(&mut service, twin, 2, 40).answer.tokens];
        let shared = |service: &mut Service| block_on(service.usage("app", twin)).unwrap().shared_bytes;
        assert_eq!(shared(&mut service), 4 * chunk_bytes());
        if upgrades {
            let switch = block_on(service.prewarm("app", id, 100)).unwrap();
            assert_eq!((switch.shared, switch.recomputed), (0, 5), "the lower level's are of no use");
            assert_eq!(shared(&mut service), 0);
        }
        let low = at(&mut service, twin, 3, 40);
        assert_eq!(low.switch.shared + low.switch.read + low.switch.recomputed, 0, "the other kept what it had");
        answers.push(low.answer.tokens);
        if upgrades {
            let switch = block_on(service.prewarm("app", twin, 100)).unwrap();
            assert_eq!(switch.shared, 4, "{switch:?}");
            assert_eq!(shared(&mut service), 4 * chunk_bytes());
        }
        answers
    };
    assert_eq!(run(true), run(false));
}

/// Forks of one context in memory that does not hold them, evicted, shortened and brought back in turn.
#[test]
fn many_forks_in_a_small_budget_answer_as_in_a_large_one() {
    let exact = [Policy::Lmk, Policy::Swap, Policy::ChunkSwap, Policy::OursNoCompression];
    for policy in Policy::ALL {
        let mut runs = Vec::new();
        for chunks in [14, 128] {
            let mut service = service(policy, chunks);
            let base = begun(&mut service);
            let forks: Vec<ContextId> = (0..4).map(|_| fork(&mut service, base)).collect();
            let (mut answers, mut shared, mut evicted) = (Vec::new(), 0, 0);
            for round in 0..3 {
                for (n, id) in forks.iter().enumerate() {
                    let served = ask(&mut service, "app", *id, &ids(20 + 9 * n, round), 3).unwrap();
                    shared += served.switch.shared;
                    evicted += served.switch.evicted;
                    answers.push(served.answer.tokens);
                    let (used, peak, limit) = service.memory();
                    assert!(used <= limit && peak <= limit, "{policy:?}");
                }
                let keep = 40;
                block_on(service.compact("app", forks[round as usize], keep, 64)).unwrap();
                answers.push(say(&mut service, base, round).0);
            }
            note(format!("{policy:?} in {chunks} chunks: {shared} shared, {evicted} evicted"));
            assert!(shared >= 16, "{policy:?}: {shared}");
            runs.push(answers);
        }
        if exact.contains(&policy) {
            assert_eq!(runs[0], runs[1], "{policy:?}");
        }
    }
}
