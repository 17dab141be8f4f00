//! Contexts as a service: they outlive calls and processes, stay within the budget, come back whichever way they are
//! restored, and belong to their app alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use concertina::kv::store::MemoryMedium;
use concertina::service::{ContextId, Policy, Residence, Service, ServiceOptions, Split};
use concertina::tune::{Tune, TuneHost};
use concertina::{Engine, Error, Options};
use concertina_tests::system::{ask, by, greedy, ids, load, note, options, serve, store, tiny};
use futures::FutureExt as _;
use pollster::block_on;

fn tiny_engine(options: Options) -> Engine {
    load(tiny("llama").gguf(), options)
}

/// Bytes of `chunks` chunks of the tiny model at 16 bits, and what the service keeps for slabs that are not full.
fn budget(chunks: u64) -> u64 {
    let engine = tiny_engine(Options::default());
    let spec = &engine.model().spec;
    let chunk = (2 * spec.layers.len() * spec.n_groups * spec.head_dim * 2 * 16) as u64;
    (chunks + chunks.div_ceil(8)) * chunk
}

fn small(medium: &Arc<MemoryMedium>, opening: u8, chunks: u64, how: ServiceOptions) -> Service {
    let options = Options { kv_budget_bytes: budget(chunks), ..options(None) };
    serve(store(medium, opening), how, options, tiny_engine)
}

#[test]
fn a_context_goes_on_in_the_next_process() {
    let medium = Arc::new(MemoryMedium::new());
    let how = || by(Policy::OursNoCompression);
    let prompt = ids(70, 1);
    let mut first = small(&medium, 1, 64, how());
    let id = block_on(first.create("mail", None)).unwrap();
    let one = ask(&mut first, "mail", id, &prompt, 5).unwrap().answer;
    let more = ids(9, 2);
    let fork = block_on(first.fork("mail", id, None)).unwrap();
    let expected = ask(&mut first, "mail", fork, &more, 8).unwrap().answer.tokens;
    block_on(first.close()).unwrap();

    let mut second = small(&medium, 2, 64, how());
    let tokens = block_on(second.tokens("mail", id)).unwrap();
    assert_eq!(tokens, [&prompt[..], &one.tokens].concat());
    let served = ask(&mut second, "mail", id, &more, 8).unwrap();
    assert_eq!(served.answer.tokens, expected);
    assert_eq!((served.switch.read, served.switch.recomputed), (5, 0), "{:?}", served.switch);
    assert_eq!(served.answer.prefill_tokens, 10, "the last token of the answer, and the new ones");
}

#[test]
fn many_contexts_share_a_small_budget_under_every_policy() {
    for policy in Policy::ALL {
        let medium = Arc::new(MemoryMedium::new());
        let mut service = small(&medium, 1, 24, by(policy));
        let contexts: Vec<_> = (0..6).map(|_| block_on(service.create("app", None)).unwrap()).collect();
        let mut said: Vec<Vec<u32>> = vec![Vec::new(); contexts.len()];
        for round in 0..3 {
            for (i, id) in contexts.iter().enumerate() {
                let prompt = ids(30 + 7 * i, round * 10 + i as u64);
                let answer = ask(&mut service, "app", *id, &prompt, 4).unwrap().answer;
                said[i].extend_from_slice(&prompt);
                said[i].extend_from_slice(&answer.tokens);
                let (used, peak, limit) = service.memory();
                assert!(used <= limit && peak <= limit, "{policy:?}");
            }
        }
        for (id, said) in contexts.iter().zip(&said) {
            assert_eq!(&block_on(service.tokens("app", *id)).unwrap(), said, "{policy:?}");
        }
        let usage = block_on(service.list("app")).unwrap();
        let in_memory = usage.iter().filter(|u| u.residence != Residence::Disk).count();
        note(format!("{policy:?}: {in_memory} of 6 contexts have chunks in memory"));
        assert!(in_memory < 6, "{policy:?}: memory for 24 chunks holds all contexts");
        assert!(usage.iter().map(|u| u.memory_bytes).sum::<u64>() <= service.memory().2);
    }
}

/// Chunks of 16 bits come back bit by bit when read, and but for rounding when computed.
#[test]
fn every_split_of_reading_and_computing_gives_the_same_answer() {
    let prompt = ids(200, 3);
    let mut answers = Vec::new();
    let splits = [Split::AllRead, Split::AllRecompute, Split::Alternating, Split::Random(1), Split::Random(2)];
    for split in splits {
        let medium = Arc::new(MemoryMedium::new());
        let mut service = small(&medium, 1, 64, ServiceOptions { split, ..by(Policy::OursNoCompression) });
        let id = block_on(service.create("app", None)).unwrap();
        ask(&mut service, "app", id, &prompt, 3).unwrap();
        block_on(service.set_memory_budget(0)).unwrap();
        assert_eq!(block_on(service.usage("app", id)).unwrap().residence, Residence::Disk);
        block_on(service.set_memory_budget(u64::MAX)).unwrap();
        let scores = block_on(service.score("app", id, &ids(20, 4), 100, false)).unwrap();
        block_on(service.set_memory_budget(0)).unwrap();
        block_on(service.set_memory_budget(u64::MAX)).unwrap();
        let served = ask(&mut service, "app", id, &ids(5, 5), 12).unwrap();
        note(format!("{split:?}: read {}, computed {}", served.switch.read, served.switch.recomputed));
        assert_eq!(served.switch.read + served.switch.recomputed, 13);
        answers.push((served.answer.tokens, scores));
    }
    for (tokens, scores) in &answers[1..] {
        assert_eq!(tokens, &answers[0].0);
        let off = scores.iter().zip(&answers[0].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 2e-3, "{off}");
    }
}

#[test]
fn damaged_chunks_are_computed_anew() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = small(&medium, 1, 64, by(Policy::OursNoCompression));
    let id = block_on(service.create("app", None)).unwrap();
    let other = block_on(service.create("app", None)).unwrap();
    ask(&mut service, "app", id, &ids(100, 6), 3).unwrap();
    let twin = block_on(service.fork("app", id, None)).unwrap();
    let expected = ask(&mut service, "app", twin, &ids(4, 7), 8).unwrap().answer.tokens;
    ask(&mut service, "app", other, &ids(50, 8), 3).unwrap();
    block_on(service.close()).unwrap();
    // A byte in each third kilobyte of the payload.
    let payload = medium.bytes("seg.0").or_else(|| medium.bytes("seg.00000000")).expect("a segment");
    for at in (100..payload.len() as u64).step_by(3 << 10) {
        medium.corrupt("seg.00000000", at, 1);
    }
    let mut service = small(&medium, 2, 64, by(Policy::OursNoCompression));
    let served = ask(&mut service, "app", id, &ids(4, 7), 8).unwrap();
    assert!(served.switch.lost > 0, "{:?}", served.switch);
    assert_eq!(served.answer.tokens, expected);
    assert_eq!(block_on(service.tokens("app", other)).unwrap().len(), 53);
}

#[test]
fn a_call_that_is_dropped_or_fails_leaves_the_context_as_it_was() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = small(&medium, 1, 16, by(Policy::Ours));
    let id = block_on(service.create("app", None)).unwrap();
    ask(&mut service, "app", id, &ids(40, 1), 3).unwrap();
    let before = block_on(service.tokens("app", id)).unwrap();
    for polls in [0, 1, 3, 6] {
        let prompt = ids(150, 2);
        let options = greedy(20);
        let mut call = Box::pin(service.generate("app", id, &prompt, &options, |_| ControlFlow::Continue(())));
        for _ in 0..polls {
            assert!((&mut call).now_or_never().is_none());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        drop(call);
        assert_eq!(block_on(service.tokens("app", id)).unwrap(), before);
    }
    // More than the budget holds.
    let error = ask(&mut service, "app", id, &ids(400, 3), 3).unwrap_err();
    assert!(matches!(error, Error::OverBudget(_) | Error::ContextFull { .. }), "{error}");
    assert_eq!(block_on(service.tokens("app", id)).unwrap(), before);
    ask(&mut service, "app", id, &ids(5, 4), 3).unwrap();
}

/// What a call evicts is written first under some policies; a call that is dropped there has evicted it all the same.
#[test]
fn a_call_that_is_dropped_leaves_others_as_they_were() {
    let run = |polls: usize| {
        let medium = Arc::new(MemoryMedium::new());
        let mut service = small(&medium, 1, 16, by(Policy::ChunkSwap));
        let [id, other] = [1, 2].map(|seed| {
            let id = block_on(service.create("app", None)).unwrap();
            ask(&mut service, "app", id, &ids(90, seed), 3).unwrap();
            id
        });
        // The last chunk is on disk as it was before it was continued.
        block_on(service.set_memory_budget(0)).unwrap();
        block_on(service.set_memory_budget(u64::MAX)).unwrap();
        for id in [id, other] {
            ask(&mut service, "app", id, &ids(3, 5), 2).unwrap();
        }
        let prompt = ids(140, 3);
        let options = greedy(3);
        let mut call = Box::pin(service.generate("app", id, &prompt, &options, |_| ControlFlow::Continue(())));
        for _ in 0..polls {
            if (&mut call).now_or_never().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(call);
        let kept = block_on(service.usage("app", other)).unwrap().residence;
        (kept, [other, id].map(|id| ask(&mut service, "app", id, &ids(4, 4), 3).unwrap().answer.tokens[0]))
    };
    let (kept, [other, _]) = run(0);
    assert_eq!(kept, Residence::Memory);
    let mut evicting = 0;
    for polls in 1..12 {
        let (kept, [same, _]) = run(polls);
        assert_eq!(same, other, "after {polls} polls");
        evicting += usize::from(kept != Residence::Memory);
    }
    assert!(evicting > 0);
}

#[test]
fn an_app_cannot_reach_anothers_contexts_and_has_its_limit() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = small(&medium, 1, 64, ServiceOptions { contexts_per_app: 2, ..by(Policy::Ours) });
    let mine = block_on(service.create("mail", None)).unwrap();
    ask(&mut service, "mail", mine, &ids(40, 1), 3).unwrap();
    let nobodys = concertina::service::ContextId(mine.0 ^ 1);
    for id in [mine, nobodys] {
        // The same words for a context that is another's and for one that is nobody's.
        let error = ask(&mut service, "spy", id, &ids(4, 1), 3).unwrap_err().to_string();
        assert_eq!(error, "contexts on disk: the app has no such context");
        assert!(block_on(service.tokens("spy", id)).is_err());
        assert!(block_on(service.fork("spy", id, None)).is_err());
        assert!(block_on(service.delete("spy", id)).is_err());
        assert!(block_on(service.pin("spy", id, true)).is_err());
        assert!(block_on(service.prewarm("spy", id, 100)).is_err());
        assert!(block_on(service.compact("spy", id, 0, 0)).is_err());
    }
    assert!(block_on(service.list("spy")).unwrap().is_empty());
    block_on(service.create("mail", None)).unwrap();
    assert!(matches!(block_on(service.create("mail", None)), Err(Error::TooManyContexts { limit: 2 })));
    block_on(service.create("spy", None)).unwrap();
}

#[test]
fn pinned_contexts_stay_and_compacted_ones_go_on() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service = small(&medium, 1, 32, by(Policy::OursNoCompression));
    let pinned = block_on(service.create("app", None)).unwrap();
    ask(&mut service, "app", pinned, &ids(100, 1), 3).unwrap();
    block_on(service.pin("app", pinned, true)).unwrap();
    let other = block_on(service.create("app", None)).unwrap();
    ask(&mut service, "app", other, &ids(230, 2), 3).unwrap();
    assert_eq!(block_on(service.usage("app", pinned)).unwrap().residence, Residence::Memory);
    assert_eq!(block_on(service.compact("app", other, 16, 100)).unwrap(), 133);
    let tokens = block_on(service.tokens("app", other)).unwrap();
    assert_eq!((tokens.len(), &tokens[..16]), (100, &ids(230, 2)[..16]));
    let served = ask(&mut service, "app", other, &ids(5, 4), 4).unwrap();
    let mut fresh = tiny_engine(options(None));
    let mut context = fresh.context().unwrap();
    let prompt = [&tokens[..], &ids(5, 4)].concat();
    let expected = block_on(fresh.generate(&mut context, &prompt, &greedy(4), |_| ControlFlow::Continue(()))).unwrap();
    assert_eq!(served.answer.tokens, expected.tokens);
}

/// A host that kept medians of keys that nobody measured.
#[derive(Debug)]
struct Liar;

impl TuneHost for Liar {
    fn load(&self, key: &str) -> Option<String> {
        let spec = tiny_engine(Options::default()).model().spec.clone();
        let medians = spec.layers.len() * spec.n_groups * spec.head_dim;
        // 4.0 as f16, again and again.
        let bytes: Vec<u8> = [0x00, 0x44].repeat(medians);
        key.starts_with("key medians").then(|| serde_json::json!([key, bytes]).to_string())
    }

    fn store(&self, _key: &str, _text: &str) {}
}

/// Narrow chunks are read with the medians of keys that lie beside them in the store, whatever the engine would have quantised with.
#[test]
fn chunks_are_read_as_they_were_quantised() {
    let open = |medium: &Arc<MemoryMedium>, opening, lies: bool| {
        let host = lies.then(|| Arc::new(Liar) as Arc<dyn TuneHost>);
        let options = Options { kv_budget_bytes: budget(64), tune: Tune::Off, tune_host: host, ..options(None) };
        let how = ServiceOptions { split: Split::AllRead, ..by(Policy::OursUniform2) };
        serve(store(medium, opening), how, options, tiny_engine)
    };
    let score = |service: &mut Service, id: ContextId| {
        block_on(service.score_each("app", id, &[(&ids(40, 2)[..], 8)], 100)).unwrap().concat()
    };
    let written = |medium: &Arc<MemoryMedium>, lies| {
        let mut service = open(medium, 1, lies);
        let id = block_on(service.create("app", None)).unwrap();
        block_on(service.append("app", id, &ids(81, 1), 100)).unwrap();
        let found = score(&mut service, id);
        block_on(service.close()).unwrap();
        (id, found)
    };
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let medium = Arc::new(MemoryMedium::new());
    let (id, expected) = written(&medium, false);
    let found = score(&mut open(&medium, 2, true), id);
    let other = written(&Arc::new(MemoryMedium::new()), true).1;
    let (same, lied) = (far(&found, &expected), far(&other, &expected));
    note(format!("read with the medians of the store: {same:e} nats apart; quantised with others: {lied:e}"));
    assert!(same < 1e-5 && lied > 100.0 * same.max(1e-6), "{same} {lied}");
}

/// What a larger sub-model wrote is read by a smaller one; what a smaller one wrote is computed anew for a larger one.
#[test]
fn chunks_know_the_level_that_wrote_them() {
    let medium = Arc::new(MemoryMedium::new());
    let how = || by(Policy::OursNoCompression);
    let at = |service: &mut Service, id, tokens: &[u32], level| {
        let options = concertina::GenerateOptions { level, ..greedy(3) };
        block_on(service.generate("app", id, tokens, &options, |_| ControlFlow::Continue(()))).unwrap()
    };
    let levels = |service: &mut Service, id| block_on(service.usage("app", id)).unwrap().levels;
    let mut service = small(&medium, 1, 64, how());
    let id = block_on(service.create("app", None)).unwrap();
    let (first, second) = (ids(64, 1), ids(40, 2));
    at(&mut service, id, &first, 100);
    assert_eq!(levels(&mut service, id), [(100, 5)].into());
    let low = at(&mut service, id, &second, 40);
    assert_eq!((low.switch.recomputed, low.answer.level), (0, 40));
    // 109 tokens have keys and values; the chunk that was continued counts as the lower level's.
    assert_eq!(levels(&mut service, id), [(100, 4), (40, 3)].into());

    // The levels are on disk too.
    block_on(service.close()).unwrap();
    let mut service = small(&medium, 2, 64, how());
    assert_eq!(levels(&mut service, id), [(100, 4), (40, 3)].into());
    let fork = block_on(service.fork("app", id, None)).unwrap();
    let lower = at(&mut service, fork, &ids(2, 3), 20);
    // The unfinished chunk at the end is not shared.
    assert_eq!((lower.switch.read, lower.switch.recomputed), (6, 1), "a level below both reads both");
    let high = at(&mut service, id, &ids(2, 3), 100);
    // The fork has the first four, and its lower level's are of no use.
    assert_eq!((high.switch.shared, high.switch.recomputed), (4, 3), "the lower level's are computed anew");
    assert_eq!(levels(&mut service, id), [(100, 8)].into());

    // Idle time brings the fork up; then it is as if the smaller model had never been.
    assert_eq!(block_on(service.upgrade()).unwrap(), Some(fork));
    assert_eq!(levels(&mut service, fork).keys().collect::<Vec<_>>(), [&100]);
    assert_eq!(block_on(service.upgrade()).unwrap(), None);
    let tokens = block_on(service.tokens("app", fork)).unwrap();
    let fresh = block_on(service.create("app", None)).unwrap();
    at(&mut service, fresh, &tokens[..tokens.len() - 3], 100);
    let scores = |service: &mut Service, id| block_on(service.score("app", id, &ids(20, 4), 100, false)).unwrap();
    // The fork's last three tokens are a smaller model's; what follows is scored behind the same text.
    let keep = tokens.len() - 3;
    let forked = block_on(service.fork("app", fork, Some(keep))).unwrap();
    let same = block_on(service.fork("app", fresh, Some(keep))).unwrap();
    let (a, b) = (scores(&mut service, forked), scores(&mut service, same));
    let off = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-3, "{off}");

    // Chunks of a level just below may be let pass.
    let close = block_on(service.create("app", None)).unwrap();
    at(&mut service, close, &first, 90);
    service.set_level_slack(10);
    let passed = at(&mut service, close, &ids(2, 5), 100);
    note(format!("level 90 read at 100 within 10: {} computed anew", passed.switch.recomputed));
    let groups = |service: &mut Service, level| service.engine_mut().sub_model(level).unwrap().layers[0].groups;
    let missing = groups(&mut service, 90) < groups(&mut service, 100);
    assert_eq!(passed.switch.recomputed > 0, missing, "only where no group is missing");
}

/// At 4 bits a chunk that is computed anew takes the width that it would have been read with. What is computed behind chunks of
/// 4 bits differs from what was computed behind 16.
#[test]
fn splits_agree_on_the_real_model_at_4_bits() {
    let Some(path) = concertina_tests::system::real_model("smollm2-135m-instruct-q4_1") else { return };
    let mut answers: Vec<(Split, Vec<u32>, Vec<f32>)> = Vec::new();
    for split in [Split::AllRead, Split::AllRecompute, Split::Alternating, Split::Random(1)] {
        let medium = Arc::new(MemoryMedium::new());
        let how = ServiceOptions { split, ..by(Policy::Ours) };
        let open = |options: Options| block_on(Engine::open(&path, options)).expect("an engine");
        let mut service = serve(store(&medium, 1), how, options(None), open);
        let text = "The tide came in over the flats while the children were still digging, and by the time they looked up \
                    the path to the shore was under water. Nobody had told them that the sea here does not come as waves \
                    but rises quietly in the channels behind you. ";
        let tokens = service.engine().tokenizer().encode(&text.repeat(3), false).unwrap();
        let (prompt, rest) = tokens.split_at(tokens.len() - 24);
        let id = block_on(service.create("app", None)).unwrap();
        ask(&mut service, "app", id, prompt, 1).unwrap();
        let vanish = |service: &mut Service| {
            block_on(service.set_memory_budget(0)).unwrap();
            block_on(service.set_memory_budget(u64::MAX)).unwrap();
        };
        vanish(&mut service);
        let scores = block_on(service.score("app", id, rest, 100, false)).unwrap();
        vanish(&mut service);
        let served = ask(&mut service, "app", id, rest, 16).unwrap();
        note(format!("{split:?}: read {}, computed {}", served.switch.read, served.switch.recomputed));
        answers.push((split, served.answer.tokens, scores));
    }
    let (_, tokens, scores) = &answers[0];
    for (split, other, others) in &answers[1..] {
        let off = scores.iter().zip(others).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / scores.len() as f64;
        let same = tokens.iter().zip(other).take_while(|(a, b)| a == b).count();
        note(format!("{split:?}: {off:.3} nats a token apart on average, {same} of {} tokens the same", tokens.len()));
        assert!(off < 0.1, "{split:?}: {off}");
    }
}
