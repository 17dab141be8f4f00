//! Real models against reference logits that were made by an independent float32 forward pass. One test a model: each
//! skips, and says so, where its file or the oracle is absent.

use std::ops::ControlFlow;
use std::time::Instant;

use concertina::{Engine, GenerateOptions, Options, Sampling};
use concertina_tests::system::{Deviation, Oracle, Prompt, note, options, real_model, top_index};
use pollster::block_on;

/// ‖d‖ / ‖ref‖ of a row of logits.
const TOLERANCE: f64 = 2e-3;
/// Of perplexity, relative.
const PPL_TOLERANCE: f64 = 3e-3;
/// Where the oracle's first two logits are closer than this, either may come first.
const MARGIN: f64 = 0.05;

#[test]
fn smollm2_135m() {
    golden("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen25_coder_05b() {
    golden("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma3_270m() {
    golden("gemma-3-270m-q4_k_m");
}

fn golden(name: &str) {
    let Some(path) = real_model(name) else { return };
    let Some(oracle) = Oracle::of(name) else { return };
    let exact = Options { exact: true, ..options(None) };
    let mut engine = block_on(Engine::open(&path, exact)).expect("an engine");
    note(format!("{name} on {}", engine.adapter()));
    let mut worst = Deviation::default();
    for (prompt, expected) in &oracle.prompts {
        let start = Instant::now();
        worst = worst.join(check_logits(&mut engine, prompt, expected));
        if let Some(ppl) = expected.ppl {
            check_perplexity(&mut engine, &expected.tokens, ppl);
        }
        if !expected.greedy.is_empty() {
            check_greedy(&mut engine, prompt, expected);
        }
        note(format!("  {prompt}: {:.1} s", start.elapsed().as_secs_f64()));
    }
    note(format!("{name}: all prompts {worst}"));
}

fn check_logits(engine: &mut Engine, name: &str, expected: &Prompt) -> Deviation {
    let rows = block_on(engine.logits(&expected.tokens, &expected.positions, 100, 0)).expect("logits");
    let mut worst = Deviation::default();
    for (i, (row, reference)) in rows.iter().zip(&expected.logits).enumerate() {
        let position = expected.positions[i];
        let deviation = Deviation::default().max(row, reference);
        assert!(deviation.relative <= TOLERANCE, "{name}, position {position}: {deviation}");
        if expected.margin[i] > MARGIN {
            assert_eq!(top_index(row), top_index(reference), "{name}, position {position}: the most likely token");
        }
        worst = worst.join(deviation);
    }
    note(format!("  {name}: {} rows, {worst}", rows.len()));
    worst
}

fn check_perplexity(engine: &mut Engine, tokens: &[u32], expected: f64) {
    let nll = block_on(engine.nll(tokens, 100)).expect("likelihoods");
    let mean = nll.iter().map(|v| f64::from(*v)).sum::<f64>() / nll.len() as f64;
    let (ppl, off) = (mean.exp(), (mean.exp() / expected - 1.0).abs());
    note(format!("  perplexity {ppl:.4}, expected {expected:.4}: off by {:.4} %", 100.0 * off));
    assert!(off <= PPL_TOLERANCE, "perplexity {ppl}, expected {expected}");
}

fn check_greedy(engine: &mut Engine, name: &str, expected: &Prompt) {
    let until = expected.greedy_margin.iter().position(|m| *m < MARGIN).unwrap_or(expected.greedy.len());
    let mut context = engine.context().expect("a context");
    let greedy = GenerateOptions {
        max_tokens: until,
        sampling: Sampling::greedy(),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let answer = block_on(engine.generate(&mut context, &expected.tokens, &greedy, |_| ControlFlow::Continue(())));
    let answer = answer.expect("an answer");
    assert_eq!(answer.tokens, expected.greedy[..until], "{name}: the greedy continuation");
    note(format!("  {name}: {until} of {} greedy tokens are the same", expected.greedy.len()));
}
