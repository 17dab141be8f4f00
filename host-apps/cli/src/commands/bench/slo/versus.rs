//! The first policy beside another, request by request: most of what makes requests differ is the same for both.

use serde::Serialize;

use super::ask::Done;
use super::tally::Tally;
use crate::data::stats::{Interval, ratio_mean};
use crate::table::table;

/// A share, or a difference of two, with its 95 % interval; none of fewer than two requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    pub mean: f64,
    pub interval_95: Option<Interval>,
}

/// Shares of a policy, or the first policy's less another one's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Versus {
    pub policy: &'static str,
    pub right: Difference,
    pub right_plain: Difference,
    pub right_a_token: Difference,
    pub met: Difference,
    pub right_and_met: Difference,
}

impl Versus {
    /// The first policy less another one; a request counts by its weight.
    pub fn of(first: &Tally, other: &Tally, weights: &[f64]) -> Self {
        let (first, policy, other) = (first.done(), other.name(), other.done());
        let less = |of: fn(&Done) -> bool| {
            let one = |done: &Done| f64::from(u8::from(of(done)));
            weighted(first.iter().zip(other).map(|(a, b)| one(a) - one(b)), weights)
        };
        let [right, right_plain, right_a_token] = RIGHT.map(less);
        Self { policy, right, right_plain, right_a_token, met: less(met), right_and_met: less(both) }
    }

    /// A policy's own shares.
    pub fn nothing(tally: &Tally, weights: &[f64]) -> Self {
        let share =
            |of: fn(&Done) -> bool| weighted(tally.done().iter().map(|done| f64::from(u8::from(of(done)))), weights);
        let [right, right_plain, right_a_token] = RIGHT.map(share);
        Self { policy: tally.name(), right, right_plain, right_a_token, met: share(met), right_and_met: share(both) }
    }
}

/// By byte, plain, by token.
const RIGHT: [fn(&Done) -> bool; 3] = [|done| done.right, |done| done.right_plain, |done| done.right_a_token];

fn met(done: &Done) -> bool {
    done.met
}

fn both(done: &Done) -> bool {
    done.right && done.met
}

fn weighted(values: impl Iterator<Item = f64>, weights: &[f64]) -> Difference {
    let each: Vec<(f64, f64)> = values.zip(weights).map(|(value, weight)| (value * weight, *weight)).collect();
    let (sum, of) = each.iter().fold((0.0, 0.0), |(sum, of), (value, weight)| (sum + value, of + weight));
    Difference { mean: if of > 0.0 { sum / of } else { 0.0 }, interval_95: ratio_mean(&each) }
}

/// A line for each policy but the first; nothing where there is no other.
pub fn lines(tallies: &[Tally], weights: &[f64]) -> Option<String> {
    let (first, others) = tallies.split_first().filter(|(_, others)| !others.is_empty())?;
    let head = format!("{} LESS", first.name().to_uppercase());
    let mut rows = vec![[head.as_str(), "RIGHT", "IN TIME", "BOTH"].map(str::to_owned)];
    rows.extend(others.iter().map(|other| {
        let v = Versus::of(first, other, weights);
        let points = |d: Difference| d.points(true);
        [v.policy.to_owned(), points(v.right), points(v.met), points(v.right_and_met)]
    }));
    Some(table(&rows))
}

impl Difference {
    /// In points; `signed`: with its sign.
    pub fn points(self, signed: bool) -> String {
        let half = self.interval_95.map_or_else(String::new, |i| format!(" ± {:.1}", 50.0 * (i.high - i.low)));
        let mean = 100.0 * self.mean;
        if signed { format!("{mean:+.1}{half}") } else { format!("{mean:.1}{half}") }
    }
}

#[cfg(test)]
mod tests {
    use concertina::elastic::slo::Target;

    use super::super::policy::Policy;
    use super::*;

    fn done(right: bool) -> Done {
        Done {
            right,
            right_plain: right,
            right_a_token: right,
            met: true,
            prompt_level: 100,
            level: 100,
            kept: 1.0,
            target: Target::default(),
            predicted: None,
            measured: (1.0, 1.0),
            apart: None,
            feasible: true,
            encoder: false,
            decide_ms: 0.0,
        }
    }

    #[test]
    fn what_both_get_right_leaves_no_doubt() {
        let of = |all: &[bool]| Tally::done_so(Policy::Ours, all.iter().map(|right| done(*right)).collect());
        let (all, none, even) = (of(&[true, false, true, true]), of(&[false; 4]), [1.0; 4]);
        let same = Versus::of(&all, &all, &even).right;
        assert_eq!((same.mean, same.interval_95), (0.0, Some(Interval { low: 0.0, high: 0.0 })));
        let ahead = Versus::of(&all, &none, &even).right;
        assert_eq!(ahead.mean, 0.75);
        assert!(ahead.interval_95.is_some_and(|i| i.low < 0.75 && i.high > 0.75));
        assert_eq!(Versus::of(&of(&[true]), &of(&[false]), &even).right.interval_95, None);
        // A request of weight 2 counts as two.
        let heavy = Versus::nothing(&all, &[1.0, 2.0, 1.0, 1.0]).right;
        assert!((heavy.mean - 0.6).abs() < 1e-12, "{heavy:?}");
        assert_eq!(heavy.points(false).split(' ').next(), Some("60.0"));
    }
}
