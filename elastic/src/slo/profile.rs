//! What the device takes, by level: measured at a few lengths, interpolated between them, and corrected by what calls took.

use serde::{Deserialize, Serialize};

use super::drift::{Drift, Kind};

/// Tokens of prompt up to which calls are of a class of lengths.
const LENGTHS: [usize; 5] = [16, 32, 64, 128, 512];

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
    /// Milliseconds of a piece of prefill at the beginning of a context and the token sampled after it, by its rows.
    pub piece: Curve,
    /// Milliseconds that a row of a piece takes longer for each token that the context had before the piece.
    pub behind: f64,
    /// Milliseconds a token that is run alone, by tokens of context.
    pub tpot: Curve,
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
    /// Milliseconds for each after it, and how many there were; `None` where there was none.
    pub tpot: Option<(f64, usize)>,
}

/// What a device takes for one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// By rising level.
    pub levels: Vec<LevelCost>,
    /// Rows that kernels take together: a prompt costs as much as one that fills the last of them. 0 and 1: one by one.
    pub rows_together: usize,
    /// Most rows that a piece of prefill has; 0: any number.
    pub piece_rows: usize,
    /// Milliseconds that the prompt's encoder takes, by words of prompt; empty without one.
    #[serde(default)]
    pub encoder: Curve,
    /// Measurements that were to agree did not: other programs ran beside.
    #[serde(default)]
    pub disturbed: bool,
    /// What calls took to their first token.
    #[serde(default)]
    pub ttft: Drift,
    /// What they took for each token after it.
    #[serde(default)]
    pub tpot: Drift,
}

impl Profile {
    /// From what levels were measured to take, all at the same lengths: a level that keeps more takes no less. `None` where nothing
    /// was measured.
    pub fn of(mut measured: Vec<LevelCost>) -> Option<Self> {
        measured.sort_by_key(|cost| cost.level);
        let lengths = measured.first().map(|cost| (cost.piece.0.len(), cost.tpot.0.len()))?;
        for i in 0..lengths.0 {
            rising(&mut measured, |cost| &mut cost.piece.0[i].1);
        }
        for i in 0..lengths.1 {
            rising(&mut measured, |cost| &mut cost.tpot.0[i].1);
        }
        rising(&mut measured, |cost| &mut cost.behind);
        Some(Self { levels: measured, ..Self::default() })
    }

    /// Whether it can be used: levels rise, the last is 100, numbers are sound.
    pub fn is_sound(&self) -> bool {
        let costs = self.levels.iter().all(|cost| {
            let filled = !cost.piece.0.is_empty() && !cost.tpot.0.is_empty();
            filled && cost.piece.is_sound() && cost.tpot.is_sound() && cost.behind.is_finite() && cost.behind >= 0.0
        });
        let rise = self.levels.windows(2).all(|two| two[0].level < two[1].level);
        let last = self.levels.last().is_some_and(|cost| cost.level == 100);
        costs && rise && last && self.encoder.is_sound() && self.ttft.is_sound() && self.tpot.is_sound()
    }

    /// Whether it should be measured anew when there is time: calls are far from it, or it was measured beside other work.
    pub fn is_stale(&self) -> bool {
        self.disturbed || self.ttft.is_stale() || self.tpot.is_stale()
    }

    /// The cost of a level, or of the next lower one that was measured.
    pub fn level(&self, level: u32) -> Option<&LevelCost> {
        self.levels.iter().rev().find(|cost| cost.level <= level).or(self.levels.first())
    }

    /// Milliseconds to the first token of a prompt of so many tokens behind a context of so many.
    pub fn ttft_ms(&self, level: u32, prompt: usize, before: usize) -> f64 {
        self.measured_ttft(level, prompt, before) * self.ttft.factor(&self.kinds(level, prompt))
    }

    /// Milliseconds for a token behind so many.
    pub fn tpot_ms(&self, level: u32, context: usize) -> f64 {
        self.measured_tpot(level, context) * self.tpot.factor(&[self.of_level(level)])
    }

    /// Milliseconds of the encoder for a prompt of so many words.
    pub fn encoder_ms(&self, words: usize) -> f64 {
        // A busy machine is busy for the encoder too.
        self.encoder.at(words as f64) * self.ttft.common()
    }

    /// Calls of a level have a factor of their own, and so have those of a class of lengths, for curves may be off at one end.
    fn kinds(&self, level: u32, prompt: usize) -> [Kind; 2] {
        let class = LENGTHS.iter().filter(|length| prompt > **length).count() as u8;
        [self.of_level(level), Kind::Length(class)]
    }

    fn of_level(&self, level: u32) -> Kind {
        Kind::Level(self.level(level).map_or(level, |cost| cost.level))
    }

    fn measured_ttft(&self, level: u32, prompt: usize, before: usize) -> f64 {
        let Some(cost) = self.level(level) else { return 0.0 };
        // What was measured of a piece has a sampled token; only the last piece of a prompt has one, which is little beside a full piece.
        let (mut left, mut at, mut sum) = (prompt.max(1), before, 0.0);
        let most = if self.piece_rows == 0 { left.max(1) } else { self.piece_rows };
        while left > 0 {
            let rows = left.min(most);
            sum += match rows {
                1 => cost.tpot.at((at + 1) as f64),
                _ => {
                    let piece = |rows: usize| cost.piece.at(rows.next_multiple_of(self.rows_together.max(1)) as f64);
                    // A last token that would be alone in what kernels take together is run on its own where that is faster.
                    let apart = piece(rows - 1) + cost.tpot.at((at + rows) as f64);
                    piece(rows).min(apart) + cost.behind * rows as f64 * at as f64
                }
            };
            (left, at) = (left - rows, at + rows);
        }
        sum
    }

    fn measured_tpot(&self, level: u32, context: usize) -> f64 {
        self.level(level).map_or(0.0, |cost| cost.tpot.at(context as f64))
    }

    /// A call took so long at a level.
    pub fn observe(&mut self, level: u32, call: Profiled) {
        let before = call.context - call.prompt.min(call.context);
        let said = self.measured_ttft(level, call.prompt, before);
        self.ttft.observe(&self.kinds(level, call.prompt), call.ttft_ms, said);
        if let Some((taken, tokens)) = call.tpot {
            let said = self.measured_tpot(level, call.context + tokens / 2);
            self.tpot.observe(&[self.of_level(level)], taken, said);
        }
    }
}

/// The middle number, the mean of two where there are two; 0 of none.
pub(super) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    match of.len() {
        0 => 0.0,
        n => 0.5 * (of[n / 2] + of[(n - 1) / 2]),
    }
}

/// Make a number rise with the level: neighbours that fall take their mean (pool adjacent violators).
fn rising(costs: &mut [LevelCost], of: impl Fn(&mut LevelCost) -> &mut f64) {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for cost in costs.iter_mut() {
        pools.push((*of(cost), 1));
        while let [.., (a, n), (b, m)] = pools[..]
            && a > b
        {
            pools.truncate(pools.len() - 2);
            pools.push(((a * n as f64 + b * m as f64) / (n + m) as f64, n + m));
        }
    }
    let values = pools.into_iter().flat_map(|(value, count)| std::iter::repeat_n(value, count));
    costs.iter_mut().zip(values).for_each(|(cost, value)| *of(cost) = value);
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
                piece: Curve(vec![(8.0, 8.0 * share), (100.0, 100.0 * share), (1000.0, 1000.0 * share)]),
                behind: 0.001 * share,
                tpot: Curve(vec![(0.0, 10.0 * share), (1000.0, 20.0 * share)]),
            }
        };
        Profile {
            levels: [20, 40, 60, 80, 100].map(cost).to_vec(),
            rows_together: 1,
            encoder: Curve(vec![(0.0, 0.0), (1000.0, 20.0)]),
            ..Profile::default()
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
        assert!(profile.is_sound() && !profile.is_stale());
        let before = (profile.ttft_ms(60, 100, 0), profile.tpot_ms(60, 100));
        let other = profile.ttft_ms(80, 100, 0);
        for _ in 0..60 {
            let tpot = Some((before.1 * 0.9, 0));
            let call = Profiled { prompt: 100, context: 100, ttft_ms: before.0 * 1.4, tpot };
            profile.observe(60, call);
        }
        assert!((profile.ttft_ms(60, 100, 0) / before.0 - 1.4).abs() < 0.02);
        assert!((profile.tpot_ms(60, 100) / before.1 - 0.9).abs() < 0.02);
        assert!(profile.ttft_ms(80, 100, 0) > 1.2 * other, "the machine is slow for other levels too");
        assert!(profile.encoder_ms(100) > 1.2 * 2.0, "and for the encoder");
        let nonsense = Profiled { prompt: 100, context: 100, ttft_ms: 1e12, tpot: Some((f64::NAN, 3)) };
        profile.observe(60, nonsense);
        assert!(profile.is_sound());
        let slow = Profiled { prompt: 100, context: 100, ttft_ms: 10.0 * before.0, tpot: None };
        (0..20).for_each(|_| profile.observe(60, slow));
        assert!(profile.is_stale() && profile.is_sound());
    }

    #[test]
    fn kernels_that_take_rows_together_make_steps() {
        let profile = Profile { rows_together: 8, ..profile() };
        let taken = |prompt| profile.ttft_ms(100, prompt, 0);
        assert_eq!(taken(17), taken(24));
        assert!(taken(25) > taken(24));
    }

    #[test]
    fn a_prompt_in_pieces_costs_each_of_them() {
        let whole = profile();
        let pieces = Profile { piece_rows: 32, ..profile() };
        // Two pieces, the second behind the first.
        let expected = 2.0 * whole.levels[4].piece.at(32.0) + 0.001 * 32.0 * 32.0 + whole.levels[4].tpot.at(65.0);
        assert!((pieces.ttft_ms(100, 65, 0) - expected).abs() < 1e-9);
        assert_eq!(pieces.ttft_ms(100, 20, 7), whole.ttft_ms(100, 20, 7));
        assert_eq!(whole.ttft_ms(100, 1, 0), whole.levels[4].tpot.at(1.0), "a token alone");
    }

    #[test]
    fn a_prompt_behind_a_context_takes_longer() {
        let profile = profile();
        let added = profile.ttft_ms(100, 100, 900) - profile.ttft_ms(100, 100, 0);
        assert!((added - 0.001 * 100.0 * 900.0).abs() < 1e-9, "{added}");
        assert_eq!(profile.level(70).map(|cost| cost.level), Some(60));
        assert_eq!(profile.level(5).map(|cost| cost.level), Some(20));
    }

    #[test]
    fn a_profile_of_what_was_measured_never_falls() {
        let cost = |level, ms: f64| LevelCost {
            level,
            piece: Curve(vec![(8.0, ms), (64.0, 8.0 * ms)]),
            behind: 0.001 * ms,
            tpot: Curve(vec![(16.0, ms)]),
        };
        // The one in the middle was disturbed.
        let profile = Profile::of(vec![cost(100, 30.0), cost(20, 10.0), cost(60, 40.0)]).unwrap();
        assert!(profile.is_sound());
        let ms: Vec<(u32, f64)> = profile.levels.iter().map(|cost| (cost.level, cost.tpot.at(16.0))).collect();
        assert_eq!(ms, [(20, 10.0), (60, 35.0), (100, 35.0)]);
        assert!(Profile::of(Vec::new()).is_none());
    }
}
