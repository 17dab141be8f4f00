//! What a decoded token asks of the device: one submission, one staging write, one token read back, and nothing made.

use std::ops::ControlFlow;

use concertina::{Counters, Engine, GenerateOptions, Sampling};
use concertina_tests::system::{SMALL_ARCHS, load, options, tiny};
use pollster::block_on;

/// Counters of an answer of so many tokens.
fn answer(engine: &mut Engine, max_tokens: usize) -> Counters {
    let before = engine.counters();
    let options =
        GenerateOptions { max_tokens, sampling: Sampling::greedy(), ignore_end: true, ..GenerateOptions::default() };
    let mut context = engine.context().expect("a context");
    let done = block_on(engine.generate(&mut context, &[3, 4, 5, 6, 7], &options, |_| ControlFlow::Continue(())));
    assert_eq!(done.expect("an answer").tokens.len(), max_tokens);
    engine.counters().since(&before)
}

#[test]
fn a_decoded_token_is_one_submission_and_makes_nothing() {
    const TOKENS: u64 = 40; // past two chunks
    for arch in SMALL_ARCHS {
        let mut engine = load(tiny(arch).gguf(), options(None));
        answer(&mut engine, 2); // makes what stays
        let (short, long) = (answer(&mut engine, 1), answer(&mut engine, 1 + TOKENS as usize));
        let steps = long.since(&short);
        assert_eq!(
            (steps.buffers, steps.bind_groups, steps.pipelines, steps.prepared),
            (0, 0, 0, 0),
            "{arch}: {steps:?}"
        );
        assert_eq!((steps.submits, steps.writes, steps.read_bytes), (TOKENS, TOKENS, 4 * TOKENS), "{arch}: {steps:?}");
        assert!(steps.dispatches > 0 && steps.dispatches.is_multiple_of(TOKENS), "{arch}: {steps:?}");
    }
}
