//! A model's file with the units of its layers in another order.
//!
//! Rows move as they are. Columns of O move as whole blocks where a head is whole blocks. Columns of `down` are single
//! neurons, and its blocks run along them: it is quantised anew.

use std::io::Write;

use super::{Gguf, TensorHeader, write};
use crate::dequant::dequantize_row;
use crate::quant::{WRITABLE, quantize_row, round_to_q8_0};
use crate::{ByteSource, DType, Error, Model, Result, StoredTensor, TensorInfo};

/// Original units of a layer at each place of the new file.
#[derive(Debug, Clone, Copy)]
pub struct UnitOrder<'a> {
    /// KV groups.
    pub groups: &'a [u32],
    /// Query heads: those of a group together, in the order of the groups.
    pub heads: &'a [u32],
    /// Neurons.
    pub neurons: &'a [u32],
    /// How much an error of each original neuron's column matters; none: all the same, and then the file depends on the order
    /// alone.
    pub weights: Option<&'a [f32]>,
}

/// What happens to a tensor.
enum Move {
    Nothing,
    /// Row `i` is the old row `rows[i]`.
    Rows(Vec<u32>),
    /// Column `i` is the old column `cols[i]`, in whole blocks.
    Blocks(Vec<u32>),
    /// Likewise, quantised anew, perhaps with a weight for each new column.
    Cols(Vec<u32>, Option<Vec<f32>>),
}

/// Write the GGUF file `source`, which holds `model`, to `out` with its units in `order`, a layer each. `down` is the type of
/// `down`, and of O where its blocks must be broken.
///
/// # Errors
/// [`Error::Unsupported`] for a type that is not written; [`Error::Malformed`] for an order that is not of this model's units;
/// as reading and writing.
pub fn reorder(
    source: &dyn ByteSource,
    model: &Model,
    order: &[UnitOrder<'_>],
    down: DType,
    out: &mut dyn Write,
) -> Result<()> {
    if !WRITABLE.contains(&down) {
        return Err(Error::Unsupported(format!("{down:?} is not written; {WRITABLE:?} are")));
    }
    for (l, of_layer) in order.iter().enumerate() {
        let spec = &model.spec;
        let all = |units: &[u32], n: usize| {
            let mut seen = vec![false; n];
            let fresh = |u: &u32| seen.get_mut(*u as usize).is_some_and(|seen| !std::mem::replace(seen, true));
            units.len() == n && units.iter().all(fresh)
        };
        if !all(of_layer.groups, spec.n_groups)
            || !all(of_layer.heads, spec.n_heads)
            || !all(of_layer.neurons, spec.ffn)
            || of_layer.weights.is_some_and(|weights| weights.len() != spec.ffn)
        {
            return Err(Error::malformed(
                format!("order of layer {l}"),
                "it is not of all this model's units, each once",
            ));
        }
    }
    let gguf = Gguf::parse(source)?;
    let moves: Vec<Move> = gguf.tensors.iter().map(|t| of(model, order, &t.info)).collect::<Result<_>>()?;
    let headers: Vec<TensorHeader> = gguf.tensors.iter().zip(&moves).map(|(t, m)| header(down, t, m)).collect();
    write(out, &gguf.metadata, &headers, &mut |i| {
        let info = &gguf.tensors[i].info;
        let mut bytes = vec![0u8; info.bytes as usize];
        source.read_at(info.offset, &mut bytes)?;
        source.done_with(info.offset, info.bytes);
        moved(info, &headers[i], &moves[i], bytes)
    })
}

/// What happens to a tensor, by its name.
fn of(model: &Model, order: &[UnitOrder<'_>], info: &TensorInfo) -> Result<Move> {
    let Some((layer, part)) = info.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return Ok(Move::Nothing);
    };
    let found = layer.parse().ok().and_then(|layer: usize| order.get(layer));
    let order = found.ok_or_else(|| Error::malformed(format!("tensor '{}'", info.name), "no order for its layer"))?;
    let d = model.spec.head_dim;
    Ok(match part {
        "attn_q.weight" | "attn_q.bias" => Move::Rows(blocks(order.heads, d)),
        "attn_k.weight" | "attn_k.bias" | "attn_v.weight" | "attn_v.bias" => Move::Rows(blocks(order.groups, d)),
        "ffn_gate.weight" | "ffn_up.weight" => Move::Rows(order.neurons.to_vec()),
        "attn_output.weight" if d.is_multiple_of(info.dtype.block().0) => Move::Blocks(blocks(order.heads, d)),
        "attn_output.weight" => Move::Cols(blocks(order.heads, d), None),
        "ffn_down.weight" => {
            let of_column = |weights: &[f32]| order.neurons.iter().map(|n| weights[*n as usize].max(1e-12)).collect();
            Move::Cols(order.neurons.to_vec(), order.weights.map(of_column))
        }
        _ => Move::Nothing,
    })
}

fn header(down: DType, tensor: &StoredTensor, m: &Move) -> TensorHeader {
    let info = &tensor.info;
    let dtype = if matches!(m, Move::Cols(..)) { down } else { info.dtype };
    TensorHeader { name: info.name.clone(), dtype, rows: info.rows, cols: info.cols, vector: tensor.rank == 1 }
}

/// The new bytes of a tensor.
fn moved(info: &TensorInfo, header: &TensorHeader, m: &Move, bytes: Vec<u8>) -> Result<Vec<u8>> {
    let (block, block_bytes) = info.dtype.block();
    let row_bytes = info.cols / block * block_bytes;
    let bad = || Error::malformed(format!("tensor '{}'", info.name), "its rows and columns are not the model's units");
    match m {
        Move::Nothing => Ok(bytes),
        Move::Rows(order) => {
            // A vector's rows are its elements.
            let row = if info.rows == 1 { block_bytes } else { row_bytes };
            if order.len() * row != bytes.len() || (info.rows == 1 && block != 1) {
                return Err(bad());
            }
            Ok(order.iter().flat_map(|old| &bytes[*old as usize * row..][..row]).copied().collect())
        }
        Move::Blocks(order) | Move::Cols(order, _) if order.len() != info.cols => Err(bad()),
        Move::Blocks(order) => {
            let starts: Vec<usize> =
                order.iter().step_by(block).map(|old| *old as usize / block * block_bytes).collect();
            let rows = bytes.chunks_exact(row_bytes);
            Ok(rows.flat_map(|row| starts.iter().flat_map(|at| &row[*at..][..block_bytes])).copied().collect())
        }
        Move::Cols(order, weights) => {
            let (mut values, mut out) = (vec![0f32; info.cols], Vec::new());
            for row in bytes.chunks_exact(row_bytes) {
                dequantize_row(info.dtype, row, &mut values)?;
                let values: Vec<f32> = order.iter().map(|old| values[*old as usize]).collect();
                match (header.dtype, weights) {
                    // A search gains nothing at 8 bits.
                    (DType::Q8_0, None) => round_to_q8_0(&values, &mut out)?,
                    (dtype, weights) => quantize_row(dtype, &values, weights.as_deref(), &mut out)?,
                }
            }
            Ok(out)
        }
    }
}

/// Old rows at each new place, where a unit is `each` rows.
fn blocks(order: &[u32], each: usize) -> Vec<u32> {
    order.iter().flat_map(|unit| (0..each as u32).map(move |i| unit * each as u32 + i)).collect()
}
