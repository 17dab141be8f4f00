//! The score head: which words to keep.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use concertina_elastic::heads::{Linear, ScoreHead};

use super::encoded::{BOTTOM, Encoded};
use super::labels::Labels;
use super::prompts::Prompt;
use crate::minilm::{Dense, Layer, MiniLm};
use crate::ops::to_vec;
use crate::optimise::{Optimiser, schedule};
use crate::random::Random;

/// The head.
#[derive(Debug, Clone)]
pub struct Scorer {
    layer: Layer,
    out: Dense,
    heads: usize,
}

/// How it is trained.
#[derive(Debug, Clone, Copy)]
pub struct ScoreTraining {
    /// Steps in all.
    pub steps: usize,
    /// Prompts of a step.
    pub batch: usize,
    /// Size of a step, relative to the root mean square of the numbers it changes.
    pub rate: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl ScoreTraining {
    /// Three times through so many prompts: after that, prompts that were not trained on are ranked no better.
    pub fn for_prompts(prompts: usize) -> Self {
        let batch = 4;
        Self { steps: (3 * prompts).div_ceil(batch), batch, rate: 0.004, seed: 1 }
    }
}

/// Steps between checkpoints.
const KEEP: usize = 40;

/// A small random matrix `(rows, dim)` without bias: what reads a head's rows, before it is trained.
pub(super) fn readout(rows: usize, dim: usize, random: &mut Random) -> Result<Dense> {
    let values: Vec<f32> = (0..rows * dim).map(|_| (random.unit() as f32 - 0.5) * 0.04).collect();
    let weight = Tensor::from_vec(values, (rows, dim), &Device::Cpu)?;
    Ok(Dense { weight, bias: Tensor::zeros(rows, candle_core::DType::F32, &Device::Cpu)? })
}

/// The same as variables.
pub(super) fn variables(dense: &Dense) -> Result<(Dense, [Var; 2])> {
    let (weight, bias) = (Var::from_tensor(&dense.weight)?, Var::from_tensor(&dense.bias)?);
    Ok((Dense { weight: weight.as_tensor().clone(), bias: bias.as_tensor().clone() }, [weight, bias]))
}

pub(super) fn stored_linear(dense: &Dense) -> Result<Linear> {
    Ok(Linear { weight: to_vec(&dense.weight)?, bias: to_vec(&dense.bias)? })
}

pub(super) fn restored_linear(stored: &Linear) -> Result<Dense> {
    let (n, rows) = (stored.weight.len(), stored.bias.len());
    let weight = Tensor::from_slice(&stored.weight, (rows, n / rows.max(1)), &Device::Cpu)?;
    Ok(Dense { weight, bias: Tensor::from_slice(&stored.bias, rows, &Device::Cpu)? })
}

impl Scorer {
    /// Not trained yet: MiniLM's next layer, and a random readout.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn fresh(minilm: &MiniLm, seed: u64) -> Result<Self> {
        let out = readout(1, minilm.dim, &mut Random::new(seed))?;
        Ok(Self { layer: minilm.layers[BOTTOM].clone(), out, heads: minilm.heads })
    }

    /// `(words)`: scores of a prompt's words.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn scores(&self, encoded: &Encoded) -> Result<Tensor> {
        let logits = |rows: &Tensor| -> Result<Tensor> {
            let pieces = rows.dims2()?.0;
            Ok(self.out.apply(&self.layer.forward(rows, self.heads)?)?.narrow(0, 1, pieces - 2)?)
        };
        let logits: Vec<Tensor> = encoded.windows.iter().map(logits).collect::<Result<_>>()?;
        Ok(encoded.means.matmul(&Tensor::cat(&logits, 0)?)?.squeeze(1)?)
    }

    /// Scores to choose words by. Of a word without pieces nothing is known: it goes first.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn ranking(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        let mut scores = self.scores(encoded)?.to_vec1::<f32>()?;
        encoded.bare.iter().for_each(|i| scores[*i] = f32::NEG_INFINITY);
        Ok(scores)
    }

    /// As stored.
    ///
    /// # Errors
    /// As [`Layer::stored`].
    pub fn stored(&self) -> Result<ScoreHead> {
        Ok(ScoreHead { layer: self.layer.stored()?, out: stored_linear(&self.out)? })
    }

    /// As it acts when it is read.
    ///
    /// # Errors
    /// As [`Layer::restored`].
    pub fn restored(stored: &ScoreHead, heads: usize) -> Result<Self> {
        Ok(Self { layer: Layer::restored(&stored.layer)?, out: restored_linear(&stored.out)?, heads })
    }

    /// Train on labelled prompts; how it stands is kept in `kept`, and taken up from there. `progress` hears of steps done,
    /// the loss of late, and the head as it is. Returns the seconds that it took.
    ///
    /// # Errors
    /// Where candle refuses, or the checkpoint cannot be read or written.
    pub fn train(
        &mut self,
        lessons: &[Lesson],
        training: ScoreTraining,
        kept: &Path,
        progress: &mut dyn FnMut(usize, f32, &Scorer) -> Result<()>,
    ) -> Result<f32> {
        let (layer, mut vars) = self.layer.trainable()?;
        let (out, more) = variables(&self.out)?;
        vars.extend(more);
        let mut optimiser = Optimiser::new(vars);
        if kept.is_file() {
            optimiser.load(kept)?;
        }
        // Its tensors are the variables: they change with every step.
        *self = Self { layer, out, heads: self.heads };
        let mut late = None::<f32>;
        let mut begun = Instant::now();
        while optimiser.step < training.steps {
            let mut losses = Vec::new();
            for i in 0..training.batch {
                losses.push(lesson_of(lessons, training.seed, optimiser.step * training.batch + i).loss(self)?);
            }
            let loss = Tensor::stack(&losses, 0)?.mean_all()?;
            let value = loss.to_scalar::<f32>()?;
            late = Some(late.map_or(value, |late| 0.95 * late + 0.05 * value));
            let rate = training.rate * schedule(optimiser.step + 1, training.steps);
            optimiser.step(&loss.backward()?, rate)?;
            optimiser.seconds += begun.elapsed().as_secs_f32();
            begun = Instant::now();
            if optimiser.step.is_multiple_of(KEEP) || optimiser.step == training.steps {
                optimiser.save(kept)?;
            }
            progress(optimiser.step, late.unwrap_or(value), self)?;
        }
        Ok(optimiser.seconds)
    }
}

/// The `i`th lesson: all of them in a new order each time round.
fn lesson_of(lessons: &[Lesson], seed: u64, i: usize) -> &Lesson {
    let mut order: Vec<usize> = (0..lessons.len()).collect();
    Random::new(seed.wrapping_mul(1_000_003).wrapping_add((i / lessons.len()) as u64)).shuffle(&mut order);
    &lessons[order[i % lessons.len()]]
}

/// A prompt and which of its words should outrank which.
#[derive(Debug, Clone)]
pub struct Lesson {
    encoded: Encoded,
    /// `(m)`: words that may be dropped.
    words: Tensor,
    /// `(m, m)`: how much word i should outrank word j; they sum to 1.
    weights: Tensor,
}

/// A difference of effects counts up to this many standard deviations: a few words would outweigh all others.
const MOST: f32 = 2.0;

impl Lesson {
    /// None where no word is worth more than another.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn new(encoded: &Encoded, prompt: &Prompt, labels: &Labels) -> Result<Option<Self>> {
        let words: Vec<usize> = (0..prompt.words.len()).filter(|i| !prompt.keep[*i]).collect();
        let effects: Vec<f32> = words.iter().map(|i| labels.effect[*i]).collect();
        let m = effects.len();
        let mean = effects.iter().sum::<f32>() / m.max(1) as f32;
        let deviation = (effects.iter().map(|e| (e - mean).powi(2)).sum::<f32>() / m.max(1) as f32).sqrt();
        if m < 2 || deviation < 1e-6 {
            return Ok(None);
        }
        let weight = |i: usize, j: usize| ((effects[i] - effects[j]) / deviation).clamp(0.0, MOST);
        let weights: Vec<f32> = (0..m * m).map(|at| weight(at / m, at % m)).collect();
        let sum: f32 = weights.iter().sum();
        let weights = Tensor::from_vec(weights, (m, m), &Device::Cpu)?;
        let words = Tensor::from_vec(words.iter().map(|i| *i as u32).collect::<Vec<u32>>(), m, &Device::Cpu)?;
        Ok(Some(Self { encoded: encoded.clone(), words, weights: (weights / f64::from(sum))? }))
    }

    /// The weighted mean over pairs of `ln(1 + exp(s_j − s_i))` (RankNet, Burges et al. 2005): 0.69 where scores say
    /// nothing.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn loss(&self, scorer: &Scorer) -> Result<Tensor> {
        let scores = scorer.scores(&self.encoded)?.index_select(&self.words, 0)?;
        let behind = scores.unsqueeze(0)?.broadcast_sub(&scores.unsqueeze(1)?)?;
        // ln(1 + exp(x)) without overflow.
        let soft = (behind.relu()? + (behind.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
        Ok((soft * &self.weights)?.sum_all()?)
    }
}
