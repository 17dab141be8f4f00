//! `concertina bench trace`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use concertina::kv::policy::Policy;
use concertina::kv::sim::{
    Arrival, Device, KvBytes, Pattern, PolicyReport, Report, Scenario, contexts_within, poisson, recorded, run,
};
use concertina::kv::store::{MemoryMedium, Options as StoreOptions, Store};
use concertina::service::{Service, ServiceOptions};
use pollster::block_on;
use serde_json::{Value, json};

use super::report::say;
use super::switch::plot;
use crate::cli::GlobalArgs;
use crate::session::Session;

const HOURS_S: f64 = 72.0 * 3600.0;
/// Contexts are counted up to here.
const MOST: usize = 512;

const EXAMPLES: &str = "\
Examples:
  concertina bench trace                                      72 hours, with the rates of this device
  concertina bench trace --disk-mb-s 20 --svg trace.svg
  concertina bench trace --calls calls.json --json            recorded calls: a list of [seconds, conversation]
  concertina bench trace --read-mb-s 1000 --tokens-s 300      another device, without measuring this one";

/// Simulate days of calls, by policy: the same code decides as in the service, and the device is only rates.
///
/// Calls come at random times, 72 hours of them with one every five minutes on average, or as they were recorded. Reported
/// for each policy: the time to ready-to-prefill, and how many contexts stay within 10 and 25 ms on average at three budgets
/// of memory. The rates are measured on this device first, unless they are given.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TraceArgs {
    /// Contexts
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub contexts: u32,
    /// Tokens of each
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(32..))]
    pub tokens: u32,
    /// Contexts that memory holds at 16 bits
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    pub memory: f64,
    /// Recorded calls: a JSON list of [seconds, conversation], as scripts/chitchat-trace writes it
    #[arg(long, value_name = "FILE")]
    pub calls: Option<PathBuf>,
    /// Let the disk read and write no more than this
    #[arg(long, value_name = "MB/S")]
    pub disk_mb_s: Option<f64>,
    /// Bytes read, opened and brought to the device in a second; with --tokens-s nothing is measured
    #[arg(long, value_name = "MB/S", requires = "tokens_s")]
    pub read_mb_s: Option<f64>,
    /// Tokens prefilled in a second
    #[arg(long, value_name = "N", requires = "read_mb_s")]
    pub tokens_s: Option<f64>,
    /// Average bits of keys and values where the policy chooses widths
    #[arg(long, value_name = "BITS", default_value_t = 4.0)]
    pub average_bits: f64,
    /// Skip the count of contexts, which takes longest
    #[arg(long)]
    pub no_count: bool,
    /// Seed of everything that looks random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Draw the latencies of the first trace as an SVG file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

pub fn run_command(global: &GlobalArgs, args: &TraceArgs) -> Result<()> {
    let (name, device, kv) = device(global, args)?;
    let device = args.disk_mb_s.map_or(device, |rate| device.throttled(rate * 1e6));
    let contexts = args.contexts as usize;
    let tokens = args.tokens as usize;
    let base = Scenario {
        trace: Vec::new(),
        contexts,
        context_tokens: tokens,
        kv,
        device,
        average_bits: args.average_bits,
        memory_bytes: (args.memory * kv.context_bytes(tokens + 256) as f64) as u64,
        ..Scenario::switching(device, Pattern::Markov, args.seed)
    };
    let mut reports = Vec::new();
    for (name, trace) in traces(args, contexts)? {
        let report = run(&Scenario { trace, ..base.clone() });
        if !args.json {
            table(&name, &report)?;
        }
        reports.push((name, report));
    }
    let counts = if args.no_count { Vec::new() } else { counts(args, &base)? };
    if args.json {
        let all: Vec<Value> =
            reports.iter().map(|(name, report)| json!({"trace": name, "policies": report.policies})).collect();
        let first = reports.first().map(|(_, report)| &report.policies);
        let report = json!({
            "device": name, "recompute_tokens_per_s": device.recompute_tokens_per_s,
            "read_bytes_per_s": device.read_bytes_per_s, "contexts": contexts, "tokens": tokens,
            "memory_bytes": base.memory_bytes, "policies": first, "traces": all, "contexts_within": counts,
        });
        say(&report.to_string())?;
    }
    if let (Some(path), Some((trace, report))) = (&args.svg, reports.first()) {
        let title = format!("simulated, {trace}, {contexts} contexts of {tokens} tokens, memory for {}", args.memory);
        let bar = |p: &PolicyReport| plot::Bar { name: p.policy.name(), mean: p.mean_ms, p95: p.p95_ms };
        let bars: Vec<_> = report.policies.iter().map(bar).collect();
        std::fs::write(path, plot::latencies(&title, &name, &bars)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The device and the model's chunks, measured or as given.
fn device(global: &GlobalArgs, args: &TraceArgs) -> Result<(String, Device, KvBytes)> {
    let of = |read: (f64, f64), compute: (f64, f64)| Device {
        recompute_fixed_s: compute.0,
        recompute_tokens_per_s: compute.1,
        read_fixed_s: read.0,
        read_bytes_per_s: read.1,
        // Sealing costs what opening does, and goes through the page cache.
        write_bytes_per_s: 0.8 * read.1,
    };
    if let (Some(read), Some(tokens)) = (args.read_mb_s, args.tokens_s) {
        ensure!(read > 0.0 && tokens > 0.0, "--read-mb-s and --tokens-s must be above 0");
        return Ok(("as given".into(), of((0.0, read * 1e6), (0.0, tokens)), KvBytes::SMOLLM2));
    }
    let session = Session::open(global, |_, options| {
        ServiceOptions::default().prepare(options);
        Ok(())
    })?;
    let (adapter, spec) = (session.engine.adapter(), session.engine.model().spec.clone());
    let kv = KvBytes { layers: spec.layers.len() as u64, groups: spec.n_groups as u64, head_dim: spec.head_dim as u64 };
    let store = Store::open(Arc::new(MemoryMedium::new()), &StoreOptions::new([9; 32], [1; 32]))?;
    let service = block_on(Service::open(session.engine, store, ServiceOptions::default()))?;
    let rates = service.rates();
    let read = (rates.read.fixed_s(), 1.0 / rates.read.each_s().max(1e-12));
    let compute = (rates.recompute.fixed_s(), 1.0 / rates.recompute.each_s().max(1e-12));
    if !args.json {
        say(&format!("{adapter}: {:.0} tokens/s, {:.0} MB/s", compute.1, read.1 * 1e-6))?;
    }
    Ok((adapter, of(read, compute), kv))
}

fn traces(args: &TraceArgs, contexts: usize) -> Result<Vec<(String, Vec<Arrival>)>> {
    if let Some(path) = &args.calls {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let calls: Vec<(f64, u64)> = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a list of [seconds, conversation]", path.display()))?;
        if calls.is_empty() {
            bail!("{} holds no calls", path.display());
        }
        return Ok(vec![("recorded calls".into(), recorded(&calls, contexts))]);
    }
    let of =
        |(name, pattern): (&str, Pattern)| (name.to_owned(), poisson(HOURS_S, 300.0, pattern, contexts, args.seed));
    Ok([("Markov", Pattern::Markov), ("random", Pattern::Random), ("Gaussian", Pattern::Gaussian)].map(of).into())
}

fn table(name: &str, report: &Report) -> Result<()> {
    say(&format!("\n{name}\n{:<22}{:>12}{:>12}{:>12}{:>9}", "policy", "mean ms", "p95 ms", "max ms", "splits"))?;
    for p in &report.policies {
        let name = p.policy.name();
        say(&format!("{name:<22}{:>12.2}{:>12.2}{:>12.2}{:>9}", p.mean_ms, p.p95_ms, p.max_ms, p.splits))?;
    }
    Ok(())
}

/// Contexts whose mean stays within 10 and 25 ms, called at random, at three budgets of memory.
fn counts(args: &TraceArgs, base: &Scenario) -> Result<Vec<Value>> {
    let context = base.kv.context_bytes(base.context_tokens + 256);
    let budgets = [2, 4, 8].map(|n| n * context);
    if !args.json {
        let columns: String = budgets.iter().map(|b| format!("{:>18}", format!("{} MiB", b >> 20))).collect();
        say(&format!("\ncontexts within a mean of 10 / 25 ms\n{:<22}{columns}", "policy"))?;
    }
    let trace = |contexts| poisson(HOURS_S, 300.0, Pattern::Random, contexts, args.seed);
    let mut found = Vec::new();
    for policy in [Policy::Lmk, Policy::Swap, Policy::ChunkSwap, Policy::ChunkSwapInt8, Policy::Ours] {
        let mut line = format!("{:<22}", policy.name());
        for memory_bytes in budgets {
            let scenario = Scenario { memory_bytes, ..base.clone() };
            let [ten, twenty_five] = [10.0, 25.0].map(|ms| contexts_within(&scenario, policy, ms, MOST, &trace));
            let shown = |n: usize| if n == MOST { format!("{MOST}+") } else { n.to_string() };
            line += &format!("{:>18}", format!("{} / {}", shown(ten), shown(twenty_five)));
            found.push(json!({"policy": policy, "memory_bytes": memory_bytes, "within_10_ms": ten,
                "within_25_ms": twenty_five}));
        }
        if !args.json {
            say(&line)?;
        }
    }
    Ok(found)
}
