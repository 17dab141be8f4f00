//! The parts of a head as they are stored.

use super::{EncoderId, malformed};
use crate::Error;

/// Elements of a Q8_0 block.
pub(super) const BLOCK: usize = 32;
/// Bytes of a Q8_0 block: a scale as f16, then 32 signed bytes.
pub(super) const BLOCK_BYTES: usize = 34;

/// A matrix `(rows, cols)` of Q8_0 blocks, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs: a multiple of 32.
    pub cols: usize,
    /// `rows · cols / 32` blocks of 34 bytes.
    pub blocks: Vec<u8>,
}

/// `y = W·x + b` with a quantised matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// `(outputs, inputs)`.
    pub weight: Matrix,
    /// `(outputs)`.
    pub bias: Vec<f32>,
}

/// `y = W·x + b` with a small matrix of plain numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// `(outputs, inputs)`, row by row.
    pub weight: Vec<f32>,
    /// `(outputs)`.
    pub bias: Vec<f32>,
}

/// Gain and shift of a LayerNorm.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// `(dim)`.
    pub weight: Vec<f32>,
    /// `(dim)`.
    pub bias: Vec<f32>,
}

/// One BERT layer: `y = norm(x + o(attention(q(x), k(x), v(x))))`, then `norm(y + down(gelu(up(y))))`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are those of the equations
pub struct Layer {
    pub q: Dense,
    pub k: Dense,
    pub v: Dense,
    pub o: Dense,
    pub attn_norm: Norm,
    pub up: Dense,
    pub down: Dense,
    pub ffn_norm: Norm,
}

/// Names and sizes `(outputs, inputs)` of a layer's matrices.
pub(super) fn matrices(id: &EncoderId) -> [(&'static str, usize, usize); 6] {
    let (dim, ffn) = (id.dim, id.ffn);
    [("q", dim, dim), ("k", dim, dim), ("v", dim, dim), ("o", dim, dim), ("up", ffn, dim), ("down", dim, ffn)]
}

impl Layer {
    /// Matrices in the order of [`matrices`].
    pub(super) fn dense(&self) -> [&Dense; 6] {
        [&self.q, &self.k, &self.v, &self.o, &self.up, &self.down]
    }

    /// Norms with their names.
    pub(super) fn norms(&self) -> [(&'static str, &Norm); 2] {
        [("attn_norm", &self.attn_norm), ("ffn_norm", &self.ffn_norm)]
    }

    /// Whether it is a layer of that encoder.
    pub(super) fn check(&self, head: &str, id: &EncoderId) -> Result<(), Error> {
        for ((name, rows, cols), dense) in matrices(id).into_iter().zip(self.dense()) {
            let field = format!("{head}.layer.{name}");
            let weight = &dense.weight;
            let bytes = rows * (cols / BLOCK) * BLOCK_BYTES;
            if (weight.rows, weight.cols, weight.blocks.len()) != (rows, cols, bytes) {
                let found = format!("({}, {}) in {} bytes", weight.rows, weight.cols, weight.blocks.len());
                return Err(malformed(field, format!("{found}, expected ({rows}, {cols}) in {bytes}")));
            }
            // An f16 whose exponent bits are all set is no number.
            let scale = |block: &[u8]| u16::from_le_bytes([block[0], block[1]]);
            if weight.blocks.chunks_exact(BLOCK_BYTES).any(|block| scale(block) & 0x7c00 == 0x7c00) {
                return Err(malformed(field, "a block's scale is no number"));
            }
            numbers(&format!("{field}.bias"), &dense.bias, rows)?;
        }
        for (name, norm) in self.norms() {
            numbers(&format!("{head}.layer.{name}.weight"), &norm.weight, id.dim)?;
            numbers(&format!("{head}.layer.{name}.bias"), &norm.bias, id.dim)?;
        }
        Ok(())
    }
}

impl Linear {
    /// Whether it reads rows of `dim` and puts out `rows` numbers.
    pub(super) fn check(&self, name: &str, rows: usize, dim: usize) -> Result<(), Error> {
        numbers(&format!("{name}.weight"), &self.weight, rows * dim)?;
        numbers(&format!("{name}.bias"), &self.bias, rows)
    }
}

/// As many numbers as expected, each of them finite.
pub(super) fn numbers(field: &str, values: &[f32], expected: usize) -> Result<(), Error> {
    if values.len() != expected {
        return Err(malformed(field, format!("{} numbers, expected {expected}", values.len())));
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(malformed(field, "a value is no number"));
    }
    Ok(())
}
