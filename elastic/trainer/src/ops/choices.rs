//! A loss that asks for the right one of several continuations: what a multiple-choice question is about.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::exp::{exp, log_sum_exp};
use super::gemm::{Mat, matmul};
use super::linear::cpu;
use super::values;

/// The choices of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    /// Of each choice: the row that predicts each of its tokens, and the token.
    pub tokens: Vec<Vec<(usize, u32)>>,
    /// The right one.
    pub right: usize,
}

struct Loss {
    head: Tensor,
    questions: Vec<Choices>,
    /// Gradient by the hidden states, from the forward pass to the backward one.
    grad: Mutex<Option<Vec<f32>>>,
}

/// Surprise in nats at the right choice where one of a question's choices must be right, by their likelihoods: the mean over the
/// questions, of `hidden (n, dim)` under the matrix `head (vocab, dim)`.
///
/// # Errors
/// If the tensors are not f32 in ordinary memory.
///
/// # Panics
/// If a row, a token or the right choice is not there.
pub fn choice_loss(hidden: &Tensor, head: &Tensor, questions: Vec<Choices>) -> Result<Tensor> {
    hidden.contiguous()?.apply_op1(Loss { head: head.clone(), questions, grad: Mutex::new(None) })
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "choice-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, dim) = layout.shape().dims2()?;
        let x = values(x, layout)?;
        let (vocab, _) = self.head.dims2()?;
        let (guard, head_layout) = self.head.storage_and_layout();
        let head = Mat::new(cpu(&guard, head_layout)?, vocab, dim);
        let tokens: Vec<(usize, u32)> =
            self.questions.iter().flat_map(|q| q.tokens.iter().flatten()).copied().collect();
        let picked: Vec<f32> = tokens.iter().flat_map(|(row, _)| &x[row * dim..(row + 1) * dim]).copied().collect();
        let mut logits = vec![0f32; tokens.len() * vocab];
        matmul(&mut logits, Mat::new(&picked, tokens.len(), dim), head.t(), false, true);
        let sums: Vec<f32> = logits.par_chunks(vocab).map(log_sum_exp).collect();
        // How likely each token is.
        let each = tokens.iter().zip(logits.chunks_exact(vocab)).zip(&sums);
        let mut likely = each.map(|((&(_, token), row), sum)| row[token as usize] - sum);
        let (mut total, mut factors) = (0f64, Vec::with_capacity(tokens.len()));
        let share = 1.0 / self.questions.len().max(1) as f32;
        for question in &self.questions {
            let scores: Vec<f32> =
                question.tokens.iter().map(|choice| likely.by_ref().take(choice.len()).sum()).collect();
            let all = log_sum_exp(&scores);
            total += f64::from(all - scores[question.right]);
            for (i, (score, choice)) in scores.iter().zip(&question.tokens).enumerate() {
                let wanted = if i == question.right { 1.0 } else { 0.0 };
                factors.extend(choice.iter().map(|_| share * (exp(score - all) - wanted)));
            }
        }
        drop(likely);
        // Logits become the gradient by them.
        let rows = logits.par_chunks_mut(vocab).zip(&tokens).zip(sums.par_iter().zip(&factors));
        rows.for_each(|((row, &(_, token)), (sum, factor))| {
            row.iter_mut().for_each(|z| *z = -factor * exp(*z - sum));
            row[token as usize] += factor;
        });
        let mut back = vec![0f32; tokens.len() * dim];
        matmul(&mut back, Mat::new(&logits, tokens.len(), vocab), head, false, true);
        let mut grad = vec![0f32; n * dim];
        for ((row, _), back) in tokens.iter().zip(back.chunks_exact(dim)) {
            grad[row * dim..(row + 1) * dim].iter_mut().zip(back).for_each(|(g, b)| *g += b);
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
