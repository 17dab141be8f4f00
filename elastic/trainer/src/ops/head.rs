//! From the last hidden states to likelihoods: losses with their gradient, a piece of rows at a time, so that the logits
//! of all rows never lie in memory at once.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::exp::{exp, log_sum_exp};
use super::gemm::{Mat, matmul};
use super::linear::cpu;
use super::values;

/// Rows whose logits are in memory at once.
const ROWS: usize = 64;

/// What a row should predict.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The next token of the text.
    pub next: u32,
    /// The teacher's likeliest tokens with their probabilities; the rest of the probability is one bucket.
    pub teacher: Vec<(u32, f32)>,
}

/// The mean loss over some rows: `kl` times the divergence from the teacher, `ce` times the surprise at the next token.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Weight of the divergence.
    pub kl: f32,
    /// Weight of the surprise.
    pub ce: f32,
}

struct Loss {
    head: Tensor,
    rows: Vec<(usize, Target)>,
    mix: Mix,
    /// Gradient by the hidden states, from the forward pass to the backward one.
    grad: Mutex<Option<Vec<f32>>>,
}

/// Loss of the rows `rows` of `hidden (n, dim)` under the matrix `head (vocab, dim)`: a scalar.
pub fn loss(hidden: &Tensor, head: &Tensor, rows: Vec<(usize, Target)>, mix: Mix) -> Result<Tensor> {
    hidden.contiguous()?.apply_op1(Loss { head: head.clone(), rows, mix, grad: Mutex::new(None) })
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "head-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, dim) = layout.shape().dims2()?;
        let x = values(x, layout)?;
        let (vocab, _) = self.head.dims2()?;
        let (guard, head_layout) = self.head.storage_and_layout();
        let head = Mat::new(cpu(&guard, head_layout)?, vocab, dim);
        let mut grad = vec![0f32; n * dim];
        let mut total = 0f64;
        let share = 1.0 / self.rows.len().max(1) as f32;
        for piece in self.rows.chunks(ROWS) {
            let picked: Vec<f32> = piece.iter().flat_map(|(row, _)| &x[row * dim..(row + 1) * dim]).copied().collect();
            let mut logits = vec![0f32; piece.len() * vocab];
            matmul(&mut logits, Mat::new(&picked, piece.len(), dim), head.t(), false, true);
            let losses: Vec<f32> = logits
                .par_chunks_mut(vocab)
                .zip(piece)
                .map(|(row, (_, target))| row_loss(row, target, self.mix))
                .collect();
            total += losses.iter().map(|l| f64::from(*l)).sum::<f64>();
            let mut back = vec![0f32; piece.len() * dim];
            matmul(&mut back, Mat::new(&logits, piece.len(), vocab), head, false, true);
            for ((row, _), back) in piece.iter().zip(back.chunks_exact(dim)) {
                grad[row * dim..(row + 1) * dim].iter_mut().zip(back).for_each(|(g, b)| *g += b * share);
            }
        }
        if let Ok(mut slot) = self.grad.lock() {
            *slot = Some(grad);
        }
        Ok((CpuStorage::F32(vec![total as f32 * share]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _loss: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let stored = self.grad.lock().ok().and_then(|mut slot| slot.take());
        let Some(stored) = stored else {
            return Err(candle_core::Error::Msg("a loss is differentiated once".into()));
        };
        let scale = f64::from(grad.to_scalar::<f32>()?);
        Ok(Some((Tensor::from_vec(stored, x.shape(), x.device())? * scale)?))
    }
}

/// The loss of one row of logits, which become the gradient by them.
fn row_loss(row: &mut [f32], target: &Target, mix: Mix) -> f32 {
    let all = log_sum_exp(row);
    let next = target.next as usize;
    let surprise = all - row[next];
    let mut divergence = 0f32;
    let (mut taught, mut own) = (0f32, 0f32);
    let known: Vec<(usize, f32, f32)> =
        target.teacher.iter().map(|&(id, t)| (id as usize, t, row[id as usize] - all)).collect();
    for &(_, t, log_s) in &known {
        taught += t;
        own += exp(log_s);
        divergence += t * (t.max(1e-12).ln() - log_s);
    }
    let (rest_t, rest_s) = ((1.0 - taught).max(0.0), (1.0 - own).max(1e-6));
    let kl = if known.is_empty() { 0.0 } else { mix.kl };
    if rest_t > 1e-6 {
        divergence += rest_t * (rest_t.ln() - rest_s.ln());
    }
    // Of a token in the rest: s (1 - rest_t / rest_s) from the divergence, s from the surprise.
    let factor = kl * (1.0 - rest_t / rest_s) + mix.ce;
    row.iter_mut().for_each(|z| *z = factor * exp(*z - all));
    for (id, t, log_s) in known {
        let s = exp(log_s);
        row[id] = kl * (s - t) + mix.ce * s;
    }
    row[next] -= mix.ce;
    kl * divergence + mix.ce * surprise
}

/// Logits of each row of `hidden (n, dim)`, given to `take` with the row's index; rows of a piece run in parallel.
pub fn each_row<T: Send>(
    hidden: &Tensor,
    head: &Tensor,
    take: impl Fn(usize, &mut [f32]) -> T + Sync,
) -> Result<Vec<T>> {
    let (n, dim) = hidden.dims2()?;
    let (vocab, _) = head.dims2()?;
    let hidden = hidden.contiguous()?;
    let ((hs, lh), (ws, lw)) = (hidden.storage_and_layout(), head.storage_and_layout());
    let (x, head) = (cpu(&hs, lh)?, Mat::new(cpu(&ws, lw)?, vocab, dim));
    let mut out = Vec::with_capacity(n);
    for first in (0..n).step_by(ROWS) {
        let rows = ROWS.min(n - first);
        let mut logits = vec![0f32; rows * vocab];
        matmul(&mut logits, Mat::new(&x[first * dim..], rows, dim), head.t(), false, true);
        out.extend(logits.par_chunks_mut(vocab).enumerate().map(|(i, row)| take(first + i, row)).collect::<Vec<T>>());
    }
    Ok(out)
}

/// Surprise at `tokens[i + 1]` after row `i`, for all rows but each sequence's last; sequences of `tokens_each`.
pub fn surprises(hidden: &Tensor, head: &Tensor, tokens: &[u32], tokens_each: usize) -> Result<Vec<f32>> {
    let all = each_row(hidden, head, |i, row| {
        let next = tokens.get(i + 1).filter(|_| (i + 1) % tokens_each != 0)?;
        Some(log_sum_exp(row) - row[*next as usize])
    })?;
    Ok(all.into_iter().flatten().collect())
}

/// Divergence of each row from its teacher, or whatever else `mix` asks for; no gradient.
pub fn losses(hidden: &Tensor, head: &Tensor, targets: &[Target], mix: Mix) -> Result<Vec<f32>> {
    each_row(hidden, head, |i, row| targets.get(i).map_or(0.0, |target| row_loss(row, target, mix)))
}
