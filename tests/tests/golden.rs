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
        worst = worst.join(match expected.ppl {
            None => check_logits(&mut engine, prompt, expected),
            Some(ppl) => check_all_logits(&mut engine, prompt, expected, ppl),
        });
        if !expected.greedy.is_empty() {
            check_greedy(&mut engine, prompt, expected);
        }
        note(format!("  {prompt}: {:.1} s", start.elapsed().as_secs_f64()));
    }
    note(format!("{name}: all prompts {worst}"));
    drop(engine);
    // As people run it: f16 keys and values, and kernels that round where they may.
    let mut engine = block_on(Engine::open(&path, options(None))).expect("an engine");
    for expected in oracle.prompts.values() {
        let Some(ppl) = expected.ppl else { continue };
        let nll = block_on(engine.nll(&expected.tokens, 100)).expect("likelihoods");
        check_perplexity("by default", &nll, ppl);
    }
}

fn check_logits(engine: &mut Engine, name: &str, expected: &Prompt) -> Deviation {
    let rows = block_on(engine.logits(&expected.tokens, &expected.positions, 100, 0)).expect("logits");
    check_rows(&rows, name, expected)
}

/// Logits at every position in one pass: some against the oracle's, and the perplexity of all.
fn check_all_logits(engine: &mut Engine, name: &str, expected: &Prompt, ppl: f64) -> Deviation {
    let tokens = &expected.tokens;
    let all: Vec<usize> = (0..tokens.len()).collect();
    let rows = block_on(engine.logits(tokens, &all, 100, 0)).expect("logits");
    let nll: Vec<f32> = rows.iter().zip(&tokens[1..]).map(|(row, next)| surprise(row, *next)).collect();
    check_perplexity("exact", &nll, ppl);
    let wanted: Vec<Vec<f32>> = expected.positions.iter().map(|p| rows[*p].clone()).collect();
    check_rows(&wanted, name, expected)
}

/// Negative log-likelihood of `token`, in nats.
fn surprise(logits: &[f32], token: u32) -> f32 {
    let top = f64::from(logits[top_index(logits)]);
    let sum: f64 = logits.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    (top + sum.ln() - f64::from(logits[token as usize])) as f32
}

fn check_rows(rows: &[Vec<f32>], name: &str, expected: &Prompt) -> Deviation {
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

fn check_perplexity(how: &str, nll: &[f32], expected: f64) {
    let mean = nll.iter().map(|v| f64::from(*v)).sum::<f64>() / nll.len() as f64;
    let (ppl, off) = (mean.exp(), (mean.exp() / expected - 1.0).abs());
    note(format!("  perplexity {how} {ppl:.4}, expected {expected:.4}: off by {:.4} %", 100.0 * off));
    assert!(off <= PPL_TOLERANCE, "perplexity {how} {ppl}, expected {expected}");
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
