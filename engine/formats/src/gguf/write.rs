//! Writing GGUF, version 3.

use std::io::{self, Write};

use super::{Array, Metadata, Value};
use crate::{DType, Error, Result};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorHeader {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Whether it has one dimension.
    pub vector: bool,
}

impl TensorHeader {
    /// Bytes of its data; `None` where rows are no whole blocks, or it is too large.
    pub fn bytes(&self) -> Option<u64> {
        let (elements, bytes) = self.dtype.block();
        let whole = self.cols.is_multiple_of(elements) && self.cols > 0 && self.rows > 0;
        let row = (self.cols / elements).checked_mul(bytes).filter(|_| whole)?;
        u64::try_from(row.checked_mul(self.rows)?).ok()
    }
}

/// Write a file: the pairs of `metadata`, then the tensors, whose data `data` gives in turn. The data is aligned as
/// `general.alignment` says, or by 32.
///
/// # Errors
/// [`Error::Malformed`] where a tensor is not whole blocks or its data has another size, and those of `data`;
/// [`Error::Io`] where `out` cannot be written.
pub fn write(
    out: &mut dyn Write,
    metadata: &Metadata,
    tensors: &[TensorHeader],
    data: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
) -> Result<()> {
    let alignment = super::alignment(metadata)?;
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.iter().count() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        string(&mut head, key);
        pair_value(&mut head, value);
    }
    let mut offset = 0u64;
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let bytes = tensor.bytes().ok_or_else(|| {
            Error::malformed(
                format!("tensor '{}'", tensor.name),
                format!("{} x {} are no whole blocks of {:?}", tensor.rows, tensor.cols, tensor.dtype),
            )
        })?;
        string(&mut head, &tensor.name);
        let dims = [tensor.cols as u64, tensor.rows as u64];
        let dims = if tensor.vector { &dims[..1] } else { &dims[..] };
        head.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| head.extend(dim.to_le_bytes()));
        head.extend(tensor.dtype.ggml().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = offset.saturating_add(bytes).next_multiple_of(alignment);
        sizes.push(bytes);
    }
    let start = (head.len() as u64).next_multiple_of(alignment);
    head.resize(start as usize, 0);
    out.write_all(&head)?;
    for (i, (tensor, bytes)) in tensors.iter().zip(sizes).enumerate() {
        let data = data(i)?;
        if data.len() as u64 != bytes {
            let problem = format!("{} bytes were given, it has {bytes}", data.len());
            return Err(Error::malformed(format!("tensor '{}'", tensor.name), problem));
        }
        out.write_all(&data)?;
        pad(out, bytes, alignment)?;
    }
    out.flush()?;
    Ok(())
}

fn pad(out: &mut dyn Write, bytes: u64, alignment: u64) -> io::Result<()> {
    let rest = bytes.next_multiple_of(alignment) - bytes;
    out.write_all(&vec![0u8; rest as usize])
}

/// Length and bytes of a text.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

macro_rules! numbers {
    ($out:expr, $code:expr, $items:expr) => {{
        $out.extend(u32::to_le_bytes($code));
        $out.extend(($items.len() as u64).to_le_bytes());
        $items.iter().for_each(|x| $out.extend(x.to_le_bytes()));
    }};
}

/// Type and value.
pub(crate) fn pair_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |code: u32, bytes: &[u8]| {
        out.extend(code.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::Str(text) => {
            put(8, &[]);
            string(out, text);
        }
        Value::Array(items) => {
            put(9, &[]);
            array(out, items);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

/// Type, count and items.
fn array(out: &mut Vec<u8>, items: &Array) {
    match items {
        Array::U8(v) => numbers!(out, 0, v),
        Array::I8(v) => numbers!(out, 1, v),
        Array::U16(v) => numbers!(out, 2, v),
        Array::I16(v) => numbers!(out, 3, v),
        Array::U32(v) => numbers!(out, 4, v),
        Array::I32(v) => numbers!(out, 5, v),
        Array::F32(v) => numbers!(out, 6, v),
        Array::Bool(v) => numbers!(out, 7, v.iter().map(|&b| u8::from(b)).collect::<Vec<u8>>()),
        Array::Str(v) => {
            numbers!(out, 8, [0u8; 0]);
            rewrite_count(out, v.len());
            v.iter().for_each(|text| string(out, text));
        }
        Array::Array(v) => {
            numbers!(out, 9, [0u8; 0]);
            rewrite_count(out, v.len());
            v.iter().for_each(|inner| array(out, inner));
        }
        Array::U64(v) => numbers!(out, 10, v),
        Array::I64(v) => numbers!(out, 11, v),
        Array::F64(v) => numbers!(out, 12, v),
    }
}

/// Replace the count that was just written.
fn rewrite_count(out: &mut [u8], count: usize) {
    let at = out.len() - 8;
    out[at..].copy_from_slice(&(count as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySource;
    use crate::gguf::Gguf;
    use crate::testing::TinyModel;

    /// Every tensor of a file, as headers and bytes.
    fn parts(bytes: &[u8]) -> (Gguf, Vec<TensorHeader>, Vec<Vec<u8>>) {
        let gguf = Gguf::parse(&MemorySource(bytes.to_vec())).unwrap();
        let header = |t: &crate::StoredTensor| TensorHeader {
            name: t.info.name.clone(),
            dtype: t.info.dtype,
            rows: t.info.rows,
            cols: t.info.cols,
            vector: t.rank == 1,
        };
        let headers = gguf.tensors.iter().map(header).collect();
        let range = |t: &crate::StoredTensor| t.info.offset as usize..(t.info.offset + t.info.bytes) as usize;
        let data = gguf.tensors.iter().map(|t| bytes[range(t)].to_vec()).collect();
        (gguf, headers, data)
    }

    #[test]
    fn what_was_written_is_read_back() {
        for dtype in [DType::F32, DType::Q4_1, DType::Q6_K] {
            let (gguf, headers, data) = parts(&TinyModel::new("qwen2").with_dtype(dtype).gguf());
            let mut out = Vec::new();
            write(&mut out, &gguf.metadata, &headers, &mut |i| Ok(data[i].clone())).unwrap();
            let (again, headers_again, data_again) = parts(&out);
            assert_eq!(again.metadata, gguf.metadata);
            assert_eq!(headers_again, headers);
            assert_eq!(data_again, data);
        }
    }

    #[test]
    fn all_values_and_alignments() {
        let mut metadata = Metadata::default();
        let arrays = [
            Array::U8(vec![1]),
            Array::I8(vec![-1]),
            Array::U16(vec![2]),
            Array::I16(vec![]),
            Array::Bool(vec![true, false]),
            Array::Str(vec!["a".into(), "".into()]),
            Array::Array(vec![Array::U64(vec![1, 2]), Array::F64(vec![0.5])]),
            Array::I64(vec![-5]),
        ];
        for (i, array) in arrays.into_iter().enumerate() {
            metadata.insert(format!("array.{i}"), Value::Array(array));
        }
        for value in [Value::U8(1), Value::I8(-1), Value::U16(2), Value::I16(-2), Value::I64(-3), Value::F64(0.25)] {
            metadata.insert(format!("{value:?}"), value);
        }
        metadata.insert("general.alignment", Value::U32(64));
        let tensor =
            |name: &str, vector| TensorHeader { name: name.into(), dtype: DType::F16, rows: 1, cols: 3, vector };
        let tensors = [tensor("a", true), tensor("b", false)];
        let mut out = Vec::new();
        write(&mut out, &metadata, &tensors, &mut |i| Ok(vec![i as u8; 6])).unwrap();
        let (gguf, headers, data) = parts(&out);
        assert_eq!((gguf.metadata, gguf.alignment), (metadata.clone(), 64));
        assert_eq!(headers[0], tensors[0]);
        assert_eq!(data, [vec![0; 6], vec![1; 6]]);

        let mut nothing = Vec::new();
        assert!(write(&mut nothing, &metadata, &tensors, &mut |_| Ok(vec![0; 5])).is_err());
        let odd = TensorHeader { dtype: DType::Q4_0, ..tensor("c", false) };
        assert!(write(&mut nothing, &metadata, &[odd], &mut |_| Ok(vec![])).is_err());
        metadata.insert("general.alignment", Value::U32(3));
        assert!(write(&mut nothing, &metadata, &[], &mut |_| Ok(vec![])).is_err());
    }
}
