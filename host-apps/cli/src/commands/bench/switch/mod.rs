//! `concertina bench switch`.

mod measure;
pub mod plot;
mod prepare;
mod throttle;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use concertina::kv::CHUNK_TOKENS;
use concertina::kv::sim::{Pattern, poisson};
use concertina::service::{Policy, ServiceOptions};

use crate::cli::GlobalArgs;
use crate::commands::policy::policies;
use crate::session::Session;
use measure::{Measured, Setting};

/// Tokens that a call adds: a short prompt, and an answer of two.
const CALL_TOKENS: usize = 10;

const EXAMPLES: &str = "\
Examples:
  concertina bench switch
  concertina bench switch --disk-mb-s 100 --svg switch.svg
  concertina bench switch --policies ours,chunk-swap --contexts 8 --tokens 512 --calls 20 --json";

/// Measure how long it takes to come back to a context, by policy.
///
/// So many contexts take turns by a trace, with memory for a few of them at 16 bits. Measured is the time from a call to
/// ready-to-prefill: writing what must go and was not written before, then reading and computing what is missing. Calls are
/// minutes apart on a real device, so writes behind the caller's back end before the next call. The contexts are computed
/// once (that takes longest: --keep saves them for the next time), and every policy starts from a copy, with each context
/// visited once before the clock starts. `lmk`, which computes everything anew, gets fewer calls.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SwitchArgs {
    /// Contexts
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub contexts: u32,
    /// Tokens of each
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(32..))]
    pub tokens: u32,
    /// Contexts that memory holds at 16 bits
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub memory: f64,
    /// Calls for each policy
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Calls of the policy that computes everything anew
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub lmk_calls: u32,
    /// Policies, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = policies(),
        default_value = "lmk,swap,chunk-swap,chunk-swap-int8,ours,ours-no-compression,ours-no-pipeline,ours-no-lifecycle,ours-lru")]
    pub policies: Vec<Policy>,
    /// Which context is called next: random, markov, gaussian, or turns (one after the other)
    #[arg(long, value_name = "PATTERN", default_value = "markov", value_parser = order)]
    pub pattern: Order,
    /// Let the disk read and write no more than this
    #[arg(long, value_name = "MB/S")]
    pub disk_mb_s: Option<f64>,
    /// Average bits of keys and values where the policy chooses widths
    #[arg(long, value_name = "BITS", default_value_t = 4.0)]
    pub average_bits: f64,
    /// Text that the contexts hold; by default a paragraph over and over
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Keep the computed contexts here, and use those that are: the first ones, where there are more
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Seed of the trace
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Draw the latencies as an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Which context is called next.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// One after the other.
    Turns,
    /// By a trace.
    Trace(Pattern),
}

fn order(name: &str) -> Result<Order, String> {
    match name {
        "turns" => Ok(Order::Turns),
        "random" => Ok(Order::Trace(Pattern::Random)),
        "markov" => Ok(Order::Trace(Pattern::Markov)),
        "gaussian" => Ok(Order::Trace(Pattern::Gaussian)),
        _ => Err("random, markov, gaussian or turns".into()),
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Turns => "turns",
            Self::Trace(Pattern::Random) => "random",
            Self::Trace(Pattern::Markov) => "markov",
            Self::Trace(Pattern::Gaussian) => "gaussian",
        }
    }

    /// `calls` calls of so many contexts.
    fn calls(self, calls: usize, contexts: usize, seed: u64) -> Vec<usize> {
        let Self::Trace(pattern) = self else { return (0..calls).map(|call| call % contexts).collect() };
        // Twice as long as needed on average; the rest is cut off.
        let trace = poisson(2.0 * calls as f64 + 20.0, 1.0, pattern, contexts, seed);
        trace.into_iter().take(calls).map(|arrival| arrival.context).collect()
    }
}

pub fn run(global: &GlobalArgs, args: &SwitchArgs) -> Result<()> {
    let contexts = args.contexts as usize;
    let calls = args.pattern.calls(args.calls as usize, contexts, args.seed);
    let most_calls = (0..contexts).map(|c| calls.iter().filter(|other| **other == c).count()).max().unwrap_or(0) + 1;
    // The longest context decides what "memory for two" is.
    let longest = (args.tokens as usize + most_calls * CALL_TOKENS).next_multiple_of(CHUNK_TOKENS);

    let mut memory_bytes = 0;
    let session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(longest < most, "contexts of up to {longest} tokens, and this model reads {most}");
        ServiceOptions::default().prepare(options);
        options.context_tokens = longest + CHUNK_TOKENS;
        let context = options.bytes_of(&model.spec, longest);
        memory_bytes = (args.memory * context as f64) as u64;
        ensure!(memory_bytes >= context, "--memory must hold at least the context that runs");
        // What the service keeps for slabs that are not full.
        options.kv_budget_bytes = memory_bytes + options.bytes_of(&model.spec, 16 * CHUNK_TOKENS);
        Ok(())
    })?;
    let model = session.model_name();
    let adapter = session.engine.adapter();
    let scratch = prepare::Scratch::new(args.keep.clone())?;
    let mut engine = prepare::contexts(session.engine, &scratch, args)?;
    let mut measured: Vec<Measured> = Vec::new();
    for policy in &args.policies {
        let calls =
            if policy.features().disk { &calls[..] } else { &calls[..calls.len().min(args.lmk_calls as usize)] };
        let setting = Setting {
            policy: *policy,
            memory_bytes,
            disk_mb_s: args.disk_mb_s,
            average_bits: args.average_bits,
            call_tokens: CALL_TOKENS,
            contexts,
        };
        let (one, back) = measure::run(engine, &scratch, &setting, calls)
            .with_context(|| format!("measuring the policy {}", policy.name()))?;
        engine = back;
        if !args.json {
            measure::tell(&one, measured.is_empty())?;
        }
        measured.push(one);
    }
    if !args.json {
        measure::tell_ratios(&measured)?;
    } else {
        let report = serde_json::json!({
            "model": model, "adapter": adapter, "contexts": contexts, "tokens": args.tokens, "longest": longest,
            "memory_bytes": memory_bytes, "disk_mb_s": args.disk_mb_s, "calls": calls.len(), "seed": args.seed,
            "pattern": args.pattern.name(), "policies": measured,
        });
        super::report::say(&report.to_string())?;
    }
    if let Some(path) = &args.svg {
        let disk = args.disk_mb_s.map_or(String::new(), |rate| format!(", disk throttled to {rate} MB/s"));
        let title = format!("{contexts} contexts of {} tokens, memory for {}{disk}", args.tokens, args.memory);
        let bars: Vec<plot::Bar<'_>> =
            measured.iter().map(|m| plot::Bar { name: m.policy.name(), mean: m.mean_ms, p95: m.p95_ms }).collect();
        std::fs::write(path, plot::latencies(&title, &adapter, &bars)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
