//! What the bottom begins with, on the host: for each piece the norm of the sum of three rows. That is little work, and the
//! table of words stays in the file: of its rows only those that are asked for are read.

use concertina_formats::{Bert, TensorInfo, dequant::dequantize_row};

use crate::{Error, Result};

/// What is kept of the embeddings.
pub(crate) struct Embedding {
    /// Of each position, with that of the only type of text: `(positions, dim)`.
    positions: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

/// Row `row` of a tensor, as f32.
pub(super) fn row(bert: &Bert, tensor: &TensorInfo, row: usize) -> Result<Vec<f32>> {
    let bytes = tensor.bytes / tensor.rows as u64;
    let mut stored = vec![0u8; bytes as usize];
    bert.source.read_at(tensor.offset + row as u64 * bytes, &mut stored).map_err(|e| Error::Format(e.into()))?;
    let mut values = vec![0f32; tensor.cols];
    dequantize_row(tensor.dtype, &stored, &mut values)?;
    Ok(values)
}

impl Embedding {
    pub fn load(bert: &Bert) -> Result<Self> {
        let of_type = row(bert, &bert.types, 0)?;
        let mut positions = Vec::with_capacity(bert.positions.rows * bert.positions.cols);
        for position in 0..bert.positions.rows {
            let of_position = row(bert, &bert.positions, position)?;
            positions.extend(of_position.iter().zip(&of_type).map(|(a, b)| a + b));
        }
        let (weight, bias) = (row(bert, &bert.norm.weight, 0)?, row(bert, &bert.norm.bias, 0)?);
        Ok(Self { positions, weight, bias, eps: f64::from(bert.spec.eps) })
    }

    /// Rows of the pieces `ids`, the first at position 0: `(ids, dim)`.
    ///
    /// # Errors
    /// For ids outside the vocabulary, more of them than positions, or a file that cannot be read.
    pub fn rows(&self, bert: &Bert, ids: &[u32]) -> Result<Vec<f32>> {
        let dim = bert.spec.dim;
        let (vocab, positions) = (bert.spec.vocab, bert.spec.positions);
        if ids.len() > positions || ids.iter().any(|id| *id as usize >= vocab) {
            return Err(Error::Invalid(format!(
                "{} pieces of a vocabulary of {vocab} at {positions} positions",
                ids.len()
            )));
        }
        let mut rows = Vec::with_capacity(ids.len() * dim);
        for (id, position) in ids.iter().zip(self.positions.chunks_exact(dim)) {
            let word = row(bert, &bert.words, *id as usize)?;
            let sum: Vec<f64> = word.iter().zip(position).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
            let mean = sum.iter().sum::<f64>() / dim as f64;
            let variance = sum.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / dim as f64;
            let scale = 1.0 / (variance + self.eps).sqrt();
            let normed = sum.iter().map(|v| ((v - mean) * scale) as f32);
            rows.extend(normed.zip(&self.weight).zip(&self.bias).map(|((v, w), b)| v * w + b));
        }
        Ok(rows)
    }
}
