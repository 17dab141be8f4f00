//! The share of attention that each chunk gets, collected by the merge of attention's parts.

use std::ops::ControlFlow;

use concertina::{Context, Engine, GenerateOptions, Options, Sampling};
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{SMALL_ARCHS, data_model, ids, load, max_abs, note, options, tiny, zero_rows};
use pollster::block_on;

const CHUNK: usize = 16;

fn collecting(level: u32, piece: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: 1,
        sampling: Sampling::greedy(),
        level,
        ignore_end: true,
        piece,
        collect_density: true,
    }
}

fn prefill(engine: &mut Engine, context: &mut Context, tokens: &[u32], how: &GenerateOptions) {
    block_on(engine.generate(context, tokens, how, |_| ControlFlow::Continue(()))).expect("an answer");
}

/// Densities after one prompt in a fresh context.
fn density(engine: &mut Engine, tokens: &[u32], level: u32, piece: usize) -> Vec<f32> {
    let mut context = engine.context().expect("a context");
    prefill(engine, &mut context, tokens, &collecting(level, piece));
    let density = block_on(engine.density(&context)).expect("densities");
    assert_eq!(density.len(), tokens.len().div_ceil(CHUNK), "one a chunk");
    let sum: f32 = density.iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "shares of every row, head and layer add up to 1, not {sum}");
    density
}

#[test]
fn agrees_with_the_cpu_twins() {
    for arch in SMALL_ARCHS {
        let bytes = tiny(arch).gguf();
        let tokens = ids(90, 7);
        let mut engine = load(bytes.clone(), options(None));
        let mut twins = load(bytes, options(Some("cpu")));
        let mut worst = 0f64;
        for (level, piece) in [(100, 0), (100, 1), (100, 7), (40, 33)] {
            let found = density(&mut engine, &tokens, level, piece);
            let expected = density(&mut twins, &tokens, level, 0);
            worst = worst.max(max_abs(&found, &expected));
        }
        note(format!("{arch}: densities off by at most {worst:.1e}"));
        assert!(worst < 1e-4, "{arch}: off by {worst}");
    }
}

/// With queries of zero every score is 0 and attention is uniform over what a row sees: the densities can be counted.
#[test]
fn uniform_attention_has_known_densities() {
    for arch in SMALL_ARCHS {
        let mut bytes = TinyModel::new(arch).gguf();
        let model = data_model(bytes.clone());
        for layer in &model.tensors.layers {
            zero_rows(&mut bytes, &layer.q, 0);
            layer.q_bias.iter().for_each(|bias| zero_rows(&mut bytes, bias, 0));
        }
        let n = 75;
        let found = density(&mut load(bytes, options(None)), &ids(n, 8), 100, 0);
        let mut expected = vec![0f64; n.div_ceil(CHUNK)];
        for layer in &model.spec.layers {
            for row in 0..n {
                let first = layer.window.map_or(0, |window| (row + 1).saturating_sub(window as usize));
                let weight = 1.0 / ((row + 1 - first) * n * model.spec.layers.len()) as f64;
                (first..=row).for_each(|key| expected[key / CHUNK] += weight);
            }
        }
        let expected: Vec<f32> = expected.into_iter().map(|share| share as f32).collect();
        let off = max_abs(&found, &expected);
        assert!(off < 1e-5, "{arch}: {found:?}, counted {expected:?}");
        note(format!("{arch}: counted densities are off by {off:.1e}"));
    }
}

#[test]
fn collection_goes_on_over_calls_and_begins_again_where_rows_are_dropped() {
    let mut engine = load(tiny("qwen2").gguf(), Options { contexts: 2, ..options(None) });
    let tokens = ids(60, 9);
    let once = density(&mut engine, &tokens, 100, 0);
    let mut context = engine.context().expect("a context");
    assert!(block_on(engine.density(&context)).expect("densities").is_empty(), "nothing was collected yet");
    // In two calls: the sampled token of the first is taken back before it is ever run.
    prefill(&mut engine, &mut context, &tokens[..25], &collecting(100, 0));
    context.truncate(25);
    prefill(&mut engine, &mut context, &tokens[25..], &collecting(100, 0));
    let twice = block_on(engine.density(&context)).expect("densities");
    assert!(max_abs(&once, &twice) < 1e-5, "{once:?} in one call, {twice:?} in two");
    // What another context collects does not reach this one.
    let other = density(&mut engine, &ids(60, 10), 100, 0);
    assert!(max_abs(&once, &other) > 1e-4, "other tokens, other densities");
    assert!(max_abs(&twice, &block_on(engine.density(&context)).expect("densities")) == 0.0);
    context.truncate(20);
    assert!(block_on(engine.density(&context)).expect("densities").is_empty(), "dropped rows were counted");
}
