//! The first policy beside another, request by request: most of what makes requests differ is the same for both.

use serde::Serialize;

use super::ask::Done;
use super::tally::Tally;
use crate::data::stats::{Interval, clustered_mean};
use crate::table::table;

/// A difference of two shares, with its 95 % interval; none of fewer than two requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    pub mean: f64,
    pub interval_95: Option<Interval>,
}

/// The first policy less another one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Versus {
    pub policy: &'static str,
    pub right: Difference,
    pub met: Difference,
    pub right_and_met: Difference,
}

impl Versus {
    pub fn of(first: &Tally, other: &Tally) -> Self {
        let (first, policy, other) = (first.done(), other.name(), other.done());
        Self {
            policy,
            right: difference(first, other, |done| done.right),
            met: difference(first, other, |done| done.met),
            right_and_met: difference(first, other, |done| done.right && done.met),
        }
    }
}

fn difference(first: &[Done], other: &[Done], of: impl Fn(&Done) -> bool) -> Difference {
    let each = first.iter().zip(other).map(|(a, b)| (f64::from(u8::from(of(a))) - f64::from(u8::from(of(b))), 1));
    let each: Vec<(f64, usize)> = each.collect();
    let mean = each.iter().map(|(off, _)| off).sum::<f64>() / each.len().max(1) as f64;
    Difference { mean, interval_95: clustered_mean(&each) }
}

/// A line for each policy but the first; nothing where there is no other.
pub fn lines(tallies: &[Tally]) -> Option<String> {
    let (first, others) = tallies.split_first().filter(|(_, others)| !others.is_empty())?;
    let head = format!("{} LESS", first.name().to_uppercase());
    let mut rows = vec![[head.as_str(), "RIGHT", "IN TIME", "BOTH"].map(str::to_owned)];
    let points = |d: Difference| {
        let half = d.interval_95.map_or_else(String::new, |i| format!(" ± {:.1}", 50.0 * (i.high - i.low)));
        format!("{:+.1}{half}", 100.0 * d.mean)
    };
    rows.extend(others.iter().map(|other| {
        let v = Versus::of(first, other);
        [v.policy.to_owned(), points(v.right), points(v.met), points(v.right_and_met)]
    }));
    Some(table(&rows))
}

#[cfg(test)]
mod tests {
    use concertina::elastic::slo::Target;

    use super::*;

    fn done(right: bool) -> Done {
        Done {
            right,
            met: true,
            prompt_level: 100,
            level: 100,
            kept: 1.0,
            target: Target::default(),
            predicted: None,
            measured: (1.0, 1.0),
            feasible: true,
            encoder: false,
            decide_ms: 0.0,
        }
    }

    #[test]
    fn what_both_get_right_leaves_no_doubt() {
        let all = [true, false, true, true].map(done);
        let same = difference(&all, &all, |done| done.right);
        assert_eq!((same.mean, same.interval_95), (0.0, Some(Interval { low: 0.0, high: 0.0 })));
        let none = [false; 4].map(done);
        let ahead = difference(&all, &none, |done| done.right);
        assert_eq!(ahead.mean, 0.75);
        assert!(ahead.interval_95.is_some_and(|i| i.low < 0.75 && i.high > 0.75));
        assert_eq!(difference(&all[..1], &none[..1], |done| done.right).interval_95, None);
    }
}
