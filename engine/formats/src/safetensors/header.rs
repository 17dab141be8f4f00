//! The JSON header of one safetensors file.

use crate::table::StoredTensor;
use crate::{ByteSource, DType, Error, Result, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Longest header read: the `safetensors` crate's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;
/// Bytes of the header's length.
const PREFIX: u64 = 8;

/// The tensors of the file `name`, which is source number `source_index`, but those that are `unneeded`: of them nothing is
/// checked.
pub(crate) fn parse(
    name: &str,
    source: &dyn ByteSource,
    source_index: usize,
    unneeded: impl Fn(&str) -> bool,
) -> Result<Vec<StoredTensor>> {
    let field = format!("{name} header");
    let len = source.len();
    if len < PREFIX {
        return Err(Error::malformed(field, format!("the file has only {len} bytes")));
    }
    let mut prefix = [0; PREFIX as usize];
    source.read_at(0, &mut prefix)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > (len - PREFIX).min(MAX_HEADER_BYTES) {
        return Err(Error::malformed(
            field,
            format!(
                "claims {header_len} bytes; the file has {} more, at most {MAX_HEADER_BYTES} are read",
                len - PREFIX
            ),
        ));
    }
    let mut json = vec![0; header_len as usize];
    source.read_at(PREFIX, &mut json)?;
    let Entries(entries) = serde_json::from_slice(&json).map_err(|e| Error::malformed(field, e.to_string()))?;
    drop(json);
    let data = PREFIX + header_len;
    let needed = entries.into_iter().filter(|(name, _)| !unneeded(name));
    needed.map(|(name, entry)| entry.check(name, data, len, source_index)).collect()
}

/// Name and description of every tensor, names unique, in the file's order.
struct Entries(Vec<(String, Entry)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// Dimensions, outermost first.
struct Shape {
    dims: [u64; MAX_DIMS],
    n_dims: usize,
}

impl Entry {
    fn check(self, name: String, data: u64, len: u64, source: usize) -> Result<StoredTensor> {
        let dtype = match self.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => {
                return Err(Error::Unsupported(format!(
                    "tensor '{name}' has type {other:?}; F32, F16 and BF16 are read"
                )));
            }
        };
        let dims = &self.shape.dims[..self.shape.n_dims];
        let field = |what: &str| format!("tensor '{name}' {what}");
        let (Some((&cols, outer)), false) = (dims.split_last(), dims.contains(&0)) else {
            return Err(Error::malformed(
                field("shape"),
                format!("{dims:?} has no elements; expected 1 to {MAX_DIMS} dimensions, none of them 0"),
            ));
        };
        let rows = outer.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let elements = rows.and_then(|rows| rows.checked_mul(cols));
        let bytes = elements.and_then(|n| n.checked_mul(dtype.block().1 as u64));
        let as_usize = |n: u64| usize::try_from(n).ok();
        let (Some(rows), Some(cols), Some(bytes)) = (rows.and_then(as_usize), as_usize(cols), bytes) else {
            return Err(Error::malformed(field("shape"), format!("{dims:?} overflows")));
        };
        let rank = dims.iter().position(|&d| d != 1).map_or(1, |first| dims.len() - first) as u32;
        let [begin, end] = self.data_offsets;
        let stop = data.checked_add(end);
        if begin.checked_add(bytes) != Some(end) || stop.is_none_or(|stop| stop > len) {
            return Err(Error::malformed(
                field("data_offsets"),
                format!(
                    "[{begin}, {end}] of data that begins at {data}; the shape asks for {bytes} bytes and the file \
                     has {len}: it is cut or corrupt"
                ),
            ));
        }
        let info = TensorInfo { name, dtype, rows, cols, source, offset: data + begin, bytes };
        Ok(StoredTensor { info, rank })
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("'{name}' is there twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        let entry = map.next_value().map_err(|e| A::Error::custom(format!("tensor '{name}': {e}")))?;
                        entries.push((name, entry));
                    }
                }
                Ok(Entries(entries))
            }
        }
        from.deserialize_map(Names)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Shape { dims: [1; MAX_DIMS], n_dims: 0 };
                while let Some(dim) = seq.next_element()? {
                    let slot = shape
                        .dims
                        .get_mut(shape.n_dims)
                        .ok_or_else(|| A::Error::custom(format!("more than {MAX_DIMS} dimensions")))?;
                    *slot = dim;
                    shape.n_dims += 1;
                }
                Ok(shape)
            }
        }
        from.deserialize_seq(Dims)
    }
}
