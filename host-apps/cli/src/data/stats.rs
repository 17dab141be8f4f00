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

/// The 97.5 % points of Student's distribution with 1, 2, ... degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// An interval for the mean of all items, where items come in clusters of (sum, number of items) that vary as wholes: the
/// ratio estimator of cluster sampling (W. G. Cochran, 1977, chapter 6), with Student's points for few clusters. None of
/// fewer than two clusters.
pub fn clustered_mean(clusters: &[(f64, usize)]) -> Option<Interval> {
    ratio_mean(&clusters.iter().map(|(sum, count)| (*sum, *count as f64)).collect::<Vec<_>>())
}

/// The same where what comes with each sum is any weight.
pub fn ratio_mean(clusters: &[(f64, f64)]) -> Option<Interval> {
    let (n, items) = (clusters.len(), clusters.iter().map(|c| c.1).sum::<f64>());
    if n < 2 || items == 0.0 {
        return None;
    }
    let mean = clusters.iter().map(|c| c.0).sum::<f64>() / items;
    let squares: f64 = clusters.iter().map(|(sum, count)| (sum - mean * count).powi(2)).sum();
    let standard_error = (squares * n as f64 / (n - 1) as f64).sqrt() / items;
    // Past the table, the next term of the expansion in 1/n is enough.
    let points = STUDENT.get(n - 2).copied().unwrap_or(Z + 2.372 / (n - 1) as f64);
    let half = points * standard_error;
    Some(Interval { low: mean - half, high: mean + half })
}

/// The middle value, or the mean of the two middle ones. None of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

/// The 95 % interval of a median, by the ranks that tossing a coin for each value gives; 0 of no values.
pub fn median_interval(values: &[f64]) -> Interval {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, off) = (sorted.len() as f64 / 2.0, Z * (sorted.len() as f64).sqrt() / 2.0);
    let at = |rank: f64| sorted.get((rank.max(0.0) as usize).min(sorted.len().saturating_sub(1))).copied();
    let (low, high) = (at((middle - off).floor()), at((middle + off).ceil()));
    Interval { low: low.unwrap_or(0.0), high: high.unwrap_or(0.0) }
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
    fn clusters_of_one_are_a_plain_mean() {
        let Interval { low, high } = clustered_mean(&[(2.0, 1), (4.0, 1), (4.0, 1), (6.0, 1)]).unwrap();
        let half = 3.182 * (8.0f64 / 3.0 / 4.0).sqrt();
        assert!(near(low, 4.0 - half) && near(high, 4.0 + half), "{low} {high}");
        assert_eq!(clustered_mean(&[(3.0, 1)]), None);
        assert_eq!(clustered_mean(&[]), None);
    }

    #[test]
    fn clusters_count_by_their_size() {
        // Clusters with one mean leave no doubt, whatever their sizes.
        let same = clustered_mean(&[(10.0, 5), (2.0, 1), (200.0, 100)]).unwrap();
        assert!(near(same.low, 2.0) && near(same.high, 2.0), "{same:?}");
        let many: Vec<(f64, usize)> = (0..1000).map(|i| (f64::from(i % 2), 1)).collect();
        let interval = clustered_mean(&many).unwrap();
        assert!(
            near(interval.high - interval.low, 2.0 * (Z + 2.372 / 999.0) * (0.25f64 / 999.0).sqrt()),
            "{interval:?}"
        );
    }

    #[test]
    fn the_interval_of_a_median_holds_the_middle() {
        let falling: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(median_interval(&falling), Interval { low: 40.0, high: 60.0 });
        assert_eq!(median_interval(&[3.0]), Interval { low: 3.0, high: 3.0 });
        assert_eq!(median_interval(&[]), Interval { low: 0.0, high: 0.0 });
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
