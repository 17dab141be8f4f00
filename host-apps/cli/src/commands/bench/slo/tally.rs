//! What a policy came to.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::ask::Done;
use super::policy::Policy;
use super::requests::Request;
use crate::data::stats::wilson;
use crate::table::table;

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

    /// Share of calls whose predicted times are within 10 % of the measured ones: TTFT, TPOT. The policy without
    /// predictions has none.
    fn predicted(&self) -> Option<(f64, f64)> {
        let known: Vec<_> = self.done.iter().filter_map(|done| Some((done.predicted?, done.measured))).collect();
        let near = |said: f64, taken: f64| (said / taken - 1.0).abs() <= 0.1;
        let share = |hits: usize| hits as f64 / known.len().max(1) as f64;
        let ttft = known.iter().filter(|(said, taken)| near(said.0, taken.0)).count();
        let tpot = known.iter().filter(|(said, taken)| near(said.1, taken.1)).count();
        (!known.is_empty()).then_some((share(ttft), share(tpot)))
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
            "predicted_within_10_percent": self.predicted().map(|(ttft, tpot)| json!({"ttft": ttft, "tpot": tpot})),
            "prompt_levels": levels(|d| d.prompt_level), "levels": levels(|d| d.level),
            "classes": classes,
        })
    }
}

/// A line for each policy.
pub fn tell(tallies: &[Tally]) -> Result<()> {
    let head = ["POLICY", "RIGHT", "95 %", "IN TIME", "95 %", "BOTH", "CONTEXT KEPT", "TTFT", "TPOT", "PREDICTED"];
    let mut lines = vec![head.map(str::to_owned)];
    for tally in tallies {
        let n = tally.done.len() as u64;
        let share = |k: u64| format!("{:.1} %", 100.0 * k as f64 / n.max(1) as f64);
        let interval = |k: u64| {
            let i = wilson(k, n);
            format!("{:.1} to {:.1}", 100.0 * i.low, 100.0 * i.high)
        };
        let (right, met) = (tally.count(|d| d.right), tally.count(|d| d.met));
        let predicted = tally.predicted().map_or_else(
            || "-".to_owned(),
            |(ttft, tpot)| format!("{:.0} % and {:.0} % within 10 %", 100.0 * ttft, 100.0 * tpot),
        );
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
            predicted,
        ]);
    }
    crate::commands::bench::report::say(table(&lines).trim_end())
}
