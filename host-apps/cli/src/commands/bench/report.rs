//! Prompts to measure with, and what is told of the measurements.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use concertina::formats::Tokenizer;
use concertina::{Counters, Engine, Width};
use serde_json::{Value, json};

use super::RunsArgs;
use crate::data::stats::median;
use crate::session::Session;

const TEXT: &str = "A concertina is a small instrument with bellows and buttons on both ends. Each button sounds one note, \
    and the player draws the bellows apart and presses them together to move air through the reeds. ";

/// `count` tokens of plain English.
pub fn prompt(tokenizer: &Tokenizer, count: usize) -> Result<Vec<u32>> {
    let text = tokenizer.encode(TEXT, false)?;
    ensure!(!text.is_empty(), "the model's vocabulary cannot spell the text of this measurement");
    Ok(tokenizer.bos().into_iter().chain(text.into_iter().cycle()).take(count).collect())
}

/// Milliseconds of `args.runs` calls of `measure`, with progress on standard error.
pub fn measure(args: &RunsArgs, what: &str, mut measure: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let bar = crate::session::bar(u64::from(args.runs), "{prefix}: run {pos} of {len} {spinner}");
    bar.set_prefix(what.to_owned());
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        runs.push(measure()?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(runs)
}

/// A line on standard output.
pub fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// What the device was asked to do for each token, on average.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Overhead {
    pub dispatches: f64,
    pub submits: f64,
    pub bind_groups: f64,
    pub pipelines: f64,
    pub buffers: f64,
    pub writes: f64,
    pub written_bytes: f64,
    pub read_bytes: f64,
}

impl Overhead {
    /// Of `tokens` tokens: what `more` was counted for beyond `less`, which did all but them.
    pub fn of(less: &Counters, more: &Counters, tokens: usize) -> Self {
        // A tenth is as much as anybody reads.
        let each =
            |less: u64, more: u64| (10.0 * more.saturating_sub(less) as f64 / tokens.max(1) as f64).round() / 10.0;
        Self {
            dispatches: each(less.dispatches, more.dispatches),
            submits: each(less.submits, more.submits),
            bind_groups: each(less.bind_groups, more.bind_groups),
            pipelines: each(less.pipelines, more.pipelines),
            buffers: each(less.buffers, more.buffers),
            writes: each(less.writes, more.writes),
            written_bytes: each(less.written_bytes, more.written_bytes),
            read_bytes: each(less.read_bytes, more.read_bytes),
        }
    }
}

/// What was measured.
pub struct Case {
    pub kind: &'static str,
    pub tokens: usize,
    /// Tokens before them.
    pub context: usize,
    pub level: u32,
    /// Width that was asked for; `None` for the default.
    pub kv_width: Option<Width>,
}

/// Units that a level keeps, and bytes of weights that a token reads there.
pub fn size(engine: &mut Engine, level: u32) -> Result<Value> {
    let (shapes, sub, bytes) = (engine.shapes(), engine.sub_model(level)?, engine.weight_bytes(level)?);
    let whole = engine.weight_bytes(100)?;
    let groups: Vec<_> = sub.layers.iter().map(|units| units.groups).collect();
    let neurons: Vec<_> = sub.layers.iter().map(|units| units.neurons).collect();
    Ok(json!({
        "groups": groups,
        "neurons": neurons,
        "all_groups": shapes.iter().map(|shape| shape.groups).collect::<Vec<_>>(),
        "all_neurons": shapes.iter().map(|shape| shape.neurons).collect::<Vec<_>>(),
        "weight_bytes_per_token": bytes.layers + bytes.head,
        "weight_bytes_of_layers": bytes.layers,
        "share": bytes.layers as f64 / whole.layers.max(1) as f64,
    }))
}

/// One case, told.
pub fn tell(
    session: &mut Session,
    args: &RunsArgs,
    case: &Case,
    runs: &[f64],
    overhead: Option<&Overhead>,
) -> Result<()> {
    let Case { kind, tokens, context, level, kv_width } = *case;
    let width = if args.exact { Width::W32 } else { kv_width.unwrap_or(Width::W16) };
    let ms = median(runs).context("there were no runs")?;
    let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = runs.iter().copied().fold(0.0, f64::max);
    let rate = |ms: f64| if ms > 0.0 { tokens as f64 * 1e3 / ms } else { 0.0 };
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = json!({
            "kind": kind,
            "tokens": tokens,
            "tokens_per_s": rate(ms),
            "ms": ms,
            "ms_min": least,
            "ms_max": most,
            "runs": runs,
            "adapter": session.engine.adapter(),
            "model": session.model_name(),
            "context": context,
            "kv_bits": width.bits(),
            "level": level,
            "size": size(&mut session.engine, level)?,
            "exact": args.exact,
            "per_token": overhead,
        });
        writeln!(out, "{report}")?;
    } else {
        let rates = format!("{:.1} tokens/s ({:.1} to {:.1})", rate(ms), rate(most), rate(least));
        let after = if context > 0 { format!(" after {context}") } else { String::new() };
        let at = if level < 100 { format!(" at level {level}") } else { String::new() };
        let bits = if width.is_quantised() { format!(" with {} bits", width.bits()) } else { String::new() };
        writeln!(
            out,
            "{kind} of {tokens} tokens{after}{at}{bits}: {rates}, {ms:.1} ms, median of {} runs",
            runs.len()
        )?;
        if let Some(o) = overhead {
            writeln!(
                out,
                "  per token: {} dispatches, {} submits, {} bind groups, {} pipelines and {} buffers made, {} writes of {} bytes, \
                 {} bytes read",
                o.dispatches, o.submits, o.bind_groups, o.pipelines, o.buffers, o.writes, o.written_bytes, o.read_bytes
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use concertina::formats::{MemorySource, open_gguf, testing::TinyModel};

    use super::*;

    #[test]
    fn prompts_have_the_length_asked_for() {
        let model = open_gguf(Box::new(MemorySource(TinyModel::new("gemma3").gguf()))).unwrap();
        for count in [1, 7, 1000] {
            assert_eq!(prompt(&model.tokenizer, count).unwrap().len(), count);
        }
    }
}
