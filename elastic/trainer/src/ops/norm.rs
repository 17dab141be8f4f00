//! RMSNorm with fixed gains.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::linear::cpu;
use super::values;

struct RmsNorm {
    gains: Arc<Vec<f32>>,
    eps: f32,
}

/// `x / rms(x) · gains`, row by row. `gains` have no gradient.
pub fn rms_norm(x: &Tensor, gains: &Arc<Vec<f32>>, eps: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1(RmsNorm { gains: gains.clone(), eps })
}

impl RmsNorm {
    fn factor(&self, row: &[f32]) -> f32 {
        let squares: f32 = row.iter().map(|v| v * v).sum();
        1.0 / (squares / row.len() as f32 + self.eps).sqrt()
    }
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, dim) = layout.shape().dims2()?;
        let x = values(x, layout)?;
        let mut y = vec![0f32; n * dim];
        y.par_chunks_mut(dim).zip(x.par_chunks(dim)).with_min_len(32).for_each(|(y, x)| {
            let factor = self.factor(x);
            for ((y, x), gain) in y.iter_mut().zip(x).zip(self.gains.iter()) {
                *y = x * factor * gain;
            }
        });
        Ok((CpuStorage::F32(y), (n, dim).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n, dim) = x.dims2()?;
        let grad = grad.contiguous()?;
        let ((xs, lx), (gs, lg)) = (x.storage_and_layout(), grad.storage_and_layout());
        let (x_values, g_values) = (cpu(&xs, lx)?, cpu(&gs, lg)?);
        let mut out = vec![0f32; n * dim];
        let rows = x_values.par_chunks(dim).zip(g_values.par_chunks(dim));
        out.par_chunks_mut(dim).zip(rows).with_min_len(32).for_each(|(out, (x, g))| {
            let factor = self.factor(x);
            let dot: f32 = x.iter().zip(g).zip(self.gains.iter()).map(|((x, g), w)| x * g * w).sum();
            let pull = dot * factor * factor / dim as f32;
            for (((out, x), g), w) in out.iter_mut().zip(x).zip(g).zip(self.gains.iter()) {
                *out = factor * (g * w - x * pull);
            }
        });
        Ok(Some(Tensor::from_vec(out, (n, dim), x.device())?))
    }
}
