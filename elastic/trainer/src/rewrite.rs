//! The model's file with its units in another order.
//!
//! Rows move as they are. Columns of O move as whole blocks where a head is whole blocks. Columns of `down` are single
//! neurons, and its blocks run along them: it is quantised anew ([`crate::rounding`]).

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use concertina_elastic::LayerOrder;
use concertina_formats::dequant::dequantize_row;
use concertina_formats::gguf::{Gguf, TensorHeader, write};
use concertina_formats::quant::{BlockGrid, WRITABLE, quantize_row};
use concertina_formats::{ByteSource, DType, Error, Model, StoredTensor, TensorInfo};

use crate::permute::blocks;
use crate::rounding::quantise;

/// How a file is written anew.
#[derive(Clone, Copy)]
pub struct Rewrite<'a> {
    /// Original units at each place, by layer.
    pub order: &'a [LayerOrder],
    /// Second moments of a layer's original neurons, `(neurons, neurons)`.
    pub moments: &'a dyn Fn(usize) -> Result<Vec<f32>>,
    /// Type of `down`, and of O where its blocks must be broken.
    pub down: DType,
}

/// What happens to a tensor.
enum Move {
    Nothing,
    /// Row `i` is the old row `rows[i]`.
    Rows(Vec<u32>),
    /// Column `i` is the old column `cols[i]`: whole blocks move.
    Blocks(Vec<u32>),
    /// Column `i` is the old column `cols[i]`: quantised anew, with the layer's moments if they are of its inputs.
    Cols(Vec<u32>, Option<usize>),
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
        rewrite.moved(info, &headers[i], &moves[i], bytes)
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
                let columns = blocks(&order.heads, d);
                let whole = d.is_multiple_of(info.dtype.block().0);
                if whole { Move::Blocks(columns) } else { Move::Cols(columns, None) }
            }
            "ffn_down.weight" => Move::Cols(order.neurons.clone(), Some(layer)),
            _ => Move::Nothing,
        })
    }

    fn header(&self, tensor: &StoredTensor, m: &Move) -> TensorHeader {
        let info = &tensor.info;
        let dtype = if matches!(m, Move::Cols(..)) { self.down } else { info.dtype };
        TensorHeader { name: info.name.clone(), dtype, rows: info.rows, cols: info.cols, vector: tensor.rank == 1 }
    }

    /// The new bytes of a tensor.
    fn moved(
        &self,
        info: &TensorInfo,
        header: &TensorHeader,
        m: &Move,
        bytes: Vec<u8>,
    ) -> concertina_formats::Result<Vec<u8>> {
        let (block, block_bytes) = info.dtype.block();
        let row_bytes = info.cols / block * block_bytes;
        let wrong = |problem: String| Error::malformed(format!("tensor '{}'", info.name), problem);
        match m {
            Move::Nothing => Ok(bytes),
            Move::Rows(order) => {
                // A vector's rows are its elements.
                let row = if info.rows == 1 { block_bytes } else { row_bytes };
                if order.len() * row != bytes.len() || (info.rows == 1 && block != 1) {
                    return Err(wrong("its rows are not the model's units".into()));
                }
                Ok(order.iter().flat_map(|old| &bytes[*old as usize * row..][..row]).copied().collect())
            }
            Move::Blocks(order) => {
                let at: Vec<usize> =
                    order.iter().step_by(block).map(|old| *old as usize / block * block_bytes).collect();
                let rows = bytes.chunks_exact(row_bytes);
                Ok(rows.flat_map(|row| at.iter().flat_map(|at| &row[*at..][..block_bytes])).copied().collect())
            }
            Move::Cols(order, moments) => {
                let mut values = Vec::with_capacity(info.rows * info.cols);
                let mut old = vec![0f32; info.cols];
                for row in bytes.chunks_exact(row_bytes) {
                    dequantize_row(info.dtype, row, &mut old)?;
                    values.extend(order.iter().map(|from| old[*from as usize]));
                }
                let blocks = header.dtype.block().0 == BlockGrid::LEN;
                if let (Some(layer), true) = (moments, blocks) {
                    let moments = (self.moments)(*layer).map_err(|e| wrong(format!("{e:#}")))?;
                    let n = info.cols;
                    if moments.len() != n * n {
                        return Err(wrong("moments of other neurons".into()));
                    }
                    let row = |from: &u32| {
                        order.iter().map(|to| moments[*from as usize * n + *to as usize]).collect::<Vec<_>>()
                    };
                    let moments = order.iter().flat_map(row).collect();
                    let rows = quantise(&values, n, moments, header.dtype).map_err(|e| wrong(format!("{e:#}")))?;
                    return Ok(rows.concat());
                }
                let mut out = Vec::new();
                values.chunks_exact(info.cols).try_for_each(|row| quantize_row(header.dtype, row, None, &mut out))?;
                Ok(out)
            }
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
            let identity = |_: usize| Ok((0..96 * 96).map(|i| f32::from(u8::from(i % 97 == 0))).collect());
            let how = Rewrite { order: &order, moments: &identity, down };
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
