//! The operations of the forward pass with their gradients, as custom operations of candle.
//!
//! candle's own graph would differentiate frozen weights too, and run each step of an attention as a pass over memory on
//! one thread. These do what is needed in one go.

pub mod attention;
pub mod choices;
pub mod exp;
pub mod gemm;
pub mod glu;
pub mod head;
pub mod linear;
pub mod norm;
pub mod tree;

use candle_core::{CpuStorage, Layout, Result};

/// The values of a contiguous f32 tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => Err(candle_core::Error::Msg("an operation was given a tensor that is not contiguous".into())),
    }
}

/// The values of a tensor, row-major.
pub(crate) fn to_vec(tensor: &candle_core::Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1::<f32>()
}
