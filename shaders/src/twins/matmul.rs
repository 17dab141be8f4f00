//! Twins of the kernels that read weights.

use super::pointwise::activated;
use super::{Words, decode_block};
use crate::{EmbedParams, MatmulParams, PanelLayout, Step, WeightFormat};

/// Decodes row `r` of the row block that begins at byte `at`, panels `0..panels`.
fn decode_row(w: Words<'_>, layout: &PanelLayout, at: usize, r: usize, panels: usize, out: &mut [f32]) {
    let cols = layout.format.panel_cols();
    let mut block = vec![0u8; layout.format.block_bytes()];
    for panel in 0..panels {
        let first = at + panel * layout.region_bytes();
        layout.place(r, |from, (to, len)| {
            // Runs are words, but for lone f16 scales.
            for i in (0..len).step_by(2) {
                let byte = first + from + i;
                let half = (w.u(byte / 4) >> (8 * (byte % 4))) as u16;
                block[to + i..to + i + 2].copy_from_slice(&half.to_le_bytes());
            }
        });
        decode_block(layout.format, &block, &mut out[panel * cols..][..cols]);
    }
}

/// y = act(norm(x) Wᵀ + bias) (+ y). `x`: (rows, x_stride), `w`: packed, `bias`: (features), `gain`: (k),
/// `y`: (rows, y_stride).
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn matmul(
    format: WeightFormat,
    step: &Step,
    p: &MatmulParams,
    x: Words<'_>,
    w: Words<'_>,
    bias: Words<'_>,
    gain: Words<'_>,
    y: Words<'_>,
) {
    let cols = format.panel_cols();
    let layout = PanelLayout {
        format,
        rows: p.n as usize,
        cols: p.panels_stored as usize * cols,
        row_block: p.row_block as usize,
    };
    let k = p.panels as usize * cols;
    let rows = if p.out_rows == 1 { step.out_rows } else { step.rows } as usize;
    let xs: Vec<Vec<f32>> = (0..rows)
        .map(|row| {
            let x = (0..k).map(|i| x.f(row * p.x_stride as usize + p.x_offset as usize + i)).collect();
            if p.norm == 1 { normed(x, p, gain) } else { x }
        })
        .collect();
    let mut weights = vec![0f32; k];
    let mut sums = vec![vec![0f32; p.n as usize]; rows];
    for n in 0..p.n as usize {
        let at = n / layout.row_block * layout.row_block_bytes();
        decode_row(w, &layout, at, n % layout.row_block, p.panels as usize, &mut weights);
        for (sums, x) in sums.iter_mut().zip(&xs) {
            sums[n] = dot(&weights, x);
            if p.bias == 1 {
                sums[n] += bias.f(p.first as usize + n);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let put = |f: usize, v: f32| {
            let place = match p.y_run as usize {
                0 => f,
                run => f / run * p.y_step as usize + f % run,
            };
            let i = row * p.y_stride as usize + p.y_offset as usize + place;
            y.set_f(i, if p.accumulate == 1 { v + y.f(i) } else { v });
        };
        let first = p.first as usize;
        if p.glu == 0 {
            sums.iter().enumerate().for_each(|(n, v)| put(first + n, *v));
            continue;
        }
        for (i, four) in sums.chunks(4).enumerate() {
            for j in 0..2 {
                put(first / 2 + 2 * i + j, activated(four[j], p.glu == 2) * four[j + 2]);
            }
        }
    }
}

fn normed(x: Vec<f32>, p: &MatmulParams, gain: Words<'_>) -> Vec<f32> {
    let squares: f32 = x.iter().map(|v| v * v).sum();
    let factor = 1.0 / (squares / x.len() as f32 + p.eps).sqrt();
    x.iter().enumerate().map(|(i, v)| v * factor * (gain.f(i) + p.gain_offset)).collect()
}

/// Dot product with eight partial sums, which compilers turn into vector code.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for i in 0..8 {
            acc[i] += a[i] * b[i];
        }
    }
    acc.iter().sum()
}

/// Rows of the embedding table for the batch's tokens that lie in this part of it. `y`: (rows, dim).
pub fn embed(format: WeightFormat, step: &Step, p: &EmbedParams, tokens: Words<'_>, w: Words<'_>, y: Words<'_>) {
    let dim = p.pieces as usize * 32;
    let layout = PanelLayout { format, rows: p.count as usize, cols: dim, row_block: p.row_block as usize };
    let mut out = vec![0f32; dim];
    for row in 0..step.rows as usize {
        let token = tokens.u(row);
        if token < p.first || token - p.first >= p.count {
            continue;
        }
        let t = (token - p.first) as usize;
        let at = t / layout.row_block * layout.row_block_bytes();
        decode_row(w, &layout, at, t % layout.row_block, layout.panels(), &mut out);
        for (i, v) in out.iter().enumerate() {
            y.set_f(row * dim + i, v * p.scale);
        }
    }
}
