//! How far calls are from what was measured: a factor that all levels share, for the machine is busy or free for all of them
//! alike, and one of each kind of call (its level, how long its prompt is) beside it.

use serde::{Deserialize, Serialize};

/// Weight of a call in the factor that all levels share. Measured on a machine that others used: of repeated calls the most
/// were within a tenth of what was predicted with weights from 0.2 to 0.5 for one series, and below 0.1 for another.
const FRESH: f64 = 0.2;
/// Weight in the factor of its own kind.
const FRESH_OWN: f64 = 0.1;
/// Most that one call moves by, as a logarithm: of what is further off only this much counts.
const MOST_STEP: f64 = 0.25;
/// A call that is further off, as a logarithm, is not believed before another says the same.
const FAR: f64 = 0.47;
/// No factor is beyond this, as a logarithm: a factor of 6.
const MOST: f64 = 1.8;
/// Beyond this, as a logarithm, what was measured is of another machine, or of a busy one: a factor of 1.5.
const STALE: f64 = 0.405;
/// Share of calls that the margin is to cover.
const IN_TIME: f64 = 0.8;
/// What a call moves the margin by.
const STEP: f64 = 0.01;
/// Margins, as logarithms: the least, the one to begin with, the most.
const MARGIN: (f64, f64, f64) = (0.02, 0.05, 0.25);

/// A level, and a class of lengths.
type Kind = (u32, u8);

/// What calls took beside what the measured curves say, of one kind of time. All numbers are natural logarithms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Of all calls.
    common: f64,
    /// Of a kind of call beside that.
    own: Vec<(Kind, f64)>,
    /// What the last call said, where it was too far off to be believed alone; else 0.
    doubted: f64,
    /// Four of five calls are late by less than this.
    late: f64,
}

impl Default for Drift {
    fn default() -> Self {
        Self { common: 0.0, own: Vec::new(), doubted: 0.0, late: MARGIN.1 }
    }
}

impl Drift {
    /// What the curves are multiplied by for a kind of call.
    pub fn factor(&self, kind: Kind) -> f64 {
        let own = self.own.iter().find(|(of, _)| *of == kind).map_or(0.0, |(_, own)| *own);
        (self.common + own).clamp(-MOST, MOST).exp()
    }

    /// The part of it that all calls share.
    pub fn common(&self) -> f64 {
        self.common.exp()
    }

    /// Share of a target that is to be left free.
    pub fn margin(&self) -> f64 {
        1.0 - (-self.late).exp()
    }

    /// Whether the curves should be measured anew.
    pub fn is_stale(&self) -> bool {
        self.common.abs() > STALE
    }

    /// Whether all numbers can be used.
    pub fn is_sound(&self) -> bool {
        let good = |v: &f64| v.is_finite() && v.abs() <= 2.0 * MOST;
        [self.common, self.doubted, self.late].iter().chain(self.own.iter().map(|(_, own)| own)).all(good)
    }

    /// A call took so long, where the curves said so much.
    pub fn observe(&mut self, kind: Kind, taken: f64, said: f64) {
        let off = (taken / (said * self.factor(kind))).ln();
        if !off.is_finite() {
            return;
        }
        let late = if off > self.late { STEP * IN_TIME } else { -STEP * (1.0 - IN_TIME) };
        self.late = (self.late + late).clamp(MARGIN.0, MARGIN.2);
        // One call that is far off had something in its way that the next will not have. Two are the machine.
        let believed = if off.abs() <= FAR {
            off
        } else if self.doubted * off > 0.0 {
            self.doubted.abs().min(off.abs()).copysign(off)
        } else {
            self.doubted = off.clamp(-MOST, MOST);
            return;
        };
        let again = std::mem::take(&mut self.doubted) != 0.0 && off.abs() > FAR;
        let step = if again { believed } else { believed.clamp(-MOST_STEP, MOST_STEP) };
        self.common = (self.common + FRESH * step).clamp(-MOST, MOST);
        let at = self.own.iter().position(|(of, _)| *of == kind).unwrap_or_else(|| {
            self.own.push((kind, 0.0));
            self.own.len() - 1
        });
        let own = &mut self.own[at].1;
        *own = (*own + FRESH_OWN * step).clamp(-MOST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(calls: impl IntoIterator<Item = (u32, f64)>) -> Drift {
        let mut drift = Drift::default();
        calls.into_iter().for_each(|(level, taken)| drift.observe((level, 0), taken, 100.0));
        drift
    }

    #[test]
    fn a_slower_machine_is_slower_at_every_level() {
        let drift = after((0..20).map(|_| (60, 130.0)));
        assert!((drift.factor((60, 0)) - 1.3).abs() < 0.02, "{drift:?}");
        assert!(drift.factor((100, 0)) > 1.15, "a level that was not called: {drift:?}");
        assert!(!drift.is_stale() && after((0..30).map(|_| (60, 200.0))).is_stale());
    }

    #[test]
    fn a_level_of_its_own_kind_is_told_apart() {
        let drift = after((0..400).map(|i| if i % 2 == 0 { (20, 120.0) } else { (100, 90.0) }));
        assert!((drift.factor((20, 0)) - 1.2).abs() < 0.07 && (drift.factor((100, 0)) - 0.9).abs() < 0.07, "{drift:?}");
    }

    #[test]
    fn one_call_far_off_changes_nothing_and_two_do() {
        let drift = after([(60, 600.0), (60, 100.0), (60, 20.0), (60, 100.0)]);
        assert_eq!((drift.factor((60, 0)), drift.common()), (1.0, 1.0), "{drift:?}");
        let drift = after([(60, 300.0), (40, 300.0)]);
        assert!(drift.factor((60, 0)) > 1.2, "{drift:?}");
        let drift = after([(60, 300.0), (40, 20.0)]);
        assert_eq!(drift.common(), 1.0, "one up, one down: {drift:?}");
    }

    #[test]
    fn the_margin_grows_with_what_calls_are_late_by() {
        let steady = after((0..300).map(|i| (100, 100.0 + f64::from(i % 3))));
        let spread = after((0..300).map(|i| (100, [80.0, 125.0, 100.0, 120.0, 90.0][i % 5])));
        assert!(steady.margin() < 0.04 && spread.margin() > 0.1, "{} {}", steady.margin(), spread.margin());
        assert!((Drift::default().margin() - 0.05).abs() < 0.01);
    }

    #[test]
    fn nonsense_is_not_heard() {
        let mut drift = Drift::default();
        for (taken, said) in [(f64::NAN, 1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (f64::INFINITY, 1.0)] {
            drift.observe((60, 0), taken, said);
        }
        assert_eq!(drift, Drift::default());
        for i in 0..100 {
            drift.observe((60, 0), 1e12, f64::from(i % 2) + 1.0);
        }
        assert!(drift.is_sound() && drift.factor((60, 0)) <= 6.1);
    }
}
