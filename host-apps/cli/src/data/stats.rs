//! What can be said from a sample.

/// A two-sided 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval for a share of `successes` out of `trials`: it stays inside 0..1 and holds for small samples
/// (E. B. Wilson, 1927). Nothing is known from no trials: 0..1.
pub fn wilson(successes: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, p) = (trials as f64, successes.min(trials) as f64 / trials as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    // At the ends the interval touches 0 or 1 exactly; rounding must not push it past, or short of, them.
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes >= trials { 1.0 } else { (centre + half).min(1.0) };
    Interval { low, high }
}

/// A mean and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Mean {
    pub mean: f64,
    /// Standard error of the mean; none from fewer than two values.
    pub standard_error: Option<f64>,
    pub count: usize,
}

/// The mean of the values, with its standard error from the sample variance. None of no values.
pub fn mean(values: &[f64]) -> Option<Mean> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let standard_error = (count > 1).then(|| (squares / (count - 1) as f64 / count as f64).sqrt());
    Some(Mean { mean, standard_error, count })
}

/// The middle value, or the mean of the two middle ones. None of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    #[test]
    fn wilson_agrees_with_tables() {
        // By hand: 46 of 100 gives 0.3656..0.5574; 0 of 10 gives 0..0.2775 = z²/(n + z²).
        let interval = wilson(46, 100);
        assert!(near(interval.low, 0.3656) && near(interval.high, 0.5574), "{interval:?}");
        let none = wilson(0, 10);
        assert!(none.low == 0.0 && near(none.high, Z * Z / (10.0 + Z * Z)), "{none:?}");
        let all = wilson(10, 10);
        assert!(all.high == 1.0 && near(all.low, 1.0 - none.high), "{all:?}");
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn wilson_holds_the_share_and_narrows() {
        for trials in [1u64, 2, 7, 100, 10_000] {
            for successes in 0..=trials.min(100) {
                let Interval { low, high } = wilson(successes, trials);
                let share = successes as f64 / trials as f64;
                assert!((0.0..=share).contains(&low) && (share..=1.0).contains(&high), "{successes}/{trials}");
            }
        }
        let width = |i: Interval| i.high - i.low;
        assert!(width(wilson(500, 1000)) < width(wilson(50, 100)));
    }

    #[test]
    fn means_and_medians() {
        let sample = mean(&[2.0, 4.0, 4.0, 6.0]).unwrap();
        assert_eq!(sample.mean, 4.0);
        assert!(near(sample.standard_error.unwrap(), (8.0f64 / 3.0 / 4.0).sqrt()));
        assert_eq!(mean(&[3.0]).unwrap().standard_error, None);
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
