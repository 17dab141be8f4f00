//! The tensor table of a GGUF file.

use super::cursor::Cursor;
use crate::table::StoredTensor;
use crate::{DType, Error, Result, TensorInfo};
use std::collections::HashSet;

/// Least bytes of an entry: an empty name, the number of dimensions, one of them, type, offset.
pub(super) const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;
/// Longest name of a tensor. ggml stops at 64.
const MAX_NAME_BYTES: u64 = 256;

/// Read `count` entries. Their offsets are still relative to the data: see [`place`].
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<StoredTensor>> {
    cursor.expect_items("tensor count", count, MIN_TENSOR_BYTES)?;
    let room = usize::try_from(count).map_err(|_| Error::malformed("tensor count", "more than the address space"))?;
    let mut tensors = Vec::with_capacity(room);
    for i in 0..count {
        tensors.push(entry(cursor, i)?);
    }
    let mut names = HashSet::with_capacity(tensors.len());
    for StoredTensor { info, .. } in &tensors {
        if !names.insert(info.name.as_str()) {
            return Err(Error::malformed(format!("tensor '{}'", info.name), "the name is there twice"));
        }
    }
    Ok(tensors)
}

fn entry(cursor: &mut Cursor<'_>, i: u64) -> Result<StoredTensor> {
    let name = cursor.string(&format!("name of tensor {i}"), MAX_NAME_BYTES)?;
    let field = |what: &str| format!("tensor '{name}' {what}");
    let n_dims = cursor.u32(&field("number of dimensions"))?;
    if !(1..=4).contains(&n_dims) {
        return Err(Error::malformed(field("number of dimensions"), format!("found {n_dims}, expected 1 to 4")));
    }
    let mut dims = [1u64; 4];
    for dim in dims.iter_mut().take(n_dims as usize) {
        *dim = cursor.u64(&field("dimensions"))?;
    }
    let rank = dims.iter().rposition(|&d| d != 1).map_or(1, |last| last as u32 + 1);
    let code = cursor.u32(&field("type"))?;
    let offset = cursor.u64(&field("offset"))?;
    let Some(dtype) = DType::from_ggml(code) else {
        return Err(Error::Unsupported(format!("tensor '{name}' has type {}", type_name(code))));
    };
    let (rows, cols, bytes) = sizes(dims, dtype).map_err(|problem| {
        let shape = &dims[..n_dims as usize];
        Error::malformed(field("dimensions"), format!("{shape:?} as {dtype:?}: {problem}"))
    })?;
    Ok(StoredTensor { info: TensorInfo { name, dtype, rows, cols, source: 0, offset, bytes }, rank })
}

/// `(rows, cols, bytes)` of a tensor.
fn sizes(dims: [u64; 4], dtype: DType) -> std::result::Result<(usize, usize, u64), String> {
    if dims.contains(&0) {
        return Err("a dimension is zero".into());
    }
    let overflow = || "the number of elements overflows".to_owned();
    let [cols, rest @ ..] = dims;
    let rows = rest.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).ok_or_else(overflow)?;
    let (block, block_bytes) = dtype.block();
    if cols % block as u64 != 0 {
        return Err(format!("a row of {cols} elements is not a whole number of blocks of {block}"));
    }
    let row_bytes = (cols / block as u64).checked_mul(block_bytes as u64).ok_or_else(overflow)?;
    let bytes = row_bytes.checked_mul(rows).ok_or_else(overflow)?;
    rows.checked_mul(cols).ok_or_else(overflow)?;
    let to_usize = |n: u64| usize::try_from(n).map_err(|_| overflow());
    Ok((to_usize(rows)?, to_usize(cols)?, bytes))
}

/// Turn offsets relative to the data into offsets of the source, checked to be aligned and inside it.
pub(super) fn place(tensors: &mut [StoredTensor], data_offset: u64, alignment: u64, len: u64) -> Result<()> {
    for StoredTensor { info, .. } in tensors {
        let field = || format!("tensor '{}' offset", info.name);
        if info.offset % alignment != 0 {
            return Err(Error::malformed(
                field(),
                format!("{} is not a multiple of the alignment {alignment}", info.offset),
            ));
        }
        let start = data_offset.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= len => info.offset = start,
            _ => {
                return Err(Error::malformed(
                    field(),
                    format!(
                        "{} bytes at {} of the data, which begins at {data_offset}, end after the file's {len} bytes; \
                         the file is cut or corrupt",
                        info.bytes, info.offset
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The name of a type that Concertina does not read, for the error.
fn type_name(code: u32) -> String {
    let name = match code {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {code}, which is unknown"),
    };
    format!("{name}, which is not among {:?}", DType::ALL)
}
