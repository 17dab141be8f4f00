//! The gated MLP's middle: `silu(gate) · up`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::exp::exp;
use super::linear::cpu;
use super::values;

/// Elements that a thread takes at a time.
const PIECE: usize = 4096;

struct SwiGlu;

/// `silu(gate) · up`, element by element.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2(up, SwiGlu)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, up: &CpuStorage, lu: &Layout) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (values(gate, lg)?, values(up, lu)?);
        let mut out = vec![0f32; gate.len()];
        let inputs = gate.par_chunks(PIECE).zip(up.par_chunks(PIECE));
        out.par_chunks_mut(PIECE).zip(inputs).for_each(|(out, (gate, up))| {
            for ((out, g), u) in out.iter_mut().zip(gate).zip(up) {
                *out = g * sigmoid(*g) * u;
            }
        });
        Ok((CpuStorage::F32(out), lg.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (gs, lg) = gate.storage_and_layout();
        let (us, lu) = up.storage_and_layout();
        let (ds, ld) = grad.storage_and_layout();
        let (g, u, d) = (cpu(&gs, lg)?, cpu(&us, lu)?, cpu(&ds, ld)?);
        let (mut dg, mut du) = (vec![0f32; g.len()], vec![0f32; g.len()]);
        let inputs = g.par_chunks(PIECE).zip(u.par_chunks(PIECE)).zip(d.par_chunks(PIECE));
        let outputs = dg.par_chunks_mut(PIECE).zip(du.par_chunks_mut(PIECE));
        outputs.zip(inputs).for_each(|((dg, du), ((g, u), d))| {
            for i in 0..dg.len() {
                let s = sigmoid(g[i]);
                du[i] = d[i] * g[i] * s;
                dg[i] = d[i] * u[i] * s * (1.0 + g[i] * (1.0 - s));
            }
        });
        let tensor = |v: Vec<f32>| Tensor::from_vec(v, gate.shape(), gate.device());
        Ok((Some(tensor(dg)?), Some(tensor(du)?)))
    }
}
