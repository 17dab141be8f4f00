//! Ways to change the weights in a model's bytes.

use concertina_formats::{LayerTensors, Model, TensorInfo};

/// Units that a layer keeps.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// KV groups.
    pub groups: usize,
    /// Neurons of the MLP.
    pub neurons: usize,
}

/// Zero columns `from..` of a tensor of a GGUF file. In every block format a block of zero bytes stands for zeros: scales
/// and minima are zero.
///
/// # Panics
/// If `from` lies inside a block.
pub fn zero_elements(file: &mut [u8], tensor: &TensorInfo, from: usize) {
    let (elements, bytes) = tensor.dtype.block();
    assert!(from.is_multiple_of(elements), "column {from} of {} lies inside a block", tensor.name);
    let row_bytes = tensor.cols / elements * bytes;
    let start = tensor.offset as usize;
    for row in file[start..start + tensor.bytes as usize].chunks_exact_mut(row_bytes) {
        row[from / elements * bytes..].fill(0);
    }
}

/// Zero rows `from..` of a tensor of a GGUF file.
pub fn zero_rows(file: &mut [u8], tensor: &TensorInfo, from: usize) {
    let row_bytes = tensor.bytes as usize / tensor.rows;
    let start = tensor.offset as usize;
    file[start + from * row_bytes..start + tensor.bytes as usize].fill(0);
}

/// Zero what a sub-model does not keep, in the bytes of the GGUF file that `model` was opened from: the columns of O of
/// cut groups and the columns of `down` of cut neurons. What the cut units compute then reaches nothing.
///
/// # Panics
/// If a cut does not fall between two blocks, or there is not one entry a layer.
pub fn cut_units(file: &mut [u8], model: &Model, kept: &[Units]) {
    let spec = &model.spec;
    assert_eq!(kept.len(), model.tensors.layers.len(), "units of every layer");
    let group_cols = spec.n_heads / spec.n_groups * spec.head_dim;
    for (LayerTensors { o, down, .. }, units) in model.tensors.layers.iter().zip(kept) {
        zero_elements(file, o, units.groups * group_cols);
        zero_elements(file, down, units.neurons);
    }
}
