//! `y = x · wᵀ`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::gemm::{Mat, matmul};
use super::values;

/// `x (n, in)` times `w (out, in)` transposed. Where `w` follows from no variable, its gradient is not computed.
struct Linear;

/// `x · wᵀ`. `w` may be a part of a larger matrix whose columns are cut.
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2(w, Linear)
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, inner) = lx.shape().dims2()?;
        let (out, _) = lw.shape().dims2()?;
        let mut y = vec![0f32; n * out];
        matmul(&mut y, Mat::new(values(x, lx)?, n, inner), matrix(w, lw)?.t(), false, true);
        Ok((CpuStorage::F32(y), (n, out).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, inner) = x.dims2()?;
        let (out, _) = w.dims2()?;
        let grad = grad.contiguous()?;
        let (grad_guard, grad_layout) = grad.storage_and_layout();
        let g = Mat::new(cpu(&grad_guard, grad_layout)?, n, out);
        let mut gx = None;
        if x.track_op() {
            let (w_guard, w_layout) = w.storage_and_layout();
            let mut product = vec![0f32; n * inner];
            matmul(&mut product, g, matrix(storage(&w_guard)?, w_layout)?, false, true);
            gx = Some(Tensor::from_vec(product, (n, inner), x.device())?);
        }
        let mut gw = None;
        if w.track_op() {
            let (x_guard, x_layout) = x.storage_and_layout();
            let mut product = vec![0f32; out * inner];
            matmul(&mut product, g.t(), Mat::new(cpu(&x_guard, x_layout)?, n, inner), false, true);
            gw = Some(Tensor::from_vec(product, (out, inner), x.device())?);
        }
        Ok((gx, gw))
    }
}

fn storage(storage: &candle_core::Storage) -> Result<&CpuStorage> {
    match storage {
        candle_core::Storage::Cpu(cpu) => Ok(cpu),
        _ => Err(candle_core::Error::Msg("the trainer runs on the processor".into())),
    }
}

/// The values of a contiguous tensor that lies in ordinary memory.
pub(super) fn cpu<'a>(guard: &'a candle_core::Storage, layout: &Layout) -> Result<&'a [f32]> {
    values(storage(guard)?, layout)
}

/// A matrix whose rows may be parts of longer ones.
fn matrix<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Mat<'a>> {
    let (rows, cols) = layout.shape().dims2()?;
    let stride = layout.stride();
    if stride[1] != 1 && cols > 1 {
        return Err(candle_core::Error::Msg("weights must be row-major".into()));
    }
    Ok(Mat::strided(&storage.as_slice::<f32>()?[layout.start_offset()..], rows, cols, stride[0].max(cols)))
}
