//! What a decoded token asks of the device: one submission, one staging write, one token read back, and nothing made.

use std::ops::ControlFlow;

use concertina::{Counters, Engine, GenerateOptions, Options, Sampling, Width};
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{SMALL_ARCHS, ids, load, options, tiny};
use pollster::block_on;

/// Counters of an answer of so many tokens.
fn answer(engine: &mut Engine, max_tokens: usize) -> Counters {
    answer_to(engine, &[3, 4, 5, 6, 7], max_tokens)
}

fn answer_to(engine: &mut Engine, prompt: &[u32], max_tokens: usize) -> Counters {
    let before = engine.counters();
    let options =
        GenerateOptions { max_tokens, sampling: Sampling::greedy(), ignore_end: true, ..GenerateOptions::default() };
    let mut context = engine.context().expect("a context");
    let done = block_on(engine.generate(&mut context, prompt, &options, |_| ControlFlow::Continue(())));
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

/// On adapters that take attention lane by lane, as the CPU twins do: what is embedded and written there is attention's own work
/// in a short context, whose parts are not merged either, and a dispatch before and after it in a long one. Pages of several
/// widths are no dispatch more.
#[test]
fn a_token_of_a_short_context_is_two_dispatches_a_layer_less() {
    for arch in SMALL_ARCHS {
        let dispatches = |kv_width, tokens: usize| {
            let model = TinyModel { context_len: 640, ..tiny(arch) };
            let mut engine = load(model.gguf(), Options { kv_width, ..options(Some("cpu")) });
            let prompt = ids(tokens, 7);
            // The first token comes with the prompt, and the second one's pass narrows the prompt's chunks.
            let (short, long) = (answer_to(&mut engine, &prompt, 2), answer_to(&mut engine, &prompt, 4));
            (long.since(&short).dispatches / 2, engine.model().spec.layers.len() as u64)
        };
        // Before token 384, and behind it. No chunk becomes full in either.
        let (short, layers) = dispatches(Width::W16, 372);
        let (long, _) = dispatches(Width::W16, 388);
        assert_eq!(long, short + 2 * layers, "{arch}: {short} dispatches, {long} in a long context");
        assert_eq!(dispatches(Width::W4, 372).0, short, "{arch}: pages of 4 bits");
        assert_eq!(dispatches(Width::W4, 388).0, long, "{arch}: pages of 4 bits, long");
    }
}
