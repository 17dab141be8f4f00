//! One policy, call by call.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, ensure};
use concertina::service::{Choice, ContextId, Policy, Service, ServiceOptions, Switch};
use concertina::{Engine, GenerateOptions, Sampling};
use pollster::block_on;
use serde::Serialize;

use super::prepare::{APP, Scratch};

/// What is measured.
pub struct Setting {
    /// Contexts that take turns; the store may hold more.
    pub contexts: usize,
    pub policy: Policy,
    pub memory_bytes: u64,
    pub disk_mb_s: Option<f64>,
    pub average_bits: f64,
    pub call_tokens: usize,
}

/// What came of a policy.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub policy: Policy,
    pub calls: usize,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub max_ms: f64,
    /// Time to the first token, which includes the switch.
    pub ttft_mean_ms: f64,
    /// Calls that found everything in memory.
    pub hits: usize,
    /// Restores that read and computed at once.
    pub splits: usize,
    pub read_bytes: u64,
    pub recomputed_chunks: usize,
    pub evicted_chunks: usize,
    /// Chunks written while the call waited.
    pub written_chunks: usize,
    /// Time measured over time planned, the median of restores.
    pub over_plan: f64,
    pub peak_memory_bytes: u64,
    pub read_mb_s: f64,
    pub recompute_tokens_s: f64,
    pub each_ms: Vec<f64>,
    pub each_ttft_ms: Vec<f64>,
}

/// Run `calls` under a policy. The engine comes back.
pub fn run(engine: Engine, scratch: &Scratch, setting: &Setting, calls: &[usize]) -> Result<(Measured, Engine)> {
    let store = scratch.copy(setting.disk_mb_s)?;
    let how = ServiceOptions {
        policy: setting.policy,
        average_bits: setting.average_bits,
        contexts_per_app: 256,
        ..ServiceOptions::default()
    };
    let mut service = block_on(Service::open(engine, store, how))?;
    block_on(service.set_memory_budget(setting.memory_bytes))?;
    let mut contexts: Vec<ContextId> = block_on(service.list(APP))?.into_iter().map(|usage| usage.id).collect();
    contexts.sort_unstable();
    contexts.truncate(setting.contexts);
    let bar = crate::session::bar((contexts.len() + calls.len()) as u64, "{prefix} {bar:30} {pos} of {len} calls");
    bar.set_prefix(setting.policy.name());
    if setting.policy.features().disk {
        for id in &contexts {
            block_on(service.prewarm(APP, *id, 100))?;
            block_on(service.idle())?;
            bar.inc(1);
        }
    }
    let (mut switches, mut ttft_ms) = (Vec::new(), Vec::new());
    let options =
        GenerateOptions { max_tokens: 2, sampling: Sampling::greedy(), ignore_end: true, ..GenerateOptions::default() };
    for (n, context) in calls.first().into_iter().chain(calls).enumerate() {
        let id = contexts[*context];
        let tokens = block_on(service.tokens(APP, id))?;
        let prompt = &tokens[..setting.call_tokens - options.max_tokens];
        let start = Instant::now();
        let served = block_on(service.generate(APP, id, prompt, &options, |_| ControlFlow::Continue(())))?;
        log::debug!("{:?} after {:?}", served.switch, start.elapsed());
        block_on(service.idle())?;
        // In the first call kernels are made ready; it does not count.
        if n > 0 {
            switches.push(served.switch);
            ttft_ms.push(served.answer.ttft_ms);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (_, peak, limit) = service.memory();
    ensure!(peak <= limit.max(setting.memory_bytes), "the budget was exceeded: {peak} of {limit} bytes");
    let rates = service.rates().clone();
    let mut measured = summary(setting.policy, &switches, &ttft_ms, peak);
    measured.read_mb_s = 1e-6 / rates.read.each_s();
    measured.recompute_tokens_s = 1.0 / rates.recompute.each_s();
    Ok((measured, block_on(service.close())?))
}

fn summary(policy: Policy, switches: &[Switch], ttft_ms: &[f64], peak_memory_bytes: u64) -> Measured {
    let each_ms: Vec<f64> = switches.iter().map(|switch| switch.ready_ms).collect();
    let mut sorted = each_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let planned = switches.iter().filter(|switch| switch.planned_ms > 0.0);
    let mut over: Vec<f64> = planned.map(|switch| switch.ready_ms / switch.planned_ms).collect();
    over.sort_by(f64::total_cmp);
    let sum = |of: fn(&Switch) -> usize| switches.iter().map(of).sum();
    Measured {
        policy,
        calls: switches.len(),
        mean_ms: mean(&each_ms),
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        max_ms: quantile(1.0),
        ttft_mean_ms: mean(ttft_ms),
        hits: switches.iter().filter(|switch| switch.read + switch.recomputed == 0).count(),
        splits: switches.iter().filter(|switch| switch.choice == Some(Choice::Split)).count(),
        read_bytes: switches.iter().map(|switch| switch.read_bytes).sum(),
        recomputed_chunks: sum(|switch| switch.recomputed),
        evicted_chunks: sum(|switch| switch.evicted),
        written_chunks: sum(|switch| switch.written),
        over_plan: over.get(over.len() / 2).copied().unwrap_or(0.0),
        peak_memory_bytes,
        read_mb_s: 0.0,
        recompute_tokens_s: 0.0,
        each_ms,
        each_ttft_ms: ttft_ms.to_vec(),
    }
}

/// A line of the table.
pub fn tell(m: &Measured, first: bool) -> Result<()> {
    if first {
        let header =
            ["policy", "calls", "mean ms", "p50 ms", "p95 ms", "hits", "splits", "read MB", "computed", "written"];
        let [name, rest @ ..] = header;
        let rest: String = rest.iter().map(|column| format!("{column:>10}")).collect();
        super::super::report::say(&format!("{name:<20}{rest}"))?;
    }
    let (read_mb, computed) = (m.read_bytes as f64 * 1e-6, m.recomputed_chunks);
    super::super::report::say(&format!(
        "{:<20}{:>10}{:>10.2}{:>10.2}{:>10.2}{:>10}{:>10}{read_mb:>10.1}{computed:>10}{:>10}",
        m.policy.name(),
        m.calls,
        m.mean_ms,
        m.p50_ms,
        m.p95_ms,
        m.hits,
        m.splits,
        m.written_chunks
    ))
}

/// How far the others are above ours.
pub fn tell_ratios(all: &[Measured]) -> Result<()> {
    let Some(ours) = all.iter().find(|m| m.policy == Policy::Ours) else { return Ok(()) };
    for other in all.iter().filter(|m| m.policy != Policy::Ours) {
        let (mean, p95) = (other.mean_ms / ours.mean_ms, other.p95_ms / ours.p95_ms);
        super::super::report::say(&format!(
            "{}: {mean:.2} times ours on the mean, {p95:.2} at p95",
            other.policy.name()
        ))?;
    }
    Ok(())
}
