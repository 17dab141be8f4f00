//! Training adapters by distillation from the whole model.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor, Var};
use concertina_elastic::LayerUnits;

use crate::file;
use crate::net::{Adapters, Net, Pass};
use crate::ops::head::{Mix, Target, loss};
use crate::ops::to_vec;
use crate::random::Random;
use crate::teacher::Lesson;

/// How adapters are trained.
#[derive(Debug, Clone, Copy)]
pub struct Training {
    /// Steps in all, each of one lesson.
    pub steps: usize,
    /// Size of a step, relative to the root mean square of the numbers it changes.
    pub rate: f32,
    /// Shares of the divergence from the whole model and of the surprise at the text.
    pub mix: Mix,
    /// Share of the rows whose predictions are compared in a step.
    pub rows: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self { steps: 80, rate: 0.02, mix: Mix { kl: 0.7, ce: 0.3 }, rows: 0.5, seed: 1 }
    }
}

/// Steps between checkpoints.
const KEEP: usize = 10;
/// Adam's decay of the mean gradient and of its square.
const BETAS: (f32, f32) = (0.9, 0.98);

/// The adapters of one level on their way.
pub struct Trainee {
    adapters: Adapters,
    /// Mean gradient and mean square of each variable.
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    /// Steps done.
    pub step: usize,
    /// Seconds that fitting and training took.
    pub seconds: f32,
}

impl Trainee {
    /// From fitted adapters.
    pub fn new(adapters: Adapters) -> Self {
        let zeros = |var: &Var| (vec![0f32; var.elem_count()], vec![0f32; var.elem_count()]);
        let moments = adapters.vars().iter().map(zeros).collect();
        Self { adapters, moments, step: 0, seconds: 0.0 }
    }

    /// The adapters as they are now.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// Train until `training.steps` steps are done. How it stands is written to `kept` every few steps. `progress` hears
    /// of steps done, in all, and the loss of late.
    ///
    /// # Errors
    /// Where candle refuses, or the checkpoint cannot be written.
    pub fn train(
        &mut self,
        net: &Net,
        units: &[LayerUnits],
        lessons: &[Lesson],
        training: Training,
        kept: &Path,
        progress: &mut dyn FnMut(usize, usize, f32),
    ) -> Result<()> {
        let mut late = None::<f32>;
        let mut begun = Instant::now();
        while self.step < training.steps {
            let mut random = Random::new(training.seed.wrapping_mul(1_000_003).wrapping_add(self.step as u64));
            let lesson = &lessons[(self.step + random.below(lessons.len())) % lessons.len()];
            let rows = rows(lesson, training.rows, &mut random);
            let pass = Pass::new(net, units, Some(&self.adapters))?;
            let hidden = pass.hidden(&lesson.batch)?;
            let loss = loss(&hidden, &net.head, rows, training.mix)?;
            let grads = loss.backward()?;
            let value = loss.to_scalar::<f32>()?;
            late = Some(late.map_or(value, |late| 0.9 * late + 0.1 * value));
            self.step += 1;
            let rate = training.rate * schedule(self.step, training.steps);
            for (var, moments) in self.adapters.vars().iter().zip(&mut self.moments) {
                if let Some(gradient) = grads.get(var.as_tensor()) {
                    adam(var, &to_vec(gradient)?, moments, rate, self.step)?;
                }
            }
            self.seconds += begun.elapsed().as_secs_f32();
            begun = Instant::now();
            if self.step.is_multiple_of(KEEP) || self.step == training.steps {
                self.save(kept)?;
            }
            progress(self.step, training.steps, late.unwrap_or(value));
        }
        Ok(())
    }

    /// Write all that training goes on from.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = HashMap::new();
        let vector = |v: &[f32]| Tensor::from_slice(v, v.len(), &Device::Cpu);
        for (i, (var, (mean, square))) in self.adapters.vars().iter().zip(&self.moments).enumerate() {
            tensors.insert(format!("{i}.value"), var.as_tensor().clone());
            tensors.insert(format!("{i}.mean"), vector(mean)?);
            tensors.insert(format!("{i}.square"), vector(square)?);
        }
        tensors.insert("step".into(), Tensor::from_slice(&[self.step as u32], 1, &Device::Cpu)?);
        tensors.insert("seconds".into(), vector(&[self.seconds])?);
        let temporary = path.with_extension("part");
        candle_core::safetensors::save(&tensors, &temporary)?;
        file::write_whole(path, &std::fs::read(&temporary)?)?;
        std::fs::remove_file(&temporary)?;
        Ok(())
    }

    /// Take up what [`Trainee::save`] wrote, of adapters of the same shapes.
    ///
    /// # Errors
    /// If it cannot be read, or is of others.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.read(path).with_context(|| format!("cannot go on from {}: remove it to begin again", path.display()))
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let get = |name: String| tensors.get(&name).with_context(|| format!("'{name}' is missing"));
        for (i, (var, moments)) in self.adapters.vars().iter().zip(&mut self.moments).enumerate() {
            var.set(get(format!("{i}.value"))?)?;
            *moments = (to_vec(get(format!("{i}.mean"))?)?, to_vec(get(format!("{i}.square"))?)?);
            anyhow::ensure!(moments.0.len() == var.elem_count() && moments.1.len() == var.elem_count(), "sizes differ");
        }
        let step = get("step".into())?.to_vec1::<u32>()?;
        let seconds = get("seconds".into()).ok().and_then(|t| t.to_vec1::<f32>().ok());
        self.seconds = seconds.and_then(|s| s.first().copied()).unwrap_or(0.0);
        self.step = step.first().copied().unwrap_or(0) as usize;
        Ok(())
    }
}

/// Rises over the first tenth, falls to a tenth as a cosine.
fn schedule(step: usize, steps: usize) -> f32 {
    let (step, steps) = (step as f32, steps.max(1) as f32);
    let rise = (step / (0.1 * steps)).min(1.0);
    rise * (0.1 + 0.45 * (1.0 + (std::f32::consts::PI * (step / steps).min(1.0)).cos()))
}

/// Some of the rows that have a next token.
fn rows(lesson: &Lesson, share: f64, random: &mut Random) -> Vec<(usize, Target)> {
    let tokens = lesson.batch.tokens;
    let known = lesson.targets.iter().enumerate().filter(|(i, _)| (i + 1) % tokens != 0);
    known.filter(|_| random.unit() < share).map(|(i, target)| (i, target.clone())).collect()
}

/// A step of Adam whose size is relative to the variable's root mean square.
fn adam(var: &Var, gradient: &[f32], moments: &mut (Vec<f32>, Vec<f32>), rate: f32, step: usize) -> Result<()> {
    let mut values = to_vec(var.as_tensor())?;
    let size = (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt().max(1e-6);
    let warm = |beta: f32| 1.0 - beta.powi(step as i32);
    let (warm_mean, warm_square) = (warm(BETAS.0), warm(BETAS.1));
    let (means, squares) = moments;
    for (((v, g), m), s) in values.iter_mut().zip(gradient).zip(means.iter_mut()).zip(squares.iter_mut()) {
        *m = BETAS.0 * *m + (1.0 - BETAS.0) * g;
        *s = BETAS.1 * *s + (1.0 - BETAS.1) * g * g;
        *v -= rate * size * (*m / warm_mean) / ((*s / warm_square).sqrt() + 1e-12);
    }
    var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
    Ok(())
}
