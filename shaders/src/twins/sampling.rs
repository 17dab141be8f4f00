//! Twins of the kernels over logits.

use super::Words;
use crate::{SampleParams, Sampler, Step};

const EMPTY: u32 = u32::MAX;

/// `nll[i] = ln Σ exp(logits[i]) − logits[i][wanted]`, in nats. `outs`: (out_rows) of (_, _, wanted token, _).
pub fn row_nll(step: &Step, p: &SampleParams, outs: Words<'_>, logits: Words<'_>, nll: Words<'_>) {
    let vocab = p.vocab as usize;
    for row in 0..step.out_rows as usize {
        let at = row * vocab;
        let top = (0..vocab).fold(f32::MIN, |m, i| m.max(logits.f(at + i)));
        let sum: f64 = (0..vocab).map(|i| f64::from((logits.f(at + i) - top).exp())).sum();
        let wanted = outs.u(row * 4 + 2) as usize;
        nll.set_f(row, top + sum.ln() as f32 - logits.f(at + wanted));
    }
}

fn hash(v: u32) -> u32 {
    let s = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let x = ((s >> ((s >> 28) + 4)) ^ s).wrapping_mul(277_803_737);
    (x >> 22) ^ x
}

/// Gumbel noise of (seed, position, token): `-ln(-ln(1 - v))` for a uniform `v`.
fn gumbel(seed: u32, position: u32, token: u32) -> f32 {
    let h = hash(hash(hash(seed) ^ position) ^ token);
    let v = ((h >> 9) as f32 + 0.5) / 8_388_608.0;
    -(-(-v).ln_1p()).ln()
}

fn sampler(samplers: Words<'_>, slot: usize) -> Sampler {
    let words: [u32; 8] = std::array::from_fn(|i| samplers.u(slot * 8 + i));
    bytemuck::cast(words)
}

/// Smallest kept logit of a tail of the distribution: walk down from the greatest until `mass` says it is enough.
/// Ties with the last one kept are kept too.
fn tail(sorted: &[f32], goal: f64, mass: impl Fn(f32) -> f64) -> f32 {
    let mut sum = 0.0;
    for v in sorted {
        sum += mass(*v);
        if sum >= goal {
            return *v;
        }
    }
    f32::MIN
}

/// Picks a token from each row of logits. See `wgsl/sample.wgsl` for the order of filters and for shapes.
#[allow(clippy::too_many_arguments)] // a kernel's bindings
pub fn sample(
    step: &Step,
    p: &SampleParams,
    outs: Words<'_>,
    rows: Words<'_>,
    samplers: Words<'_>,
    recent: Words<'_>,
    logits: Words<'_>,
    tokens: Words<'_>,
    sampled: Words<'_>,
) {
    let vocab = p.vocab as usize;
    for row in 0..step.out_rows as usize {
        let at = row * vocab;
        let [batch_row, slot, _, feed] = std::array::from_fn(|i| outs.u(row * 4 + i));
        let position = rows.u(batch_row as usize * 4);
        let s = sampler(samplers, slot as usize);
        let ring = (slot * p.recent) as usize;
        if s.penalty != 1.0 {
            let mut seen: Vec<u32> = (0..p.recent as usize).map(|i| recent.u(ring + i)).collect();
            seen.sort_unstable();
            seen.dedup();
            for token in seen.into_iter().filter(|t| *t != EMPTY && *t < p.vocab) {
                let v = logits.f(at + token as usize);
                logits.set_f(at + token as usize, if v > 0.0 { v / s.penalty } else { v * s.penalty });
            }
        }
        let values: Vec<f32> = (0..vocab).map(|i| logits.f(at + i)).collect();
        let top = values.iter().fold(f32::MIN, |m, v| m.max(*v));
        let mut floor = f32::MIN;
        if s.temperature > 0.0 {
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            if s.top_k > 0 && s.top_k < p.vocab {
                floor = tail(&sorted, f64::from(s.top_k), |_| 1.0);
            }
            if s.top_p < 1.0 {
                sorted.retain(|v| *v >= floor);
                let mass = |v: f32| f64::from((v - top).exp());
                let total: f64 = sorted.iter().map(|v| mass(*v)).sum();
                floor = floor.max(tail(&sorted, f64::from(s.top_p) * total, mass));
            }
            if s.min_p > 0.0 {
                floor = floor.max(top + s.min_p.ln());
            }
            floor = floor.min(top);
        }
        let mut best = (f32::MIN, EMPTY);
        for (i, v) in values.iter().enumerate() {
            let score = if s.temperature > 0.0 {
                if *v < floor {
                    continue;
                }
                v / s.temperature + gumbel(s.seed, position, i as u32)
            } else {
                *v
            };
            if best.1 == EMPTY || score > best.0 {
                best = (score, i as u32);
            }
        }
        sampled.set_u(row, best.1);
        recent.set_u(ring + ((position + 1) % p.recent) as usize, best.1);
        if feed != EMPTY {
            tokens.set_u(feed as usize, best.1);
        }
    }
}
