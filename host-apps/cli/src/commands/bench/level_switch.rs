//! `concertina bench level-switch`.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use clap::Args;
use concertina::{Context, Counters, GenerateOptions, Sampling};
use pollster::block_on;
use serde_json::json;

use super::report::{prompt, say};
use crate::cli::GlobalArgs;
use crate::data::stats::{Interval, median, median_interval};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  concertina bench level-switch -m smollm2.elastic.gguf
  concertina bench level-switch -m smollm2.elastic.gguf --level 60 --from 20 --runs 100 --json";

/// Measure what it costs that the call before ran at another level.
///
/// A short call at --level is measured after a call at the same level and after one at --from, in turns. Told are both
/// times to the first token, the median of their differences with its 95 % interval, as milliseconds and as a share of the
/// time to the first token, and how many bytes more were written and how many buffers made. Where the device's own times
/// spread too much for that, the host's time to record the passes of a call tells more: what the
/// device runs and reads does not depend on the call before.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct LevelSwitchArgs {
    /// The level that is measured, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub level: u32,
    /// The level of the call before
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub from: u32,
    /// Tokens of a call's prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=2048))]
    pub tokens: u32,
    /// Pairs of calls
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// A call: milliseconds to its first token, and what it asked of the device.
struct Call {
    ms: f64,
    counters: Counters,
}

/// Medians of calls of both kinds and of their differences, pair by pair, in milliseconds.
struct Compared {
    same: f64,
    difference: f64,
    within: Interval,
}

impl Compared {
    fn of(same: &[Call], switched: &[Call], ms: fn(&Call) -> f64) -> Self {
        let of = |calls: &[Call]| calls.iter().map(ms).collect::<Vec<f64>>();
        let differences: Vec<f64> = of(switched).iter().zip(of(same)).map(|(a, b)| a - b).collect();
        let middle = |values: &[f64]| median(values).unwrap_or(0.0);
        Self { same: middle(&of(same)), difference: middle(&differences), within: median_interval(&differences) }
    }

    /// With shares of `whole` milliseconds.
    fn json(&self, whole: f64) -> serde_json::Value {
        let (low, high) = (self.within.low, self.within.high);
        json!({"same_ms": self.same, "difference_ms": self.difference, "difference_ms_95": {"low": low, "high": high},
            "share_of_ttft": self.difference / whole, "share_of_ttft_95": {"low": low / whole, "high": high / whole}})
    }

    fn text(&self, whole: f64) -> String {
        let percent = |ms: f64| 100.0 * ms / whole;
        let (low, high) = (self.within.low, self.within.high);
        format!(
            "{:+.3} ms ({low:+.3} to {high:+.3}), {:+.3} % of the time to the first token ({:+.3} to {:+.3})",
            self.difference,
            percent(self.difference),
            percent(low),
            percent(high)
        )
    }
}

pub fn run(global: &GlobalArgs, args: &LevelSwitchArgs) -> Result<()> {
    ensure!(args.level != args.from, "--level and --from are both {} %: there is nothing to switch", args.level);
    let tokens = args.tokens as usize;
    let mut session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(tokens < most, "--tokens {tokens} and an answer do not fit, this model reads {most}");
        options.fit_contexts(&model.spec, tokens + 1);
        Ok(())
    })?;
    let prompt = prompt(session.engine.tokenizer(), tokens)?;
    let mut context = session.engine.context()?;
    let mut call = |level: u32| first_token(&mut session, &mut context, &prompt, level);
    for level in [args.level, args.from, args.level, args.from] {
        call(level)?;
    }
    let bar = crate::session::bar(u64::from(args.runs), "{bar:30} pair {pos} of {len}, {eta} left");
    let (mut same, mut switched) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        // Which comes first changes, so that what drifts disturbs both.
        for is_switch in [run % 2 == 0, run % 2 != 0] {
            call(if is_switch { args.from } else { args.level })?;
            let measured = call(args.level)?;
            if is_switch { &mut switched } else { &mut same }.push(measured);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let all = Compared::of(&same, &switched, |call| call.ms);
    let host = Compared::of(&same, &switched, |call| call.counters.host_ns as f64 * 1e-6);
    let whole = all.same.max(1e-9);
    let most =
        |of: fn(&Counters) -> u64, calls: &[Call]| calls.iter().map(|call| of(&call.counters)).max().unwrap_or(0);
    let more = |of: fn(&Counters) -> u64| most(of, &switched) as i64 - most(of, &same) as i64;
    let (bytes, buffers) = (more(|c| c.written_bytes), more(|c| c.buffers));
    if args.json {
        let report = json!({"kind": "level-switch", "adapter": session.engine.adapter(), "level": args.level,
            "from": args.from, "tokens": tokens, "pairs": args.runs, "first_token": all.json(whole),
            "host": host.json(whole), "more_written_bytes": bytes, "more_buffers": buffers});
        return say(&report.to_string());
    }
    say(&format!(
        "{tokens} tokens at {} % after a call at {} %, against after a call alike ({:.1} ms to the first token, {:.2} of them \
         the host's to record):",
        args.level, args.from, all.same, host.same
    ))?;
    say(&format!("  to the first token  {}", all.text(whole)))?;
    say(&format!("  host                {}", host.text(whole)))?;
    say(&format!("  {bytes} bytes more written, {buffers} buffers more made"))
}

fn first_token(session: &mut Session, context: &mut Context, prompt: &[u32], level: u32) -> Result<Call> {
    let options = GenerateOptions {
        max_tokens: 1,
        sampling: Sampling::greedy(),
        level,
        ignore_end: true,
        ..GenerateOptions::default()
    };
    context.keep_common(&[]);
    let before = session.engine.counters();
    let answer = block_on(session.engine.generate(context, prompt, &options, |_| ControlFlow::Continue(())))?;
    Ok(Call { ms: answer.ttft_ms, counters: session.engine.counters().since(&before) })
}
