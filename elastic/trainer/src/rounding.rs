//! Quantising a matrix so that errors make up for each other.
//!
//! Columns are rounded one after the other, the last first, and each takes up what the errors of those before it cost on
//! calibration text (GPTQ, arXiv 2210.17323, in QuIP's form, arXiv 2307.13304: the feedback is the unit triangle of the
//! second moments' Cholesky factor). Last first, because the last columns are the least important: a level that drops
//! them keeps columns that made up for little.

use anyhow::{Result, ensure};
use concertina_formats::DType;
use concertina_formats::quant::BlockGrid;
use rayon::prelude::*;

use crate::ops::gemm::{Mat, matmul};
use crate::recover::linalg::cholesky;

/// Added to the moments' diagonal, in means of it: keeps rare inputs from ruling.
const DAMPING: f64 = 0.02;
/// Rows that a thread takes at a time.
const ROWS: usize = 16;

/// Blocks of `w (rows, cols)` as `dtype`, row by row, for inputs with the second moments `moments (cols, cols)`.
///
/// # Errors
/// If sizes do not fit, or the moments are none.
pub fn quantise(w: &[f32], cols: usize, mut moments: Vec<f32>, dtype: DType) -> Result<Vec<Vec<u8>>> {
    ensure!(cols > 0 && w.len().is_multiple_of(cols) && moments.len() == cols * cols, "a matrix and other moments");
    ensure!(dtype.block().0 == BlockGrid::LEN && cols.is_multiple_of(BlockGrid::LEN), "{dtype:?} has other blocks");
    let mean = (0..cols).map(|i| f64::from(moments[i * cols + i])).sum::<f64>() / cols as f64;
    (0..cols).for_each(|i| moments[i * cols + i] += (DAMPING * mean).max(1e-12) as f32);
    let weights: Vec<f32> = (0..cols).map(|i| moments[i * cols + i]).collect();
    let mut feedback = cholesky(moments, cols)?;
    let pivots: Vec<f32> = (0..cols).map(|i| feedback[i * cols + i]).collect();
    for row in feedback.chunks_exact_mut(cols) {
        row.iter_mut().zip(&pivots).for_each(|(f, pivot)| *f /= pivot);
    }
    let rows = w.par_chunks(ROWS * cols).map(|w| some_rows(w, cols, &feedback, &weights, dtype));
    Ok(rows.collect::<Vec<_>>().into_iter().flatten().collect())
}

/// The blocks of a few rows; `feedback[j, k]` is what column `k` takes up of the error of a later column `j`.
fn some_rows(w: &[f32], cols: usize, feedback: &[f32], weights: &[f32], dtype: DType) -> Vec<Vec<u8>> {
    const LEN: usize = BlockGrid::LEN;
    let rows = w.len() / cols;
    let mut errors = vec![0f32; rows * cols];
    let mut blocks: Vec<Vec<Vec<u8>>> = vec![Vec::new(); rows];
    for first in (0..cols).step_by(LEN).rev() {
        let after = cols - first - LEN;
        let mut taken = vec![0f32; rows * LEN];
        if after > 0 {
            let done = Mat::strided(&errors[first + LEN..], rows, after, cols);
            let back = Mat::strided(&feedback[(first + LEN) * cols + first..], after, LEN, cols);
            matmul(&mut taken, done, back, false, false);
        }
        for row in 0..rows {
            let own = &w[row * cols + first..][..LEN];
            let mut wanted: Vec<f32> = own.iter().zip(&taken[row * LEN..]).map(|(w, t)| w + t).collect();
            let grid = BlockGrid::search(dtype, &wanted, &weights[first..first + LEN]);
            for k in (0..LEN).rev() {
                let later: f32 = (k + 1..LEN)
                    .map(|j| errors[row * cols + first + j] * feedback[(first + j) * cols + first + k])
                    .sum();
                wanted[k] += later;
                errors[row * cols + first + k] = own[k] - grid.nearest(wanted[k]);
            }
            let mut block = Vec::new();
            grid.encode(&wanted, &mut block);
            blocks[row].push(block);
        }
    }
    blocks.into_iter().map(|row| row.into_iter().rev().flatten().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use concertina_formats::dequant::dequantize_row;
    use concertina_formats::quant::quantize_row;

    #[test]
    fn errors_make_up_for_each_other() {
        let (rows, cols, n) = (20, 128, 400);
        let mut random = Random::new(4);
        let mut draw = |n: usize| (0..n).map(|_| random.unit() as f32 - 0.5).collect::<Vec<f32>>();
        // Inputs that depend on each other.
        let (mix, free) = (draw(40 * cols), draw(n * 40));
        let mut x = draw(n * cols);
        x.iter_mut().for_each(|v| *v *= 0.3);
        matmul(&mut x, Mat::new(&free, n, 40), Mat::new(&mix, 40, cols), true, false);
        let mut moments = vec![0f32; cols * cols];
        matmul(&mut moments, Mat::new(&x, n, cols).t(), Mat::new(&x, n, cols), false, false);
        let w = draw(rows * cols);
        let cost = |blocks: &[Vec<u8>]| -> f32 {
            let mut error = w.clone();
            for (row, bytes) in error.chunks_exact_mut(cols).zip(blocks) {
                let mut values = vec![0f32; cols];
                dequantize_row(DType::Q4_1, bytes, &mut values).unwrap();
                row.iter_mut().zip(values).for_each(|(w, v)| *w -= v);
            }
            let mut out = vec![0f32; n * rows];
            matmul(&mut out, Mat::new(&x, n, cols), Mat::new(&error, rows, cols).t(), false, false);
            out.iter().map(|v| v * v).sum()
        };
        let plain: Vec<Vec<u8>> = w
            .chunks_exact(cols)
            .map(|row| {
                let mut out = Vec::new();
                quantize_row(DType::Q4_1, row, None, &mut out).unwrap();
                out
            })
            .collect();
        let ours = quantise(&w, cols, moments.clone(), DType::Q4_1).unwrap();
        assert!(cost(&ours) < 0.6 * cost(&plain), "{} against {}", cost(&ours), cost(&plain));
        assert!(quantise(&w, cols, moments.clone(), DType::Q6_K).is_err());
        assert!(quantise(&w[1..], cols, moments, DType::Q4_1).is_err());
    }
}
