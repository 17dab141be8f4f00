//! What came of a simulation.

use crate::policy::Policy;

/// A run of all policies.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// By policy, in the order of [`Policy::ALL`].
    pub policies: Vec<PolicyReport>,
}

/// A run of one policy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PolicyReport {
    /// Which.
    pub policy: Policy,
    /// Switches measured.
    pub switches: usize,
    /// Mean time to ready-to-prefill.
    pub mean_ms: f64,
    /// Half of all switches took no longer.
    pub p50_ms: f64,
    /// 95 of 100 switches took no longer.
    pub p95_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Share of switches within 10 ms.
    pub within_10_ms: f64,
    /// Share of switches within 25 ms.
    pub within_25_ms: f64,
    /// Restores that read and computed at once.
    pub splits: usize,
    /// Bytes read.
    pub read_bytes: u64,
    /// Tokens computed anew.
    pub recomputed_tokens: u64,
    /// Calls whose context did not fit the memory.
    pub refused: usize,
    /// The most memory that was reserved at once.
    pub peak_bytes: u64,
}

#[derive(Default)]
pub(super) struct Builder {
    seconds: Vec<f64>,
    splits: usize,
    read_bytes: u64,
    recomputed_tokens: u64,
    pub(super) refused: usize,
}

impl Builder {
    pub(super) fn switch(&mut self, seconds: f64, split: bool, read_bytes: u64, recomputed_tokens: usize) {
        self.seconds.push(seconds);
        self.splits += usize::from(split);
        self.read_bytes += read_bytes;
        self.recomputed_tokens += recomputed_tokens as u64;
    }

    pub(super) fn finish(mut self, policy: Policy, peak_bytes: u64) -> PolicyReport {
        self.seconds.sort_by(f64::total_cmp);
        let n = self.seconds.len();
        // The nearest rank.
        let quantile = |q: f64| {
            let rank = (q * n as f64).ceil() as usize;
            self.seconds.get(rank.saturating_sub(1)).map_or(0.0, |seconds| 1e3 * seconds)
        };
        let share = |limit_ms: f64| {
            let within = self.seconds.iter().filter(|seconds| 1e3 * **seconds <= limit_ms).count();
            within as f64 / n.max(1) as f64
        };
        PolicyReport {
            policy,
            switches: n,
            mean_ms: 1e3 * self.seconds.iter().sum::<f64>() / n.max(1) as f64,
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            max_ms: quantile(1.0),
            within_10_ms: share(10.0),
            within_25_ms: share(25.0),
            splits: self.splits,
            read_bytes: self.read_bytes,
            recomputed_tokens: self.recomputed_tokens,
            refused: self.refused,
            peak_bytes,
        }
    }
}
