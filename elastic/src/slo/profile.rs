//! What the device takes, by level: measured at a few lengths, interpolated between them, and corrected by what calls took.

use serde::{Deserialize, Serialize};

/// Weight of a new observation in a level's correction.
const FRESH: f64 = 0.2;
/// A correction beyond this is a disturbance, not the device.
const MOST: f64 = 4.0;

/// Milliseconds by length: points that were measured, by rising length.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Curve(pub Vec<(f64, f64)>);

impl Curve {
    /// Milliseconds for a length: between two points on the line through them, beyond the last on the line through the last
    /// two, before the first as the first.
    pub fn at(&self, length: f64) -> f64 {
        let points = &self.0;
        match points.len() {
            0 => 0.0,
            1 => points[0].1,
            n => {
                let right = points.iter().position(|(x, _)| *x >= length).unwrap_or(n - 1).max(1);
                let ((x0, y0), (x1, y1)) = (points[right - 1], points[right]);
                let slope = if x1 > x0 { (y1 - y0) / (x1 - x0) } else { 0.0 };
                (y0 + slope.max(0.0) * (length.max(points[0].0) - x0)).max(0.0)
            }
        }
    }

    /// Whether all numbers are finite and not below 0, and lengths rise.
    pub fn is_sound(&self) -> bool {
        let good = |v: &f64| v.is_finite() && *v >= 0.0;
        self.0.iter().all(|(x, y)| good(x) && good(y)) && self.0.windows(2).all(|two| two[0].0 < two[1].0)
    }
}

/// What a level takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelCost {
    /// The level.
    pub level: u32,
    /// Milliseconds from a call to its first token, by tokens of prompt.
    pub ttft: Curve,
    /// Milliseconds a further token, by tokens of context.
    pub tpot: Curve,
    /// What calls took, as a share of what the curves say: TTFT, TPOT.
    #[serde(default = "unity")]
    pub correction: (f64, f64),
}

fn unity() -> (f64, f64) {
    (1.0, 1.0)
}

/// A measurement of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profiled {
    /// Tokens that were run before the first one came.
    pub prompt: usize,
    /// Tokens of the context then.
    pub context: usize,
    /// Milliseconds to the first token, without what came before prefill.
    pub ttft_ms: f64,
    /// Milliseconds for each after it, if there were any.
    pub tpot_ms: Option<f64>,
}

/// What a device takes for one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// By rising level.
    pub levels: Vec<LevelCost>,
    /// Rows that kernels take together: a prompt costs as much as one that fills the last of them. 0 and 1: one by one.
    #[serde(default)]
    pub rows_together: usize,
    /// Milliseconds that the prompt's encoder takes, by words of prompt; empty without one.
    #[serde(default)]
    pub encoder: Curve,
}

impl Profile {
    /// Whether it can be used: levels rise, the last is 100, numbers are sound.
    pub fn is_sound(&self) -> bool {
        let costs = self.levels.iter().all(|cost| {
            let (a, b) = cost.correction;
            cost.ttft.is_sound()
                && cost.tpot.is_sound()
                && !cost.ttft.0.is_empty()
                && !cost.tpot.0.is_empty()
                && [a, b].iter().all(|c| (1.0 / MOST..=MOST).contains(c))
        });
        let rise = self.levels.windows(2).all(|two| two[0].level < two[1].level);
        costs && rise && self.levels.last().is_some_and(|cost| cost.level == 100) && self.encoder.is_sound()
    }

    /// The cost of a level, or of the next lower one that was measured.
    pub fn level(&self, level: u32) -> Option<&LevelCost> {
        self.levels.iter().rev().find(|cost| cost.level <= level).or(self.levels.first())
    }

    /// Milliseconds to the first token of a prompt of so many tokens behind a context of so many.
    pub fn ttft_ms(&self, level: u32, prompt: usize, before: usize) -> f64 {
        let Some(cost) = self.level(level) else { return 0.0 };
        // A token behind a context costs what its attention costs more than at the beginning.
        let behind = cost.tpot.at((before + prompt / 2) as f64) - cost.tpot.at(prompt as f64 / 2.0);
        // All tokens but the last are run together.
        let rows = prompt.saturating_sub(1).next_multiple_of(self.rows_together.max(1));
        (cost.ttft.at((rows + 1) as f64) + behind.max(0.0)) * cost.correction.0
    }

    /// Milliseconds for a token behind so many.
    pub fn tpot_ms(&self, level: u32, context: usize) -> f64 {
        self.level(level).map_or(0.0, |cost| cost.tpot.at(context as f64) * cost.correction.1)
    }

    /// A call took so long at a level.
    pub fn observe(&mut self, level: u32, call: Profiled) {
        let (ttft, tpot) = (
            self.ttft_ms(level, call.prompt, call.context - call.prompt.min(call.context)),
            self.tpot_ms(level, call.context),
        );
        let Some(cost) = self.levels.iter_mut().rev().find(|cost| cost.level <= level) else { return };
        let corrected = |old: f64, taken: f64, said: f64| {
            let ratio = taken / said;
            if !ratio.is_finite() || ratio <= 0.0 {
                return old;
            }
            (old * (1.0 + FRESH * (ratio - 1.0))).clamp(1.0 / MOST, MOST)
        };
        cost.correction.0 = corrected(cost.correction.0, call.ttft_ms, ttft);
        if let Some(taken) = call.tpot_ms {
            cost.correction.1 = corrected(cost.correction.1, taken, tpot);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 1 ms a token of prompt and 10 ms a token of answer for the whole model, less for less of it.
    pub fn profile() -> Profile {
        let cost = |level: u32| {
            let share = 0.2 + 0.8 * f64::from(level) / 100.0;
            LevelCost {
                level,
                ttft: Curve(vec![(10.0, 10.0 * share), (100.0, 100.0 * share), (1000.0, 1000.0 * share)]),
                tpot: Curve(vec![(0.0, 10.0 * share), (1000.0, 20.0 * share)]),
                correction: (1.0, 1.0),
            }
        };
        Profile {
            levels: [20, 40, 60, 80, 100].map(cost).to_vec(),
            rows_together: 1,
            encoder: Curve(vec![(0.0, 0.0), (1000.0, 20.0)]),
        }
    }

    #[test]
    fn curves_go_through_their_points_and_beyond() {
        let curve = Curve(vec![(10.0, 5.0), (20.0, 10.0), (40.0, 40.0)]);
        let said: Vec<f64> = [0.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0].iter().map(|x| curve.at(*x)).collect();
        assert_eq!(said, [5.0, 5.0, 7.5, 10.0, 25.0, 40.0, 70.0]);
        assert_eq!(Curve(vec![(1.0, 3.0)]).at(100.0), 3.0);
        assert!(!Curve(vec![(2.0, 1.0), (1.0, 1.0)]).is_sound() && !Curve(vec![(1.0, f64::NAN)]).is_sound());
    }

    #[test]
    fn what_calls_take_moves_what_is_said() {
        let mut profile = profile();
        assert!(profile.is_sound());
        let before = (profile.ttft_ms(60, 100, 0), profile.tpot_ms(60, 100));
        for _ in 0..40 {
            let call = Profiled { prompt: 100, context: 100, ttft_ms: before.0 * 1.5, tpot_ms: Some(before.1 * 0.8) };
            profile.observe(60, call);
        }
        assert!((profile.ttft_ms(60, 100, 0) / before.0 - 1.5).abs() < 0.01);
        assert!((profile.tpot_ms(60, 100) / before.1 - 0.8).abs() < 0.01);
        assert_eq!(profile.ttft_ms(80, 100, 0), self::profile().ttft_ms(80, 100, 0));
        let nonsense = Profiled { prompt: 100, context: 100, ttft_ms: 1e12, tpot_ms: Some(f64::NAN) };
        profile.observe(60, nonsense);
        assert!(profile.is_sound());
    }

    #[test]
    fn kernels_that_take_rows_together_make_steps() {
        let profile = Profile { rows_together: 8, ..profile() };
        assert_eq!(profile.ttft_ms(100, 18, 0), profile.ttft_ms(100, 25, 0));
        assert!(profile.ttft_ms(100, 26, 0) > profile.ttft_ms(100, 25, 0));
    }

    #[test]
    fn a_prompt_behind_a_context_takes_longer() {
        let profile = profile();
        assert!(profile.ttft_ms(100, 100, 900) > profile.ttft_ms(100, 100, 0));
        assert_eq!(profile.level(70).map(|cost| cost.level), Some(60));
        assert_eq!(profile.level(5).map(|cost| cost.level), Some(20));
    }
}
