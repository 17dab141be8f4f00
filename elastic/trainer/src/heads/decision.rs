//! The decision head: a prompt level and a model level for a target.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use concertina_elastic::heads::{DecisionHead, Linear};

use super::encoded::{BOTTOM, Encoded};
use super::grid::{Grid, MEASURED_MODEL, MEASURED_PROMPT, Outcome, PROMPT_LEVELS, TPOT_TARGETS, TTFT_TARGETS};
use super::score::{readout, restored_linear, stored_linear, variables};
use crate::levels::LEVELS;
use crate::minilm::{Dense, Layer, MiniLm};
use crate::ops::to_vec;
use crate::optimise::{Optimiser, schedule};
use crate::random::Random;

/// The head. Its logits are those of the levels that were measured.
#[derive(Debug, Clone)]
pub struct Decider {
    layer: Layer,
    prompt: Dense,
    model: Dense,
    /// `(TTFT targets, dim)`.
    ttft: Tensor,
    /// `(TPOT targets, dim)`.
    tpot: Tensor,
    heads: usize,
}

/// What the head should pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The lightest feasible pair that is right (ElastiLM).
    Lightest,
    /// Any feasible pair that is right.
    Right,
}

impl Goal {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Goal::Lightest => "lightest",
            Goal::Right => "right",
        }
    }
}

/// How it is trained.
#[derive(Debug, Clone, Copy)]
pub struct DecisionTraining {
    /// What it should pick.
    pub goal: Goal,
    /// Steps in all.
    pub steps: usize,
    /// Questions of a step, each with one target.
    pub batch: usize,
    /// Size of a step, relative to the root mean square of the numbers it changes.
    pub rate: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for DecisionTraining {
    fn default() -> Self {
        Self { goal: Goal::Right, steps: 80, batch: 12, rate: 0.003, seed: 1 }
    }
}

/// Steps between checkpoints.
const KEEP: usize = 40;

impl Decider {
    /// Not trained yet: MiniLM's next layer, random readouts, and rows of the targets that are orthogonal to each other.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn fresh(minilm: &MiniLm, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        // As long as the rows that the bottom's last norm puts out.
        let gain = to_vec(&minilm.layers[BOTTOM - 1].ffn_norm.weight)?;
        let length = gain.iter().map(|g| g * g).sum::<f32>().sqrt();
        let rows = orthogonal(TTFT_TARGETS.len() + TPOT_TARGETS.len(), minilm.dim, length, &mut random);
        let rows = Tensor::from_vec(rows, (TTFT_TARGETS.len() + TPOT_TARGETS.len(), minilm.dim), &Device::Cpu)?;
        Ok(Self {
            layer: minilm.layers[BOTTOM].clone(),
            prompt: readout(MEASURED_PROMPT.len(), minilm.dim, &mut random)?,
            model: readout(MEASURED_MODEL.len(), minilm.dim, &mut random)?,
            ttft: rows.narrow(0, 0, TTFT_TARGETS.len())?.contiguous()?,
            tpot: rows.narrow(0, TTFT_TARGETS.len(), TPOT_TARGETS.len())?.contiguous()?,
            heads: minilm.heads,
        })
    }

    /// Logits of the pairs that were measured, in the grid's order, for a target. Of a text of several windows, the mean.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn logits(&self, encoded: &Encoded, (ttft, tpot): (usize, usize)) -> Result<Tensor> {
        let mut sum = None::<Tensor>;
        for rows in &encoded.windows {
            let x = Tensor::cat(&[&self.ttft.narrow(0, ttft, 1)?, &self.tpot.narrow(0, tpot, 1)?, rows], 0)?;
            let first = self.layer.forward(&x, self.heads)?.narrow(0, 0, 1)?;
            let (prompt, model) = (self.prompt.apply(&first)?, self.model.apply(&first)?);
            let pairs = prompt.transpose(0, 1)?.broadcast_add(&model)?.flatten_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + pairs)?,
                None => pairs,
            });
        }
        let sum = sum.ok_or_else(|| anyhow::anyhow!("a text without windows"))?;
        Ok((sum / encoded.windows.len() as f64)?)
    }

    /// The feasible pair that it picks.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn picks(&self, encoded: &Encoded, target: (usize, usize), feasible: &[usize]) -> Result<Option<usize>> {
        let logits = self.logits(encoded, target)?.to_vec1::<f32>()?;
        Ok(feasible.iter().copied().max_by(|a, b| logits[*a].total_cmp(&logits[*b])))
    }

    /// As stored. Levels that were not measured lie half-way between their neighbours.
    ///
    /// # Errors
    /// As [`Layer::stored`].
    pub fn stored(&self) -> Result<DecisionHead> {
        let prompts = MEASURED_PROMPT.map(|i| PROMPT_LEVELS[i]);
        Ok(DecisionHead {
            layer: self.layer.stored()?,
            prompt: spread(&stored_linear(&self.prompt)?, &prompts, &PROMPT_LEVELS),
            model: spread(&stored_linear(&self.model)?, &MEASURED_MODEL, &LEVELS),
            ttft: to_vec(&self.ttft)?,
            tpot: to_vec(&self.tpot)?,
        })
    }

    /// As it acts when it is read, at the levels that were measured.
    ///
    /// # Errors
    /// As [`Layer::restored`].
    pub fn restored(stored: &DecisionHead, heads: usize) -> Result<Self> {
        let prompts = MEASURED_PROMPT.map(|i| PROMPT_LEVELS[i]);
        let rows = |values: &[f32], n: usize| Tensor::from_slice(values, (n, values.len() / n), &Device::Cpu);
        Ok(Self {
            layer: Layer::restored(&stored.layer)?,
            prompt: restored_linear(&picked(&stored.prompt, &prompts, &PROMPT_LEVELS))?,
            model: restored_linear(&picked(&stored.model, &MEASURED_MODEL, &LEVELS))?,
            ttft: rows(&stored.ttft, TTFT_TARGETS.len())?,
            tpot: rows(&stored.tpot, TPOT_TARGETS.len())?,
            heads,
        })
    }

    /// Train; how it stands is kept in `kept`, and taken up from there. `progress` hears of steps done, the loss of late,
    /// and the head as it is. Returns the seconds that it took.
    ///
    /// # Errors
    /// Where candle refuses, or the checkpoint cannot be read or written.
    pub fn train(
        &mut self,
        grid: &Grid,
        lessons: &[(&Encoded, &Outcome)],
        training: DecisionTraining,
        kept: &Path,
        progress: &mut dyn FnMut(usize, f32, &Decider) -> Result<()>,
    ) -> Result<f32> {
        let (layer, mut vars) = self.layer.trainable()?;
        let (prompt, more) = variables(&self.prompt)?;
        vars.extend(more);
        let (model, more) = variables(&self.model)?;
        vars.extend(more);
        let (ttft, tpot) = (Var::from_tensor(&self.ttft)?, Var::from_tensor(&self.tpot)?);
        // Its tensors are the variables: they change with every step.
        *self = Self {
            layer,
            prompt,
            model,
            ttft: ttft.as_tensor().clone(),
            tpot: tpot.as_tensor().clone(),
            heads: self.heads,
        };
        vars.extend([ttft, tpot]);
        let mut optimiser = Optimiser::new(vars);
        if kept.is_file() {
            optimiser.load(kept)?;
        }
        let targets: Vec<(usize, usize)> = Grid::targets().collect();
        let mut late = None::<f32>;
        let mut begun = Instant::now();
        while optimiser.step < training.steps {
            let mut random = Random::new(training.seed.wrapping_mul(1_000_003).wrapping_add(optimiser.step as u64));
            let mut losses = Vec::new();
            // Some draws teach nothing: no feasible pair is right, or all are.
            for _ in 0..100 * training.batch {
                let (encoded, outcome) = lessons[random.below(lessons.len())];
                let target = targets[random.below(targets.len())];
                losses.extend(self.loss(grid, encoded, outcome, target, training.goal)?);
                if losses.len() == training.batch {
                    break;
                }
            }
            if losses.is_empty() {
                anyhow::bail!("no question has a right answer at one pair and a wrong one at another");
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

    /// Minus the logarithm of the probability, among feasible pairs, of what it should pick; none where nothing is to be
    /// learned.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn loss(
        &self,
        grid: &Grid,
        encoded: &Encoded,
        outcome: &Outcome,
        target: (usize, usize),
        goal: Goal,
    ) -> Result<Option<Tensor>> {
        let feasible = grid.feasible(TTFT_TARGETS[target.0], TPOT_TARGETS[target.1]);
        let right = || feasible.iter().copied().filter(|i| outcome.right[*i]);
        let wanted: Vec<usize> = match goal {
            Goal::Lightest => grid.lightest(right()).into_iter().collect(),
            Goal::Right => right().collect(),
        };
        if wanted.is_empty() || wanted.len() == feasible.len() {
            return Ok(None);
        }
        let logits = self.logits(encoded, target)?;
        let sum = |of: &[usize]| -> Result<Tensor> {
            let ids: Vec<u32> = of.iter().map(|i| *i as u32).collect();
            let picked = logits.index_select(&Tensor::from_vec(ids, of.len(), &Device::Cpu)?, 0)?;
            let top = picked.max_keepdim(0)?.detach();
            Ok((picked.broadcast_sub(&top)?.exp()?.sum_all()?.log()? + top.squeeze(0)?)?)
        };
        Ok(Some((sum(&feasible)? - sum(&wanted)?)?))
    }
}

/// `n` rows of a length, orthogonal to each other, by Gram and Schmidt from random ones.
fn orthogonal(n: usize, dim: usize, length: f32, random: &mut Random) -> Vec<f32> {
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for _ in 0..n {
        let mut row: Vec<f32> = (0..dim).map(|_| random.unit() as f32 - 0.5).collect();
        for other in &rows {
            let along = dot(&row, other);
            row.iter_mut().zip(other).for_each(|(r, o)| *r -= along * o);
        }
        let norm = dot(&row, &row).sqrt();
        row.iter_mut().for_each(|r| *r /= norm);
        rows.push(row);
    }
    rows.concat().into_iter().map(|r| r * length).collect()
}

/// Rows of `from` at the levels `to`: where there is none, half-way between its neighbours.
fn spread(linear: &Linear, from: &[u32], to: &[u32]) -> Linear {
    let dim = linear.weight.len() / linear.bias.len().max(1);
    let row = |i: usize| linear.weight[i * dim..(i + 1) * dim].iter().copied().chain([linear.bias[i]]);
    let mut out = Linear { weight: Vec::new(), bias: Vec::new() };
    for level in to {
        // Places of the neighbours, which are one and the same where the level was measured.
        let above = from.iter().position(|l| l >= level).unwrap_or(from.len() - 1);
        let below = from.iter().rposition(|l| l <= level).unwrap_or(0);
        let mut mean: Vec<f32> = row(below).zip(row(above)).map(|(a, b)| (a + b) / 2.0).collect();
        out.bias.extend(mean.pop());
        out.weight.extend(mean);
    }
    out
}

/// Rows of `linear`, which are of the levels `from`, at the levels `of`.
fn picked(linear: &Linear, of: &[u32], from: &[u32]) -> Linear {
    let dim = linear.weight.len() / linear.bias.len().max(1);
    let places: Vec<usize> = of.iter().filter_map(|level| from.iter().position(|l| l == level)).collect();
    Linear {
        weight: places.iter().flat_map(|i| &linear.weight[i * dim..(i + 1) * dim]).copied().collect(),
        bias: places.iter().map(|i| linear.bias[*i]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_were_not_measured_lie_between() {
        let linear = Linear { weight: vec![0.0, 1.0, 4.0, 3.0], bias: vec![1.0, 2.0] };
        let all = spread(&linear, &[20, 40], &[20, 30, 40, 50]);
        assert_eq!(all.weight, [0.0, 1.0, 2.0, 2.0, 4.0, 3.0, 4.0, 3.0]);
        assert_eq!(all.bias, [1.0, 1.5, 2.0, 2.0]);
        assert_eq!(picked(&all, &[20, 40], &[20, 30, 40, 50]), linear);
    }

    #[test]
    fn rows_are_orthogonal() {
        let rows = orthogonal(5, 16, 2.0, &mut Random::new(1));
        for i in 0..5 {
            for j in 0..5 {
                let dot: f32 = (0..16).map(|d| rows[i * 16 + d] * rows[j * 16 + d]).sum();
                assert!((dot - if i == j { 4.0 } else { 0.0 }).abs() < 1e-4, "{i}, {j}: {dot}");
            }
        }
    }
}
