//! Twins of the kernels that work row by row.

use super::Words;
use crate::{GatherParams, GluParams, NormParams, Step};

/// `y[i] = x[outs[i]]`; `outs`: (out_rows) of (batch row, _, _, _).
pub fn gather_rows(step: &Step, p: &GatherParams, outs: Words<'_>, x: Words<'_>, y: Words<'_>) {
    let dim = p.dim as usize;
    for row in 0..step.out_rows as usize {
        for i in 0..dim {
            y.set_u(row * dim + i, x.u(outs.u(row * 4) as usize * dim + i));
        }
    }
}

/// y (+)= x / sqrt(mean(x²) + eps) · (weight + offset). `x`: (rows, x_stride), `weight`: (dim), `y`: (rows, y_stride).
/// Vector `h` of a row lies at `y_offset + h / run * run_step + h % run * dim`; in x, side by side.
pub fn rms_norm(step: &Step, p: &NormParams, x: Words<'_>, weight: Words<'_>, y: Words<'_>) {
    let (dim, heads) = (p.dim as usize, p.heads as usize);
    let rows = if p.out_rows == 1 { step.out_rows } else { step.rows } as usize;
    for row in 0..rows {
        for head in 0..heads {
            let xo = row * p.x_stride as usize + head * dim;
            let (run, step) = (p.run.max(1) as usize, p.run_step as usize);
            let yo = row * p.y_stride as usize + p.y_offset as usize + head / run * step + head % run * dim;
            let from: Vec<f32> = (0..dim).map(|i| if p.in_place == 1 { y.f(yo + i) } else { x.f(xo + i) }).collect();
            let mean = from.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / dim as f64;
            let scale = (1.0 / (mean + f64::from(p.eps)).sqrt()) as f32;
            for (i, v) in from.iter().enumerate() {
                let v = v * scale * (weight.f(i) + p.offset);
                y.set_f(yo + i, if p.accumulate == 1 { y.f(yo + i) + v } else { v });
            }
        }
    }
}

/// gate = act(gate) · up. `gate`, `up`: (rows, stride).
pub fn glu(step: &Step, p: &GluParams, up: Words<'_>, gate: Words<'_>) {
    for row in 0..step.rows as usize {
        for n in 0..p.n as usize {
            let i = row * p.stride as usize + n;
            gate.set_f(i, activated(gate.f(i), p.gelu == 1) * up.f(i));
        }
    }
}

/// SiLU, or the tanh approximation of GELU.
pub fn activated(g: f32, gelu: bool) -> f32 {
    if gelu { 0.5 * g * (1.0 + (0.797_884_6 * (g + 0.044_715 * g * g * g)).tanh()) } else { g / (1.0 + (-g).exp()) }
}
