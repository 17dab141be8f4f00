//! Twins of the kernels that only the encoder uses.

use super::Words;
use crate::{DenseParams, GeluParams, LayerNormParams, Step};

fn batch(step: &Step, out_rows: u32) -> usize {
    if out_rows == 1 { step.out_rows as usize } else { step.rows as usize }
}

/// x = (x − mean) / sqrt(variance + eps) · weight + bias. `weight`, `bias`: (dim), `x`: (rows, stride).
pub fn layer_norm(step: &Step, p: &LayerNormParams, weight: Words<'_>, bias: Words<'_>, x: Words<'_>) {
    let dim = p.dim as usize;
    for row in 0..batch(step, p.out_rows) {
        let first = row * p.stride as usize;
        let values: Vec<f64> = (0..dim).map(|i| f64::from(x.f(first + i))).collect();
        let mean = values.iter().sum::<f64>() / dim as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / dim as f64;
        let scale = 1.0 / (variance + f64::from(p.eps)).sqrt();
        for (i, v) in values.iter().enumerate() {
            let normed = (v - mean) * scale * f64::from(weight.f(i)) + f64::from(bias.f(i));
            x.set_f(first + i, normed as f32);
        }
    }
}

/// x = x · (1 + erf(x / √2)) / 2. `x`: (rows, stride).
pub fn gelu_erf(step: &Step, p: &GeluParams, x: Words<'_>) {
    for row in 0..batch(step, p.out_rows) {
        for i in 0..p.n as usize {
            let at = row * p.stride as usize + i;
            let v = f64::from(x.f(at));
            x.set_f(at, (0.5 * v * (1.0 + erf(v / std::f64::consts::SQRT_2))) as f32);
        }
    }
}

/// The error function, from its series erf(z) = 2/√π · exp(−z²) · Σ 2ⁿ z²ⁿ⁺¹ / (1·3·…·(2n + 1)), whose terms have one sign
/// (Abramowitz and Stegun 7.1.6).
fn erf(z: f64) -> f64 {
    if z.abs() > 6.0 {
        return z.signum();
    }
    let (mut term, mut sum, mut n) = (z, z, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum
}

/// out = softmax(scale · q kᵀ) v for each head, over all `before + Step::rows` keys. `q`: (rows, q_stride), `kv`:
/// (before + rows, kv_stride), `out`: (rows, out_stride).
pub fn attn_dense(step: &Step, p: &DenseParams, q: Words<'_>, kv: Words<'_>, out: Words<'_>) {
    let (dim, keys) = (p.head_dim as usize, (p.before + step.rows) as usize);
    let (q_at, k_at, v_at) = (p.q_offset as usize, p.k_offset as usize, p.v_offset as usize);
    for row in 0..batch(step, p.out_rows) {
        for head in 0..p.heads as usize {
            let place = |offset: usize, row: usize, stride: u32| offset + row * stride as usize + head * dim;
            let query = place(q_at, row, p.q_stride);
            let dot = |key: usize| {
                let key = place(k_at, key, p.kv_stride);
                (0..dim).map(|d| f64::from(q.f(query + d)) * f64::from(kv.f(key + d))).sum::<f64>()
            };
            let scores: Vec<f64> = (0..keys).map(|key| f64::from(p.scale) * dot(key)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let all: f64 = weights.iter().sum();
            for d in 0..dim {
                let value = |key: usize| f64::from(kv.f(place(v_at, key, p.kv_stride) + d));
                let sum: f64 = weights.iter().enumerate().map(|(key, w)| w * value(key)).sum();
                out.set_f(place(0, row, p.out_stride) + d, (sum / all) as f32);
            }
        }
    }
}
