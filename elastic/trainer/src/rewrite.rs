//! The model's file with its units in another order.
//!
//! Rows move as they are. Columns of O move as whole blocks where a head is whole blocks. Columns of `down` are single
//! neurons, and its blocks run along them: it is quantised anew, errors weighted by each neuron's mean square.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use concertina_elastic::LayerOrder;
use concertina_formats::dequant::dequantize_row;
use concertina_formats::gguf::{Gguf, TensorHeader, write};
use concertina_formats::quant::{WRITABLE, quantize_row};
use concertina_formats::{ByteSource, DType, Error, Model, StoredTensor, TensorInfo};
use rayon::prelude::*;

use crate::permute::blocks;

/// How a file is written anew.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// Original units at each place, by layer.
    pub order: &'a [LayerOrder],
    /// Mean squares of each original neuron, by layer.
    pub energy: &'a [Vec<f32>],
    /// Type of `down`, and of O where its blocks must be broken.
    pub down: DType,
}

/// What happens to a tensor.
enum Move {
    Nothing,
    /// Row `i` is the old row `rows[i]`.
    Rows(Vec<u32>),
    /// Column `i` is the old column `cols[i]`; quantised anew with a weight for each new column, or moved as blocks.
    Cols(Vec<u32>, Option<Vec<f32>>),
}

/// Write the model at `from`, which is a GGUF file, to `to`.
///
/// # Errors
/// If it cannot be read or written, or the order is not of this model.
pub fn rewrite(source: &dyn ByteSource, model: &Model, to: &Path, rewrite: Rewrite<'_>) -> Result<()> {
    ensure!(WRITABLE.contains(&rewrite.down), "{:?} is not written; {WRITABLE:?} are", rewrite.down);
    let gguf = Gguf::parse(source)?;
    let moves: Vec<Move> = gguf.tensors.iter().map(|t| rewrite.of(model, &t.info)).collect::<Result<_>>()?;
    let headers: Vec<TensorHeader> = gguf.tensors.iter().zip(&moves).map(|(t, m)| rewrite.header(t, m)).collect();
    let temporary = to.with_extension("tmp");
    let what = || format!("cannot write {}", to.display());
    let mut out = BufWriter::new(File::create(&temporary).with_context(what)?);
    write(&mut out, &gguf.metadata, &headers, &mut |i| {
        let info = &gguf.tensors[i].info;
        let mut bytes = vec![0u8; info.bytes as usize];
        source.read_at(info.offset, &mut bytes)?;
        moved(info, &headers[i], &moves[i], bytes)
    })
    .with_context(what)?;
    out.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).with_context(what)?;
    std::fs::rename(&temporary, to).with_context(what)
}

impl Rewrite<'_> {
    /// What happens to a tensor, by its name.
    fn of(&self, model: &Model, info: &TensorInfo) -> Result<Move> {
        let spec = &model.spec;
        let Some((layer, part)) = info.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
            return Ok(Move::Nothing);
        };
        let layer: usize = layer.parse().with_context(|| format!("tensor '{}'", info.name))?;
        let order = self.order.get(layer).with_context(|| format!("tensor '{}': no order", info.name))?;
        let d = spec.head_dim;
        Ok(match part {
            "attn_q.weight" | "attn_q.bias" => Move::Rows(blocks(&order.heads, d)),
            "attn_k.weight" | "attn_k.bias" | "attn_v.weight" | "attn_v.bias" => Move::Rows(blocks(&order.groups, d)),
            "ffn_gate.weight" | "ffn_up.weight" => Move::Rows(order.neurons.clone()),
            "attn_output.weight" => {
                let whole = d.is_multiple_of(info.dtype.block().0);
                let even = || vec![1.0; info.cols];
                Move::Cols(blocks(&order.heads, d), (!whole).then(even))
            }
            "ffn_down.weight" => {
                let energy = self.energy.get(layer).filter(|e| e.len() == info.cols);
                let energy = energy.with_context(|| format!("tensor '{}': no mean squares", info.name))?;
                let weights = order.neurons.iter().map(|n| energy[*n as usize].max(1e-12)).collect();
                Move::Cols(order.neurons.clone(), Some(weights))
            }
            _ => Move::Nothing,
        })
    }

    fn header(&self, tensor: &StoredTensor, m: &Move) -> TensorHeader {
        let info = &tensor.info;
        let dtype = if matches!(m, Move::Cols(_, Some(_))) { self.down } else { info.dtype };
        TensorHeader { name: info.name.clone(), dtype, rows: info.rows, cols: info.cols, vector: tensor.rank == 1 }
    }
}

/// The new bytes of a tensor.
fn moved(info: &TensorInfo, header: &TensorHeader, m: &Move, bytes: Vec<u8>) -> concertina_formats::Result<Vec<u8>> {
    let (block, block_bytes) = info.dtype.block();
    let row_bytes = info.cols / block * block_bytes;
    match m {
        Move::Nothing => Ok(bytes),
        Move::Rows(order) => {
            // A vector's rows are its elements.
            let row = if info.rows == 1 { block_bytes } else { row_bytes };
            if order.len() * row != bytes.len() || (info.rows == 1 && block != 1) {
                return Err(Error::malformed(format!("tensor '{}'", info.name), "its rows are not the model's units"));
            }
            Ok(order.iter().flat_map(|old| &bytes[*old as usize * row..][..row]).copied().collect())
        }
        Move::Cols(order, None) => {
            let starts: Vec<usize> =
                order.iter().step_by(block).map(|old| *old as usize / block * block_bytes).collect();
            let rows = bytes.chunks_exact(row_bytes);
            Ok(rows.flat_map(|row| starts.iter().flat_map(|at| &row[*at..][..block_bytes])).copied().collect())
        }
        Move::Cols(order, Some(weights)) => {
            let rows: Vec<concertina_formats::Result<Vec<u8>>> = bytes
                .par_chunks_exact(row_bytes)
                .map(|row| {
                    let mut values = vec![0f32; info.cols];
                    dequantize_row(info.dtype, row, &mut values)?;
                    let values: Vec<f32> = order.iter().map(|old| values[*old as usize]).collect();
                    let mut out = Vec::new();
                    quantize_row(header.dtype, &values, Some(weights), &mut out)?;
                    Ok(out)
                })
                .collect();
            rows.into_iter().try_fold(Vec::new(), |mut all, row| {
                all.extend(row?);
                Ok(all)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use concertina_formats::testing::TinyModel;
    use concertina_formats::{MemorySource, open_gguf};

    use super::*;
    use crate::file::open_model;
    use crate::net::{Batch, Net, Pass};
    use crate::ops::to_vec;

    /// A model with heads of whole blocks.
    fn tiny(arch: &'static str, matrices: DType) -> Vec<u8> {
        let mut tiny = TinyModel::new(arch);
        (tiny.head_dim, tiny.dim, tiny.ffn, tiny.matrices) = (32, 128, 96, matrices);
        tiny.gguf()
    }

    #[test]
    fn the_function_stays() {
        for (arch, matrices, down, bound) in [
            ("llama", DType::F32, DType::F32, 1e-4),
            ("qwen2", DType::F32, DType::F32, 1e-4),
            ("qwen2", DType::Q4_1, DType::Q8_0, 0.05),
        ] {
            let bytes = tiny(arch, matrices);
            let model = open_gguf(Box::new(MemorySource(bytes.clone()))).unwrap();
            let order = LayerOrder {
                groups: vec![1, 0],
                heads: vec![3, 2, 0, 1],
                neurons: (0..96).map(|i| (i * 5 + 7) % 96).collect(),
            };
            assert_eq!(order.problem(), None);
            let order = vec![order; 2];
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.gguf");
            let energy = vec![vec![1.0; 96]; 2];
            let how = Rewrite { order: &order, energy: &energy, down };
            rewrite(&MemorySource(bytes), &model, &path, how).unwrap();
            let (old, new) = (Net::load(&model).unwrap(), Net::load(&open_model(&path).unwrap()).unwrap());
            let batch = Batch { ids: (0..24).map(|i| i * 7 % 90).collect(), tokens: 12 };
            let full = old.full();
            let hidden = |net: &Net| to_vec(&Pass::new(net, &full, None).unwrap().hidden(&batch).unwrap()).unwrap();
            let (a, b) = (hidden(&old), hidden(&new));
            let difference = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum::<f32>().sqrt();
            let size = a.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(difference <= bound * size, "{arch} {matrices:?}: {difference} of {size}");
            // The file's model and the one permuted in memory are cut alike.
            if matrices == DType::F32 {
                let mut units = full.clone();
                (units[0].neurons, units[1].groups) = (32, 1);
                let permuted = old.permuted(&order).unwrap();
                let cut = |net: &Net| to_vec(&Pass::new(net, &units, None).unwrap().hidden(&batch).unwrap()).unwrap();
                let (a, b) = (cut(&permuted), cut(&new));
                assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-4));
            }
        }
    }
}
