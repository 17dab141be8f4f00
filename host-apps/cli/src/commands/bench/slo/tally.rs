//! What a policy came to.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::ask::Done;
use super::policy::Policy;
use super::requests::Request;
use crate::data::stats::wilson;
use crate::table::table;

/// What predictions, and turns of the same call, may be off by.
const TENTH: f64 = 0.1;

/// How far predictions are off, as shares of what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Errors {
    /// Share of calls that are off by a tenth at most.
    pub within_10_percent: f64,
    /// The median of what calls are off by, either way.
    pub median: f64,
    /// Nine of ten calls are off by less.
    pub p90: f64,
    /// The median with its sign: below 0, calls took longer than predicted.
    pub bias: f64,
    /// Of the calls that this machine repeats.
    pub repeated: Option<Repeated>,
}

/// How far predictions of those calls are off whose turns took the same within a tenth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Repeated {
    /// Share of all calls.
    pub share: f64,
    /// Share of these whose prediction is off by a tenth at most.
    pub within_10_percent: f64,
}

impl Errors {
    /// Of relative errors, each with what turns of the call are apart; `None` where there are none.
    pub fn of(calls: &[(f64, Option<f64>)]) -> Option<Self> {
        let within = |off: &[f64]| off.iter().filter(|e| e.abs() <= TENTH).count() as f64 / off.len().max(1) as f64;
        let alike: Vec<f64> =
            calls.iter().filter(|(_, apart)| apart.is_some_and(|a| a <= TENTH)).map(|c| c.0).collect();
        let known = !calls.is_empty() && calls.iter().all(|(_, apart)| apart.is_some());
        let repeated = known
            .then(|| Repeated { share: alike.len() as f64 / calls.len() as f64, within_10_percent: within(&alike) });
        let mut off: Vec<f64> = calls.iter().map(|(off, _)| *off).collect();
        let middle =
            |sorted: &[f64], share: f64| sorted.get(((sorted.len() - 1) as f64 * share).round() as usize).copied();
        if off.is_empty() {
            return None;
        }
        off.sort_by(f64::total_cmp);
        let bias = middle(&off, 0.5)?;
        let mut size: Vec<f64> = off.iter().map(|e| e.abs()).collect();
        size.sort_by(f64::total_cmp);
        let within_10_percent = within(&off);
        Some(Self { within_10_percent, median: middle(&size, 0.5)?, p90: middle(&size, 0.9)?, bias, repeated })
    }

    fn brief(&self) -> String {
        let percent = |share: f64| 100.0 * share;
        let repeated = self.repeated.map_or_else(String::new, |of| {
            format!("; of the {:.0} % that repeat within it {:.0} %", percent(of.share), percent(of.within_10_percent))
        });
        format!(
            "{:.0} % (90 %: {:.0} %); {:.0} % within 10 %{repeated}",
            percent(self.median),
            percent(self.p90),
            percent(self.within_10_percent)
        )
    }
}

/// Sums over requests.
#[derive(Debug)]
pub struct Tally {
    policy: Policy,
    done: Vec<Done>,
    classes: BTreeMap<&'static str, (u64, u64, u64)>,
}

impl Tally {
    pub fn new(policy: Policy) -> Self {
        Self { policy, done: Vec::new(), classes: BTreeMap::new() }
    }

    pub fn name(&self) -> &'static str {
        self.policy.name()
    }

    #[cfg(test)]
    pub fn done_so(policy: Policy, done: Vec<Done>) -> Self {
        Self { policy, done, classes: BTreeMap::new() }
    }

    /// What came of each request, in their order.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    pub fn add(&mut self, request: &Request, done: &Done) {
        let class = self.classes.entry(request.class.name()).or_default();
        class.0 += 1;
        class.1 += u64::from(done.right);
        class.2 += u64::from(done.met);
        self.done.push(done.clone());
    }

    fn count(&self, which: impl Fn(&Done) -> bool) -> u64 {
        self.done.iter().filter(|done| which(done)).count() as u64
    }

    fn mean(&self, of: impl Fn(&Done) -> f64) -> f64 {
        self.done.iter().map(of).sum::<f64>() / self.done.len().max(1) as f64
    }

    pub fn brief(&self) -> String {
        let n = self.done.len().max(1) as f64;
        let share = |k: u64| 100.0 * k as f64 / n;
        format!("{:.1} % right, {:.1} % in time", share(self.count(|d| d.right)), share(self.count(|d| d.met)))
    }

    /// How far predictions of TTFT and of TPOT are off. The policy without predictions has none.
    fn errors(&self) -> Option<(Errors, Errors)> {
        let known = || self.done.iter().filter_map(|done| Some((done.predicted?, done.measured, done.apart)));
        let ttft: Vec<_> = known().map(|(said, taken, apart)| (said.0 / taken.0 - 1.0, apart.map(|a| a.0))).collect();
        let tpot: Vec<_> = known().map(|(said, taken, apart)| (said.1 / taken.1 - 1.0, apart.map(|a| a.1))).collect();
        Some((Errors::of(&ttft)?, Errors::of(&tpot)?))
    }

    pub fn json(&self) -> Value {
        let n = self.done.len() as u64;
        let (right, met) = (self.count(|d| d.right), self.count(|d| d.met));
        let both = self.count(|d| d.right && d.met);
        let levels = |of: fn(&Done) -> u32| {
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            self.done.iter().for_each(|done| *counts.entry(of(done)).or_default() += 1);
            counts
        };
        let classes: serde_json::Map<String, Value> = self
            .classes
            .iter()
            .map(|(class, (n, right, met))| ((*class).to_owned(), json!({"requests": n, "right": right, "met": met})))
            .collect();
        json!({
            "policy": self.policy.name(),
            "requests": n,
            "right_plain": self.count(|d| d.right_plain), "right_a_token": self.count(|d| d.right_a_token),
            "right": right, "accuracy": right as f64 / n.max(1) as f64, "accuracy_95": wilson(right, n),
            "met": met, "met_share": met as f64 / n.max(1) as f64, "met_95": wilson(met, n),
            "right_and_met": both, "right_and_met_95": wilson(both, n),
            "feasible": self.count(|d| d.feasible),
            "encoder_used": self.count(|d| d.encoder),
            "kept": self.mean(|d| d.kept),
            "ttft_ms": self.mean(|d| d.measured.0),
            "tpot_ms": self.mean(|d| d.measured.1),
            "ttft_of_target": self.mean(|d| d.measured.0 / d.target.ttft_ms.unwrap_or(f64::INFINITY)),
            "decide_ms": self.mean(|d| d.decide_ms),
            "prediction_errors": self.errors().map(|(ttft, tpot)| json!({"ttft": ttft, "tpot": tpot})),
            "prompt_levels": levels(|d| d.prompt_level), "levels": levels(|d| d.level),
            "classes": classes,
        })
    }
}

/// A line for each policy.
pub fn tell(tallies: &[Tally]) -> Result<()> {
    let head = [
        "POLICY",
        "RIGHT",
        "95 %",
        "IN TIME",
        "95 %",
        "BOTH",
        "CONTEXT KEPT",
        "TTFT",
        "TPOT",
        "OFF, TTFT",
        "OFF, TPOT",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for tally in tallies {
        let n = tally.done.len() as u64;
        let share = |k: u64| format!("{:.1} %", 100.0 * k as f64 / n.max(1) as f64);
        let interval = |k: u64| {
            let i = wilson(k, n);
            format!("{:.1} to {:.1}", 100.0 * i.low, 100.0 * i.high)
        };
        let (right, met) = (tally.count(|d| d.right), tally.count(|d| d.met));
        let predicted =
            tally.errors().map_or_else(|| ["-".to_owned(), "-".to_owned()], |(a, b)| [a.brief(), b.brief()]);
        let [of_ttft, of_tpot] = predicted;
        lines.push([
            tally.policy.name().to_owned(),
            share(right),
            interval(right),
            share(met),
            interval(met),
            share(tally.count(|d| d.right && d.met)),
            format!("{:.0} %", 100.0 * tally.mean(|d| d.kept)),
            format!("{:.0} ms", tally.mean(|d| d.measured.0)),
            format!("{:.1} ms", tally.mean(|d| d.measured.1)),
            of_ttft,
            of_tpot,
        ]);
    }
    crate::commands::bench::report::say(table(&lines).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_size_and_by_sign() {
        let off = [-0.2, -0.05, -0.04, -0.03, 0.0, 0.02, 0.05, 0.06, 0.1, 0.5, -0.5];
        let of = Errors::of(&off.map(|off| (off, None))).unwrap();
        assert_eq!((of.median, of.p90, of.bias), (0.05, 0.5, 0.0));
        assert!((of.within_10_percent - 8.0 / 11.0).abs() < 1e-9 && of.repeated.is_none());
        // The worst two are calls of a disturbed machine.
        let of = Errors::of(&off.map(|off| (off, Some(if off.abs() > 0.3 { 0.4 } else { 0.02 })))).unwrap();
        let repeated = of.repeated.unwrap();
        assert!((repeated.share - 9.0 / 11.0).abs() < 1e-9 && (repeated.within_10_percent - 8.0 / 9.0).abs() < 1e-9);
        assert!(Errors::of(&[]).is_none());
    }
}
