//! What a sample says.

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A mean with half the width of its 95 % interval, by the normal distribution: for samples of a hundred or so.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// It lies this far from the truth at most, 19 times out of 20.
    pub within: f64,
}

/// The mean of independent values. Of fewer than two nothing is known: `within` is infinite.
pub fn mean(values: &[f64]) -> Mean {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let within = if values.len() < 2 { f64::INFINITY } else { Z * (squares / (n - 1.0) / n).sqrt() };
    Mean { mean, within }
}

/// Spearman's rank correlation. Equal values share their ranks; 0 where one side does not vary.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let centre = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len().max(1) as f64;
        v.iter().map(|x| x - mean).collect::<Vec<f64>>()
    };
    let (a, b) = (centre(&a), centre(&b));
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let scale = (dot(&a, &a) * dot(&b, &b)).sqrt();
    if scale > 0.0 { dot(&a, &b) / scale } else { 0.0 }
}

fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    while first < order.len() {
        let same = order[first..].iter().take_while(|i| values[**i] == values[order[first]]).count();
        order[first..first + same].iter().for_each(|i| ranks[*i] = first as f64 + (same - 1) as f64 / 2.0);
        first += same;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_ranks() {
        let found = mean(&[1.0, 2.0, 3.0, 4.0]);
        assert!((found.mean - 2.5).abs() < 1e-12 && (found.within - Z * (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert!(mean(&[1.0]).within.is_infinite());
        assert!((rank_correlation(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-12);
        assert!((rank_correlation(&[1.0, 2.0, 9.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [1.5, 0.0, 1.5]);
        assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
