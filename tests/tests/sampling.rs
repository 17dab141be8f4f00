//! How tokens are picked, through the engine.

use std::ops::ControlFlow;

use concertina::{Answer, Engine, GenerateOptions, Sampling};
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{ids, load, options};
use pollster::block_on;

fn engine(adapter: Option<&str>) -> Engine {
    load(TinyModel::new("qwen2").gguf(), options(adapter))
}

fn answer(engine: &mut Engine, sampling: Sampling) -> Answer {
    let mut context = engine.context().expect("a context");
    let how = GenerateOptions { max_tokens: 40, sampling, ignore_end: true, ..GenerateOptions::default() };
    block_on(engine.generate(&mut context, &ids(20, 12), &how, |_| ControlFlow::Continue(()))).expect("an answer")
}

fn hot(seed: u32) -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..Sampling::default() }
}

#[test]
fn the_seed_decides() {
    let mut engine = engine(None);
    let first = answer(&mut engine, hot(1)).tokens;
    assert_eq!(first, answer(&mut engine, hot(1)).tokens, "the same seed, the same answer");
    let others: Vec<_> = (2..5).map(|seed| answer(&mut engine, hot(seed)).tokens).collect();
    assert!(others.iter().all(|other| *other != first), "other seeds, other answers");
}

#[test]
fn a_narrow_filter_leaves_the_greedy_answer() {
    let mut engine = engine(None);
    let greedy = answer(&mut engine, Sampling::greedy()).tokens;
    for sampling in [
        Sampling { top_k: 1, ..hot(3) },
        Sampling { top_p: 1e-6, ..hot(3) },
        Sampling { min_p: 1.0, ..hot(3) },
        Sampling { temperature: 1e-4, ..hot(3) },
    ] {
        assert_eq!(answer(&mut engine, sampling.clone()).tokens, greedy, "{sampling:?}");
    }
    assert_ne!(answer(&mut engine, hot(3)).tokens, greedy, "without a filter the draw matters");
}

#[test]
fn a_penalty_stops_repetition() {
    let mut engine = engine(None);
    let repeats = |tokens: &[u32]| tokens.iter().enumerate().filter(|(i, t)| tokens[..*i].contains(t)).count();
    let plain = answer(&mut engine, Sampling::greedy()).tokens;
    let penalised = answer(&mut engine, Sampling { repetition_penalty: 5.0, ..Sampling::greedy() }).tokens;
    assert_ne!(plain, penalised);
    assert!(repeats(&penalised) <= repeats(&plain), "{plain:?} {penalised:?}");
    // 20 tokens of prompt and up to 39 of the answer fit the look-back of 64: none comes twice while others are likelier.
    assert_eq!(repeats(&penalised), 0, "{penalised:?}");
}

#[test]
fn the_cpu_twins_draw_the_same_tokens() {
    let (mut gpu, mut twins) = (engine(None), engine(Some("cpu")));
    for sampling in [Sampling::greedy(), hot(7), Sampling { seed: 8, repetition_penalty: 1.3, ..Sampling::default() }] {
        let found = answer(&mut gpu, sampling.clone()).tokens;
        assert_eq!(found, answer(&mut twins, sampling.clone()).tokens, "{sampling:?}");
    }
}
