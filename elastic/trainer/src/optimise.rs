//! Adam, its schedule, and checkpoints of what is trained.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use crate::file;
use crate::ops::to_vec;

/// Adam's decay of the mean gradient and of its square.
const BETAS: (f32, f32) = (0.9, 0.98);

/// Variables being trained.
pub struct Optimiser {
    vars: Vec<Var>,
    /// Mean gradient and mean square of each variable.
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    /// Steps done.
    pub step: usize,
    /// Seconds that it took so far.
    pub seconds: f32,
}

impl Optimiser {
    /// At the first step.
    pub fn new(vars: Vec<Var>) -> Self {
        let zeros = |var: &Var| (vec![0f32; var.elem_count()], vec![0f32; var.elem_count()]);
        Self { moments: vars.iter().map(zeros).collect(), vars, step: 0, seconds: 0.0 }
    }

    /// One step of those that have a gradient. Its size is `rate` times each variable's root mean square.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn step(&mut self, grads: &GradStore, rate: f32) -> Result<()> {
        self.step += 1;
        for (var, moments) in self.vars.iter().zip(&mut self.moments) {
            if let Some(gradient) = grads.get(var.as_tensor()) {
                adam(var, &to_vec(gradient)?, moments, rate, self.step)?;
            }
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
        for (i, (var, (mean, square))) in self.vars.iter().zip(&self.moments).enumerate() {
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

    /// Take up what [`Optimiser::save`] wrote, of variables of the same shapes.
    ///
    /// # Errors
    /// If it cannot be read, or is of others.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.read(path).with_context(|| format!("cannot go on from {}: remove it to begin again", path.display()))
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let get = |name: String| tensors.get(&name).with_context(|| format!("'{name}' is missing"));
        for (i, (var, moments)) in self.vars.iter().zip(&mut self.moments).enumerate() {
            var.set(get(format!("{i}.value"))?)?;
            *moments = (to_vec(get(format!("{i}.mean"))?)?, to_vec(get(format!("{i}.square"))?)?);
            ensure!(moments.0.len() == var.elem_count() && moments.1.len() == var.elem_count(), "sizes differ");
        }
        let step = get("step".into())?.to_vec1::<u32>()?;
        let seconds = get("seconds".into()).ok().and_then(|t| t.to_vec1::<f32>().ok());
        self.seconds = seconds.and_then(|s| s.first().copied()).unwrap_or(0.0);
        self.step = step.first().copied().unwrap_or(0) as usize;
        Ok(())
    }
}

/// Rises over the first tenth, falls to a fiftieth as a cosine.
pub fn schedule(step: usize, steps: usize) -> f32 {
    let (step, steps) = (step as f32, steps.max(1) as f32);
    let rise = (step / (0.1 * steps)).min(1.0);
    rise * (0.02 + 0.49 * (1.0 + (std::f32::consts::PI * (step / steps).min(1.0)).cos()))
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
