//! How far calls are from what was measured: a factor that all calls share, for the machine is busy or free for all of them
//! alike, and beside it one of each kind that a call is of: its level at whatever length, its class of lengths at whatever
//! level. A curve that is off at one length is off there at every level, so calls of all levels correct it.
//!
//! On a machine that others use, most calls take what they took before and some take up to half as long again. So all factors
//! follow the middle of what calls say, not their mean.

use serde::{Deserialize, Serialize};

use super::profile::median;

/// Calls whose middle is the factor that all levels share.
const RECENT: usize = 15;
/// Share of what it is off by that a kind's own factor moves: half at its first call, less with each, this at least.
const OWN: (f64, f64) = (0.5, 0.03);
/// Most that one call counts for in it, as a logarithm.
const MOST_OWN: f64 = 0.1;
/// No factor is beyond this, as a logarithm: a factor of 6.
const MOST: f64 = 1.8;
/// Beyond this, as a logarithm, what was measured is of another machine, or of a busy one: a factor of 1.5.
const STALE: f64 = 0.405;
/// Share of calls that the margin is to cover.
const IN_TIME: f64 = 0.9;
/// What a call moves the margin by.
const STEP: f64 = 0.01;
/// Margins, as logarithms: the least, the one to begin with, the most.
const MARGIN: (f64, f64, f64) = (0.02, 0.05, 0.25);

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Those of a level.
    Level(u32),
    /// Those whose prompts are of a class of lengths.
    Length(u8),
}

/// A factor of a kind of call, as a logarithm, and the calls that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Own {
    kind: Kind,
    off: f64,
    calls: u32,
}

/// What calls took beside what the measured curves say, of one kind of time. All numbers are natural logarithms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What the last calls said, the newest last, without what their kind is off by. It begins with what was measured.
    recent: Vec<f64>,
    /// Of kinds of calls beside that.
    own: Vec<Own>,
    /// Nine of ten calls are late by less than this.
    late: f64,
}

impl Default for Drift {
    fn default() -> Self {
        Self { recent: vec![0.0], own: Vec::new(), late: MARGIN.1 }
    }
}

impl Drift {
    /// What the curves are multiplied by for a call that is of these kinds.
    pub fn factor(&self, kinds: &[Kind]) -> f64 {
        (self.middle() + self.own(kinds)).clamp(-MOST, MOST).exp()
    }

    /// The part of it that all calls share.
    pub fn common(&self) -> f64 {
        self.middle().exp()
    }

    /// Share of a target that is to be left free.
    pub fn margin(&self) -> f64 {
        1.0 - (-self.late).exp()
    }

    /// Whether the curves should be measured anew.
    pub fn is_stale(&self) -> bool {
        self.middle().abs() > STALE
    }

    /// Whether all numbers can be used.
    pub fn is_sound(&self) -> bool {
        let good = |v: &f64| v.is_finite() && v.abs() <= 2.0 * MOST;
        let own = self.own.iter().map(|own| &own.off);
        !self.recent.is_empty() && [&self.late].into_iter().chain(&self.recent).chain(own).all(good)
    }

    /// A call that is of these kinds took so long, where the curves said so much.
    pub fn observe(&mut self, kinds: &[Kind], taken: f64, said: f64) {
        let of_curve = (taken / said).ln();
        if !of_curve.is_finite() {
            return;
        }
        let own = self.own(kinds);
        let off = of_curve - self.middle() - own;
        let late = if off > self.late { STEP * IN_TIME } else { -STEP * (1.0 - IN_TIME) };
        self.late = (self.late + late).clamp(MARGIN.0, MARGIN.2);
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        self.recent.push((of_curve - own).clamp(-MOST, MOST));
        for kind in kinds {
            let at = self.own.iter().position(|own| own.kind == *kind).unwrap_or_else(|| {
                self.own.push(Own { kind: *kind, off: 0.0, calls: 0 });
                self.own.len() - 1
            });
            let own = &mut self.own[at];
            own.calls = own.calls.saturating_add(1);
            let share = (OWN.0 / f64::from(own.calls)).max(OWN.1);
            own.off = (own.off + share * off.clamp(-MOST_OWN, MOST_OWN)).clamp(-MOST, MOST);
        }
    }

    fn own(&self, kinds: &[Kind]) -> f64 {
        self.own.iter().filter(|own| kinds.contains(&own.kind)).map(|own| own.off).sum()
    }

    /// The middle of the last calls.
    fn middle(&self) -> f64 {
        median(self.recent.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(calls: impl IntoIterator<Item = (u32, f64)>) -> Drift {
        let mut drift = Drift::default();
        calls.into_iter().for_each(|(level, taken)| drift.observe(&[Kind::Level(level)], taken, 100.0));
        drift
    }

    #[test]
    fn a_slower_machine_is_slower_at_every_level() {
        let drift = after((0..20).map(|_| (60, 130.0)));
        assert!((drift.factor(&[Kind::Level(60)]) - 1.3).abs() < 0.02, "{drift:?}");
        assert!(drift.factor(&[Kind::Level(100)]) > 1.15, "a level that was not called: {drift:?}");
        assert!(!drift.is_stale() && after((0..30).map(|_| (60, 200.0))).is_stale());
    }

    #[test]
    fn a_level_of_its_own_kind_is_told_apart() {
        let drift = after((0..400).map(|i| if i % 2 == 0 { (20, 120.0) } else { (100, 90.0) }));
        assert!(
            (drift.factor(&[Kind::Level(20)]) - 1.2).abs() < 0.07
                && (drift.factor(&[Kind::Level(100)]) - 0.9).abs() < 0.07,
            "{drift:?}"
        );
    }

    #[test]
    fn a_length_that_was_measured_badly_is_corrected_at_every_level() {
        let mut drift = Drift::default();
        for i in 0..200 {
            let (level, length) = ([20, 40, 60, 100][i % 4], [0, 0, 0, 1, 1][i % 5]);
            let taken = if length == 1 { 85.0 } else { 105.0 };
            drift.observe(&[Kind::Level(level), Kind::Length(length)], taken, 100.0);
        }
        // A level that no call had had.
        let said = |length| drift.factor(&[Kind::Level(80), Kind::Length(length)]);
        assert!((said(0) - 1.05).abs() < 0.03 && (said(1) - 0.85).abs() < 0.03, "{} {}", said(0), said(1));
    }

    #[test]
    fn some_calls_far_off_change_little_and_most_do() {
        let some = after((0..30).map(|i| (60, if i % 3 == 0 { 180.0 } else { 100.0 })));
        assert!((some.factor(&[Kind::Level(60)]) - 1.0).abs() < 0.05, "{some:?}");
        let most = after((0..30).map(|i| (60, if i % 3 == 0 { 100.0 } else { 180.0 })));
        assert!((most.factor(&[Kind::Level(60)]) - 1.8).abs() < 0.1, "{most:?}");
        let new = after((0..40).map(|i| (60, if i < 30 { 100.0 } else { 180.0 })));
        assert!(new.factor(&[Kind::Level(60)]) > 1.6, "ten calls of a machine that became slower: {new:?}");
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
            drift.observe(&[Kind::Level(60)], taken, said);
        }
        assert_eq!(drift, Drift::default());
        for i in 0..100 {
            drift.observe(&[Kind::Level(60)], 1e12, f64::from(i % 2) + 1.0);
        }
        assert!(drift.is_sound() && drift.factor(&[Kind::Level(60)]) <= 6.1);
    }
}
