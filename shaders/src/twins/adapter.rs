//! Twins of the recovery adapter.

use super::{Words, matmul};
use crate::{AdapterParams, MatmulParams, Step, WeightFormat};

/// Ranks that a word of A and B has room for; fewer are padded with zeros.
const RANKS: usize = 8;

/// y += Bᵀ(A x) + c. `x`: (rows, x_stride), `y`: (rows, y_stride). `codes` are signed bytes: A `(inputs / 4, ranks, 4)`, B
/// `(outputs / 4, ranks, 4)`, c `(outputs)`. `scales`: of each rank, A's times B's; then c's.
pub fn adapter(step: &Step, p: &AdapterParams, x: Words<'_>, codes: Words<'_>, scales: Words<'_>, y: Words<'_>) {
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let code = |at: usize| f32::from((codes.u(at / 4) >> (8 * (at % 4))) as u8 as i8);
    let of_rank = |at: usize, rank: usize| code((at / 4 * RANKS + rank) * 4 + at % 4);
    let (b, c) = (RANKS * inputs, RANKS * (inputs + outputs));
    for row in 0..step.rows as usize {
        let (x0, y0) = (row * p.x_stride as usize, row * p.y_stride as usize);
        let inner = |rank| (0..inputs).map(|i| of_rank(i, rank) * x.f(x0 + i)).sum::<f32>() * scales.f(rank);
        let inner: Vec<f32> = (0..RANKS).map(inner).collect();
        for o in 0..outputs {
            let mixed: f32 = (0..RANKS).map(|rank| of_rank(b / RANKS + o, rank) * inner[rank]).sum();
            y.set_f(y0 + o, y.f(y0 + o) + mixed + code(c + o) * scales.f(RANKS));
        }
    }
}

/// The product of a whole matrix, and then its adapter: what `matvec_adapted` does at once.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn matvec_adapted(
    format: WeightFormat,
    step: &Step,
    p: &MatmulParams,
    x: Words<'_>,
    w: Words<'_>,
    bias: Words<'_>,
    gain: Words<'_>,
    y: Words<'_>,
    codes: Words<'_>,
    scales: Words<'_>,
) {
    matmul(format, step, p, x, w, bias, gain, y);
    let inputs = p.panels * format.panel_cols() as u32;
    let (x_stride, y_stride) = (p.x_stride, p.y_stride);
    let beside = AdapterParams { inputs, outputs: p.n, x_stride, y_stride, ..AdapterParams::default() };
    adapter(step, &beside, x, codes, scales, y);
}
