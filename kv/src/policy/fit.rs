//! A line through measured times: T(x) = fixed + x · each.

use std::collections::VecDeque;

/// Samples that are remembered.
const KEPT: usize = 64;
/// Samples whose common error shows that the device has changed.
const RECENT: usize = 8;
/// Mean relative error of those from which on it has.
const DRIFT: f64 = 0.3;

/// Least squares over the last measurements. Neither part is ever negative, and where the last measurements all disagree
/// with the line the older ones are forgotten: a device that got hot, or a disk that got busy, is another device.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LineFit {
    samples: VecDeque<(f64, f64)>,
    fixed_s: f64,
    each_s: f64,
    refreshed: u64,
}

impl LineFit {
    /// A line to start from, before anything was measured.
    pub fn new(fixed_s: f64, each_s: f64) -> Self {
        Self { samples: VecDeque::new(), fixed_s: fixed_s.max(0.0), each_s: each_s.max(0.0), refreshed: 0 }
    }

    /// Seconds that `x` takes; nothing takes no time.
    pub fn predict(&self, x: f64) -> f64 {
        if x <= 0.0 { 0.0 } else { self.fixed_s + self.each_s * x }
    }

    /// Seconds that are spent whatever the amount.
    pub fn fixed_s(&self) -> f64 {
        self.fixed_s
    }

    /// Seconds of one more.
    pub fn each_s(&self) -> f64 {
        self.each_s
    }

    /// How often old measurements were forgotten.
    pub fn refreshed(&self) -> u64 {
        self.refreshed
    }

    /// Learn that `x` took so many seconds. Values that no clock gives are ignored.
    pub fn observe(&mut self, x: f64, seconds: f64) {
        if !(x > 0.0 && x.is_finite() && seconds >= 0.0 && seconds.is_finite()) {
            return;
        }
        self.samples.push_back((x, seconds));
        if self.samples.len() > KEPT {
            self.samples.pop_front();
        }
        if self.samples.len() > RECENT && self.recent_error() > DRIFT {
            // Half of them made the other half's error large; those are from before.
            self.samples.drain(..self.samples.len() - RECENT / 2);
            self.refreshed += 1;
        }
        self.fit();
    }

    /// How far the line is off in the last measurements, in one direction: noise cancels out, drift does not.
    fn recent_error(&self) -> f64 {
        let recent = self.samples.iter().rev().take(RECENT);
        let (measured, predicted) = recent.fold((0.0, 0.0), |(m, p), (x, seconds)| (m + seconds, p + self.predict(*x)));
        if measured > 0.0 { ((predicted - measured) / measured).abs() } else { 0.0 }
    }

    fn fit(&mut self) {
        let n = self.samples.len() as f64;
        let (sx, sy) = self.samples.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
        let (mx, my) = (sx / n, sy / n);
        let (sxx, sxy) =
            self.samples.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + (x - mx) * (x - mx), b + (x - mx) * (y - my)));
        // Amounts that are all alike say nothing about the fixed part: keep it, as far as the times allow.
        if sxx <= 1e-9 * n * mx * mx {
            self.fixed_s = self.fixed_s.min(my);
            self.each_s = (my - self.fixed_s) / mx;
            return;
        }
        self.each_s = (sxy / sxx).max(0.0);
        self.fixed_s = my - self.each_s * mx;
        if self.fixed_s < 0.0 {
            // The best line through the origin.
            let (xx, xy) = self.samples.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x * x, b + x * y));
            (self.fixed_s, self.each_s) = (0.0, xy / xx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    #[test]
    fn a_noisy_line_is_found_and_followed_when_it_moves() {
        let mut random = SplitMix::new(3);
        let mut fit = LineFit::new(0.0, 1.0);
        for _ in 0..40 {
            let x = 1.0 + random.below(100) as f64;
            fit.observe(x, (0.5 + 0.01 * x) * (1.0 + 0.05 * random.normal()));
        }
        assert!((fit.predict(50.0) - 1.0).abs() < 0.05, "{fit:?}");
        let before = fit.refreshed();
        for _ in 0..12 {
            let x = 1.0 + random.below(100) as f64;
            fit.observe(x, 3.0 * (0.5 + 0.01 * x));
        }
        assert!(fit.refreshed() > before, "the change was noticed");
        assert!((fit.predict(50.0) - 3.0).abs() < 0.2, "{fit:?}");
    }

    #[test]
    fn odd_samples_do_no_harm() {
        let mut fit = LineFit::new(0.1, 0.2);
        for (x, seconds) in [(0.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY), (1.0, -1.0)] {
            fit.observe(x, seconds);
        }
        assert_eq!(fit, LineFit::new(0.1, 0.2));
        fit.observe(10.0, 1.1);
        assert!((fit.predict(10.0) - 1.1).abs() < 1e-9 && fit.fixed_s() == 0.1, "one sample keeps the fixed part");
        // A falling line cannot be: more work never takes less time.
        fit.observe(20.0, 0.1);
        assert!(fit.each_s() >= 0.0 && fit.fixed_s() >= 0.0 && fit.predict(0.0) == 0.0);
    }
}
