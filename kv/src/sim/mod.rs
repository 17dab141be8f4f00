//! Days of calls in a moment: the policies run against a trace and a device that is only rates.
//!
//! What is measured is the time from a call to the moment when its context is ready to prefill: writing what must be
//! evicted and was not written before, then reading and computing what is missing, and room for the prompt. Writes ahead
//! of time happen between calls and are not counted: the trace leaves minutes for milliseconds of writing, and reads go
//! before them.

mod device;
mod report;
mod trace;

pub use device::{Device, KvBytes};
pub use report::{PolicyReport, Report};
pub use trace::{Arrival, Pattern, poisson, recorded};

use crate::policy::{Choice, LineFit, Manager, Policy, Rates, WidthErrors};
use crate::random::SplitMix;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// When which context is called.
    pub trace: Vec<Arrival>,
    /// Contexts.
    pub contexts: usize,
    /// Tokens that each holds, and may hold at most.
    pub context_tokens: usize,
    /// Tokens of a prompt, at least and at most.
    pub prompt_tokens: (usize, usize),
    /// Tokens of an answer, at least and at most.
    pub answer_tokens: (usize, usize),
    /// The model.
    pub kv: KvBytes,
    /// Bytes of memory for keys and values.
    pub memory_bytes: u64,
    /// The device.
    pub device: Device,
    /// Average bits of a context, where widths are chosen.
    pub average_bits: f64,
    /// Error of each width.
    pub errors: WidthErrors,
    /// Decides everything that looks random.
    pub seed: u64,
}

impl Scenario {
    /// Eight contexts of 2,048 tokens of SmolLM2, memory for two of them at 16 bits, 72 hours with a call every five
    /// minutes.
    pub fn switching(device: Device, pattern: Pattern, seed: u64) -> Self {
        let kv = KvBytes::SMOLLM2;
        Self {
            trace: poisson(72.0 * 3600.0, 300.0, pattern, 8, seed),
            contexts: 8,
            context_tokens: 2048,
            prompt_tokens: (16, 128),
            answer_tokens: (16, 128),
            memory_bytes: 2 * kv.context_bytes(2048 + 256),
            kv,
            device,
            average_bits: 4.0,
            errors: WidthErrors::default(),
            seed,
        }
    }
}

/// Run all policies on the same trace.
pub fn run(scenario: &Scenario) -> Report {
    let policies = Policy::ALL.into_iter().map(|policy| run_policy(scenario, policy)).collect();
    Report { policies }
}

/// The most contexts, up to `most`, whose mean switch stays within `limit_ms`. The trace is drawn anew for each number.
pub fn contexts_within(
    scenario: &Scenario,
    policy: Policy,
    limit_ms: f64,
    most: usize,
    trace: &dyn Fn(usize) -> Vec<Arrival>,
) -> usize {
    let within = |contexts: usize| {
        let scenario = Scenario { trace: trace(contexts), contexts, ..scenario.clone() };
        let report = run_policy(&scenario, policy);
        report.refused == 0 && report.mean_ms <= limit_ms
    };
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = (good + bad) / 2;
        if within(middle) { good = middle } else { bad = middle }
    }
    good
}

/// Run one policy.
pub fn run_policy(scenario: &Scenario, policy: Policy) -> PolicyReport {
    let mut random = SplitMix::new(scenario.seed ^ 0xc0_11ec7);
    let kv = scenario.kv;
    let device = scenario.device;
    let features = policy.features();
    let mut manager = Manager::new(features, kv, scenario.memory_bytes, scenario.errors, scenario.average_bits);
    // What profiling at install gives; it is refined by what the calls take.
    let mut rates = Rates::new(
        LineFit::new(device.recompute_fixed_s, 1.0 / device.recompute_tokens_per_s),
        LineFit::new(device.read_fixed_s, 1.0 / device.read_bytes_per_s),
    );
    let chunks = scenario.context_tokens.div_ceil(crate::CHUNK_TOKENS);
    // A few chunks get most of the attention, the first of all.
    let densities: Vec<Vec<f64>> = (0..scenario.contexts)
        .map(|_| (0..chunks).map(|i| if i == 0 { 20.0 } else { (1.5 * random.normal()).exp() }).collect())
        .collect();
    let mut tokens = vec![0_usize; scenario.contexts];
    let mut report = report::Builder::default();
    // Every context is made before the clock starts.
    let first = (0..scenario.contexts).map(|context| Arrival { at_s: 0.0, context });
    let calls = first.map(|arrival| (arrival, false)).chain(scenario.trace.iter().map(|arrival| (*arrival, true)));
    for (now, (arrival, counts)) in (1..).zip(calls) {
        let context = arrival.context % scenario.contexts.max(1);
        let have = &mut tokens[context];
        let (prompt, answer) = if counts {
            (between(&mut random, scenario.prompt_tokens), between(&mut random, scenario.answer_tokens))
        } else {
            (scenario.context_tokens, 0)
        };
        let key = context as u64;
        // A full context makes room by forgetting its last turns.
        let keep = scenario.context_tokens.saturating_sub(prompt + answer) / crate::CHUNK_TOKENS * crate::CHUNK_TOKENS;
        if *have > keep {
            *have = keep;
            manager.truncate(key, keep);
        }
        let entered = manager.enter(key, &rates).and_then(|switch| {
            let evicted = manager.grow(key, *have, *have + prompt)?;
            Ok((switch, evicted))
        });
        let Ok((switch, evicted)) = entered else {
            manager.finish(key, *have, &[], now);
            report.refused += 1;
            continue;
        };
        *have += prompt;
        let written: u64 = switch
            .evict
            .iter()
            .chain(&evicted)
            .filter(|eviction| eviction.write)
            .map(|eviction| kv.disk_bytes(eviction.width))
            .sum();
        let state = manager.state(key);
        let bytes: u64 = switch
            .restore
            .read
            .iter()
            .filter_map(|index| state[*index as usize].0)
            .map(|width| kv.disk_bytes(width))
            .sum();
        let computed = switch.restore.recompute.len() * crate::CHUNK_TOKENS;
        let mut jitter = || 1.0 + 0.05 * random.normal().clamp(-3.0, 3.0);
        let read_s = device.read_s(bytes) * jitter();
        let compute_s = device.recompute_s(computed) * jitter();
        if counts {
            rates.read.observe(bytes as f64, read_s);
            rates.recompute.observe(computed as f64, compute_s);
            let restore_s = if features.pipeline { read_s.max(compute_s) } else { read_s + compute_s };
            report.switch(device.write_s(written) + restore_s, switch.restore.choice == Choice::Split, bytes, computed);
        }
        if manager.grow(key, *have, *have + answer).is_ok() {
            *have += answer;
        }
        manager.finish(key, *have, &densities[context], now);
    }
    report.finish(policy, manager.budget().peak())
}

fn between(random: &mut SplitMix, (least, most): (usize, usize)) -> usize {
    least + random.below((most.saturating_sub(least) + 1) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(report: &Report, policy: Policy) -> f64 {
        report.policies.iter().find(|p| p.policy == policy).unwrap().mean_ms
    }

    #[test]
    fn ours_is_far_below_the_baselines_and_every_run_repeats() {
        let scenario = Scenario::switching(Device::LAVAPIPE, Pattern::Markov, 1);
        let report = run(&scenario);
        assert_eq!(report, run(&scenario));
        let ours = mean(&report, Policy::Ours);
        assert!(mean(&report, Policy::Lmk) > 100.0 * ours, "{report:?}");
        assert!(mean(&report, Policy::Swap) > 5.0 * ours, "{report:?}");
        assert!(mean(&report, Policy::ChunkSwap) > 3.0 * ours, "{report:?}");
        for policy in &report.policies {
            assert!(policy.peak_bytes <= scenario.memory_bytes && policy.refused == 0, "{policy:?}");
        }
    }

    #[test]
    fn the_pipeline_helps_where_disk_and_compute_are_alike_and_is_not_used_where_it_cannot() {
        // Computing a chunk of 16 tokens takes as long as reading about two of 4 bits.
        let balanced = Device { recompute_tokens_per_s: 1600.0, ..Device::LAVAPIPE.throttled(20e6) };
        let report = run(&Scenario::switching(balanced, Pattern::Markov, 2));
        let (ours, without) = (mean(&report, Policy::Ours), mean(&report, Policy::OursNoPipeline));
        assert!(ours < 0.85 * without, "{ours} {without}");
        let report = run(&Scenario::switching(Device::LAVAPIPE, Pattern::Markov, 2));
        let ours = report.policies.iter().find(|p| p.policy == Policy::Ours).unwrap();
        assert_eq!((ours.splits, ours.recomputed_tokens), (0, 0), "reads alone are faster, and the planner knows");
    }
}
