//! `concertina elastic cap`: operating points between context, accuracy and performance (CAP, arXiv 2405.11299).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::plot;
use crate::cli::GlobalArgs;
use crate::commands::bench::slo::grid::{Grid, grid};
use crate::data::stats::{Interval, wilson};
use crate::table::table;

const EXAMPLES: &str = "\
Examples:
  concertina elastic cap -m smollm2.elastic.gguf --apps arc_easy.jsonl.gz,boolq.jsonl.gz
  concertina elastic cap --apps arc_easy.jsonl.gz --requests 200 --levels 40,100 --json --svg cap.svg";

/// Measure where the service can stand between context, accuracy and performance.
///
/// Questions are answered at every pair of a prompt level and a model level: the share of the prompt's words that was read,
/// the share of right answers, the time to the first token and for each after it, as means. Points that no other beats in
/// all of accuracy, TTFT and context are the front. Without an encoder the prompt is read whole.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CapArgs {
    /// Files of questions, separated by commas: as `eval mc` reads them
    #[arg(long, value_name = "FILE,...", value_delimiter = ',', required = true)]
    pub apps: Vec<PathBuf>,
    /// Questions
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// Model levels
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "20,40,60,80,100",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub levels: Vec<u32>,
    /// Prompt levels
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "20,60,100",
        value_parser = clap::value_parser!(u32).range(20..=100))]
    pub prompt_levels: Vec<u32>,
    /// Keep outcomes here, and use those that are
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,
    /// Seed of the draw of questions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Draw the points as an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Where the service can stand.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub prompt_level: u32,
    pub level: u32,
    /// Share of the prompt's words that was read.
    pub kept: f64,
    pub accuracy: f64,
    pub accuracy_95: Interval,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    /// No other point is at least as good in all and better in one.
    pub front: bool,
}

pub fn run(global: &GlobalArgs, args: &CapArgs) -> Result<()> {
    let how = Grid {
        apps: &args.apps,
        requests: args.requests as usize,
        levels: &args.levels,
        prompt_levels: &args.prompt_levels,
        outcomes: args.outcomes.as_deref(),
        seed: args.seed,
    };
    let (model, adapter, found) = grid(global, &how)?;
    let mut points: Vec<Point> = found
        .iter()
        .map(|of| Point {
            prompt_level: of.prompt_level,
            level: of.level,
            kept: of.kept,
            accuracy: of.right as f64 / of.requests.max(1) as f64,
            accuracy_95: wilson(of.right, of.requests),
            ttft_ms: of.ttft_ms,
            tpot_ms: of.tpot_ms,
            front: false,
        })
        .collect();
    let on_front: Vec<bool> = points.iter().map(|point| !points.iter().any(|other| beats(other, point))).collect();
    points.iter_mut().zip(on_front).for_each(|(point, front)| point.front = front);
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::cap(&adapter, &points)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        let report =
            serde_json::json!({"model": model, "adapter": adapter, "requests": args.requests, "points": points});
        println!("{report}");
        return Ok(());
    }
    let head = ["PROMPT", "MODEL", "KEPT", "RIGHT", "95 %", "TTFT", "TPOT", "FRONT"].map(str::to_owned);
    let line = |p: &Point| {
        [
            format!("{} %", p.prompt_level),
            format!("{} %", p.level),
            format!("{:.0} %", 100.0 * p.kept),
            format!("{:.1} %", 100.0 * p.accuracy),
            format!("{:.1} to {:.1}", 100.0 * p.accuracy_95.low, 100.0 * p.accuracy_95.high),
            format!("{:.0} ms", p.ttft_ms),
            format!("{:.1} ms", p.tpot_ms),
            if p.front { "yes" } else { "" }.to_owned(),
        ]
    };
    print!("{}", table(&std::iter::once(head).chain(points.iter().map(line)).collect::<Vec<_>>()));
    Ok(())
}

/// At least as good in all three, and better in one.
fn beats(a: &Point, b: &Point) -> bool {
    let all = a.kept >= b.kept && a.accuracy >= b.accuracy && a.ttft_ms <= b.ttft_ms;
    all && (a.kept > b.kept || a.accuracy > b.accuracy || a.ttft_ms < b.ttft_ms)
}
