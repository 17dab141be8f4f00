//! Quantising to the small block types, for files that are made offline.
//!
//! Scale (and minimum) of each block of 32 are searched for: around the plain choice, each candidate's quants fix the
//! least-squares scale and minimum, which give new quants, and the least weighted squared error wins. ggml's quantisers of
//! K-quants search alike.

use crate::{DType, Error, Result};
use half::f16;

/// Elements of a block.
const BLOCK: usize = 32;
/// Candidates on each side of the plain scale.
const CANDIDATES: i32 = 12;

/// Types that [`quantize_row`] writes.
pub const WRITABLE: [DType; 7] =
    [DType::F32, DType::F16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0];

/// Append the row `values` as `dtype` to `out`. `weights` says how much an error of each element matters (none: all the
/// same); they are as many as the values, and not negative.
///
/// # Errors
/// [`Error::Unsupported`] for types outside [`WRITABLE`], [`Error::Malformed`] where the row is no whole number of blocks or
/// the weights are not as many.
pub fn quantize_row(dtype: DType, values: &[f32], weights: Option<&[f32]>, out: &mut Vec<u8>) -> Result<()> {
    if !WRITABLE.contains(&dtype) {
        return Err(Error::Unsupported(format!("quantising to {dtype:?}; {WRITABLE:?} are written")));
    }
    if !values.len().is_multiple_of(dtype.block().0) || weights.is_some_and(|w| w.len() != values.len()) {
        let problem = format!("{} elements, {:?} weights", values.len(), weights.map(<[f32]>::len));
        return Err(Error::malformed(format!("row of {dtype:?}"), problem));
    }
    match dtype {
        DType::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        DType::F16 => out.extend(values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
        _ => {
            for (i, block) in values.chunks_exact(BLOCK).enumerate() {
                let even = [1.0; BLOCK];
                let weights = weights.map_or(&even[..], |w| &w[i * BLOCK..(i + 1) * BLOCK]);
                encode(dtype, block, weights, out);
            }
        }
    }
    Ok(())
}

/// Append `values` as Q8_0, the scale of each block by its greatest element: for what is quantised whenever it is loaded.
/// [`quantize_row`] looks for better scales, and takes many times as long.
///
/// # Errors
/// [`Error::Malformed`] where the values are no whole number of blocks.
pub fn round_to_q8_0(values: &[f32], out: &mut Vec<u8>) -> Result<()> {
    if !values.len().is_multiple_of(BLOCK) {
        return Err(Error::malformed("row of Q8_0", format!("{} elements", values.len())));
    }
    for block in values.chunks_exact(BLOCK) {
        let most = block.iter().fold(0f32, |most, x| most.max(x.abs()));
        let scale = f16::from_f32(most / 127.0);
        let step = if scale.to_f32() > 0.0 { scale.to_f32() } else { f32::INFINITY };
        out.extend(scale.to_le_bytes());
        out.extend(block.iter().map(|x| (x / step).round().clamp(-127.0, 127.0) as i8 as u8));
    }
    Ok(())
}

/// `value = scale · quant + min`, as the file's f16 has them.
#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    min: f32,
    low: f32,
    high: f32,
}

impl Grid {
    fn rounded(self) -> Self {
        Self { scale: f16::from_f32(self.scale).to_f32(), min: f16::from_f32(self.min).to_f32(), ..self }
    }

    fn quant(&self, x: f32) -> f32 {
        if self.scale == 0.0 {
            0f32.clamp(self.low, self.high)
        } else {
            ((x - self.min) / self.scale).round().clamp(self.low, self.high)
        }
    }

    fn error(&self, values: &[f32], weights: &[f32]) -> f32 {
        let one = |(x, w): (&f32, &f32)| w * (self.scale * self.quant(*x) + self.min - x).powi(2);
        values.iter().zip(weights).map(one).sum()
    }
}

fn encode(dtype: DType, values: &[f32], weights: &[f32], out: &mut Vec<u8>) {
    let grid = match dtype {
        DType::Q4_1 => with_min(values, weights, 15.0),
        DType::Q5_1 => with_min(values, weights, 31.0),
        DType::Q4_0 => without_min(values, weights, 8.0, 7.0),
        DType::Q5_0 => without_min(values, weights, 16.0, 15.0),
        _ => without_min(values, weights, 127.0, 127.0),
    };
    let quants = values.iter().map(|x| grid.quant(*x));
    out.extend(f16::from_f32(grid.scale).to_le_bytes());
    if matches!(dtype, DType::Q4_1 | DType::Q5_1) {
        out.extend(f16::from_f32(grid.min).to_le_bytes());
    }
    if dtype == DType::Q8_0 {
        out.extend(quants.map(|q| q as i8 as u8));
        return;
    }
    // Unsigned: the lowest quant is 0.
    let quants: Vec<u8> = quants.map(|q| (q - grid.low) as u8).collect();
    if matches!(dtype, DType::Q5_0 | DType::Q5_1) {
        let fifth = quants.iter().enumerate().fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4) << i);
        out.extend(fifth.to_le_bytes());
    }
    let (first, second) = quants.split_at(BLOCK / 2);
    out.extend(first.iter().zip(second).map(|(a, b)| (a & 15) | (b & 15) << 4));
}

/// Quants from 0 to `high`.
fn with_min(values: &[f32], weights: &[f32], high: f32) -> Grid {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let plain = Grid { scale: (most - least) / high, min: least, low: 0.0, high };
    let (mut best, mut best_error) = (plain.rounded(), plain.rounded().error(values, weights));
    for i in -CANDIDATES..=CANDIDATES {
        // Fewer or more steps over the range than there are quants: what lies outside is clamped.
        let steps = high + i as f32 * 0.15;
        let mut grid = Grid { scale: (most - least) / steps, ..plain };
        for _ in 0..3 {
            let Some(fitted) = fit(&grid, values, weights) else { break };
            grid = fitted;
            let rounded = grid.rounded();
            let error = rounded.error(values, weights);
            if error < best_error {
                (best, best_error) = (rounded, error);
            }
        }
    }
    best
}

/// Least squares of scale and minimum for the quants that `grid` gives.
fn fit(grid: &Grid, values: &[f32], weights: &[f32]) -> Option<Grid> {
    let (mut sw, mut sq, mut sqq, mut sx, mut sqx) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for (x, w) in values.iter().zip(weights) {
        let q = grid.quant(*x);
        sw += w;
        sq += w * q;
        sqq += w * q * q;
        sx += w * x;
        sqx += w * q * x;
    }
    let det = sw * sqq - sq * sq;
    let scale = (sw * sqx - sq * sx) / det;
    let min = (sqq * sx - sq * sqx) / det;
    (det > 0.0 && scale.is_finite() && min.is_finite() && scale > 0.0).then_some(Grid { scale, min, ..*grid })
}

/// Quants from `-below` to `above` around 0. The scale may be negative, so that the larger side gets the larger range.
fn without_min(values: &[f32], weights: &[f32], below: f32, above: f32) -> Grid {
    let farthest = values.iter().copied().fold(0f32, |a, x| if x.abs() > a.abs() { x } else { a });
    let plain = Grid { scale: -farthest / below, min: 0.0, low: -below, high: above };
    let (mut best, mut best_error) = (plain.rounded(), plain.rounded().error(values, weights));
    for i in -CANDIDATES..=CANDIDATES {
        let mut grid = Grid { scale: -farthest / (below + i as f32 * 0.1), ..plain };
        for _ in 0..3 {
            let (mut sqq, mut sqx) = (0f32, 0f32);
            for (x, w) in values.iter().zip(weights) {
                let q = grid.quant(*x);
                sqq += w * q * q;
                sqx += w * q * x;
            }
            if sqq <= 0.0 {
                break;
            }
            grid.scale = sqx / sqq;
            let error = grid.rounded().error(values, weights);
            if error < best_error {
                (best, best_error) = (grid.rounded(), error);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequant::dequantize_row;
    use crate::testing::{Rng, random_blocks};

    fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        quantize_row(dtype, values, None, &mut bytes).unwrap();
        let mut out = vec![0.0; values.len()];
        dequantize_row(dtype, &bytes, &mut out).unwrap();
        out
    }

    fn relative(dtype: DType, values: &[f32]) -> f32 {
        let back = round_trip(dtype, values);
        let error: f32 = back.iter().zip(values).map(|(a, b)| (a - b).powi(2)).sum();
        (error / values.iter().map(|x| x * x).sum::<f32>()).sqrt()
    }

    #[test]
    fn errors_are_those_of_the_width() {
        let mut rng = Rng::named(1, "quant");
        let values: Vec<f32> = (0..4096).map(|_| rng.float()).collect();
        for (dtype, bound) in [
            (DType::F32, 1e-7),
            (DType::F16, 1e-3),
            (DType::Q4_0, 0.09),
            (DType::Q4_1, 0.08),
            (DType::Q5_0, 0.045),
            (DType::Q5_1, 0.04),
            (DType::Q8_0, 0.006),
        ] {
            let error = relative(dtype, &values);
            assert!(error <= bound, "{dtype:?}: {error}");
        }
    }

    #[test]
    fn what_is_on_a_grid_stays() {
        let mut rng = Rng::named(2, "quant");
        for dtype in [DType::Q4_1, DType::Q5_1, DType::Q8_0] {
            let bytes = random_blocks(dtype, 1024, 1.0, &mut rng);
            let mut values = vec![0.0; 1024];
            dequantize_row(dtype, &bytes, &mut values).unwrap();
            assert!(relative(dtype, &values) < 8e-3, "{dtype:?}: {}", relative(dtype, &values));
        }
    }

    #[test]
    fn weights_move_the_error() {
        let mut rng = Rng::named(3, "quant");
        let values: Vec<f32> = (0..32).map(|_| rng.float()).collect();
        let weights: Vec<f32> = (0..32).map(|i| if i < 16 { 100.0 } else { 1.0 }).collect();
        let error = |weights: Option<&[f32]>| -> f32 {
            let mut bytes = Vec::new();
            quantize_row(DType::Q4_1, &values, weights, &mut bytes).unwrap();
            let mut out = [0.0; 32];
            dequantize_row(DType::Q4_1, &bytes, &mut out).unwrap();
            out.iter().zip(&values).take(16).map(|(a, b)| (a - b).powi(2)).sum()
        };
        assert!(error(Some(&weights)) <= error(None));
    }

    #[test]
    fn blocks_of_one_value_and_wrong_rows() {
        for dtype in WRITABLE {
            assert!(round_trip(dtype, &[0.0; 64]).iter().all(|x| *x == 0.0), "{dtype:?}");
            assert!(round_trip(dtype, &[-1.5; 64]).iter().all(|x| (x + 1.5).abs() < 0.02), "{dtype:?}");
        }
        let mut out = Vec::new();
        assert!(quantize_row(DType::Q4_1, &[0.0; 31], None, &mut out).is_err());
        assert!(quantize_row(DType::Q4_1, &[0.0; 32], Some(&[1.0]), &mut out).is_err());
        assert!(quantize_row(DType::Q6_K, &[0.0; 256], None, &mut out).is_err());
        assert!(out.is_empty());
    }
}
