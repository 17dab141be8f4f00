//! `concertina elastic show`: levels as a table, as JSON, as a picture.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use concertina::Planner;
use pollster::block_on;
use serde::Serialize;

use super::plot;
use crate::cli::GlobalArgs;
use crate::pull::human_binary_bytes;
use crate::session::{Session, bar};
use crate::table::table;

const EXAMPLES: &str = "\
Examples:
  concertina elastic show -m smollm2.elastic.gguf
  concertina elastic show -m smollm2.elastic.gguf --text book.txt --windows 8 --svg levels.svg --json";

/// Tokens of the prompt that times are told for.
const PROMPT: usize = 128;

/// What each level of a model keeps, costs and gives.
///
/// Times are of this device, measured at first use and kept: to the first token behind a prompt of 128, and for a token
/// after it. With --text perplexity is measured too, with the recovery adapters and without; on a CPU that takes minutes.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowArgs {
    /// Measure perplexity on this text
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Windows of it, each read on its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: u32,
    /// Tokens of a window
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    pub window: u32,
    /// Draw accuracy and speed by level as an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A level.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub level: u32,
    /// Share of the layers' weights that a token reads.
    pub weights: f64,
    pub adapter_bytes: u64,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    pub ppl: Option<f64>,
    pub ppl_without_adapters: Option<f64>,
}

pub fn run(global: &GlobalArgs, args: &ShowArgs) -> Result<()> {
    let mut windows = Vec::new();
    let mut session = Session::open(global, |model, options| {
        if let Some(path) = &args.text {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let tokens = model.tokenizer.encode(&text, false)?;
            let all = tokens.chunks(args.window as usize).filter(|w| w.len() >= 2);
            windows = all.take(args.windows as usize).map(<[u32]>::to_vec).collect();
            ensure!(!windows.is_empty(), "{} has fewer than two tokens", path.display());
        }
        options.fit_contexts(&model.spec, (args.window as usize).max(1040));
        Ok(())
    })?;
    let planner = block_on(Planner::open(&mut session.engine, crate::tuning::host()))?;
    let engine = &mut session.engine;
    let whole = engine.weight_bytes(100)?.layers.max(1);
    let mut rows = Vec::new();
    for cost in &planner.profile().levels {
        let level = cost.level;
        let (ttft_ms, tpot_ms) = planner.predict(level, PROMPT, 0);
        let (weights, adapter_bytes) =
            (engine.weight_bytes(level)?.layers as f64 / whole as f64, engine.adapter_bytes(level));
        rows.push(Row { level, weights, adapter_bytes, ttft_ms, tpot_ms, ppl: None, ppl_without_adapters: None });
    }
    if !windows.is_empty() {
        let bar = bar(2 * rows.len() as u64, "{bar:30} perplexity {pos} of {len}, {eta} left");
        for row in &mut rows {
            row.ppl = Some(perplexity(engine, &windows, row.level)?);
            bar.inc(1);
        }
        engine.drop_adapters()?;
        for row in &mut rows {
            // Without adapters nothing is another number.
            let same = row.adapter_bytes == 0;
            row.ppl_without_adapters = if same { row.ppl } else { Some(perplexity(engine, &windows, row.level)?) };
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    let (model, adapter) = (session.model_name(), session.engine.adapter());
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::levels(&adapter, &rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        let tokens: usize = windows.iter().map(|w| w.len() - 1).sum();
        let report = serde_json::json!({"model": model, "adapter": adapter, "prompt_tokens": PROMPT, "ppl_tokens": tokens, "levels": rows});
        println!("{report}");
        return Ok(());
    }
    let head = ["LEVEL", "WEIGHTS", "ADAPTERS", "TTFT", "TPOT", "PERPLEXITY", "WITHOUT ADAPTERS"].map(str::to_owned);
    let ppl = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.2}"));
    let line = |row: &Row| {
        [
            format!("{} %", row.level),
            format!("{:.1} %", 100.0 * row.weights),
            human_binary_bytes(row.adapter_bytes),
            format!("{:.0} ms", row.ttft_ms),
            format!("{:.1} ms", row.tpot_ms),
            ppl(row.ppl),
            ppl(row.ppl_without_adapters),
        ]
    };
    print!("{}", table(&std::iter::once(head).chain(rows.iter().map(line)).collect::<Vec<_>>()));
    Ok(())
}

fn perplexity(engine: &mut concertina::Engine, windows: &[Vec<u32>], level: u32) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for window in windows {
        let nll = block_on(engine.nll(window, level))?;
        sum += nll.iter().map(|v| f64::from(*v)).sum::<f64>();
        count += nll.len();
    }
    Ok((sum / f64::from(count.max(1) as u32)).exp())
}
