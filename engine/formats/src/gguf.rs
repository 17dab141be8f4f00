//! GGUF, versions 2 and 3: header, metadata, and where each tensor lies.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Everything is little-endian.
//!
//! A count or length that the file claims is compared with the bytes that remain before anything is allocated for it, so
//! parsing a source of `n` bytes allocates at most a small constant times `n`.

mod cursor;
mod metadata;
mod reorder;
mod tensors;
mod write;

pub use metadata::{Array, Metadata, Value};
pub use reorder::{UnitOrder, reorder};
pub use write::{TensorHeader, write};
pub(crate) use write::{pair_value, string};

use crate::table::StoredTensor;
use crate::{ByteSource, Error, Result};
use cursor::Cursor;

/// Bytes `GGUF`, read as a little-endian number.
const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
/// Alignment of tensor data when `general.alignment` does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment believed: a page of 64 KiB.
const MAX_ALIGNMENT: u64 = 65_536;

/// A parsed and checked GGUF header.
#[derive(Debug)]
pub struct Gguf {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// The key-value pairs.
    pub metadata: Metadata,
    /// Alignment of tensor offsets in bytes: a power of two.
    pub alignment: u64,
    /// First byte of the tensor data: the length of the header, rounded up to the alignment.
    pub data_offset: u64,
    /// The tensors, in the file's order, names unique, ranges inside the source.
    pub tensors: Vec<StoredTensor>,
}

impl Gguf {
    /// Parse and check the header of `source`. Tensor data is not read.
    ///
    /// Tensors may overlap: reading is all that is done with them, so sharing bytes harms nothing, and writers that store a
    /// tied matrix once under two names are right to do so.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the field's name for anything that contradicts the format or the source's length,
    /// [`Error::Unsupported`] for other versions and tensor types, [`Error::Io`] when the source cannot be read.
    pub fn parse(source: &dyn ByteSource) -> Result<Gguf> {
        let mut cursor = Cursor::new(source);
        let magic = cursor.u32("GGUF magic")?;
        if magic != MAGIC {
            return Err(Error::malformed(
                "GGUF magic",
                format!("found bytes {:02x?}, expected 'GGUF'; is this a GGUF file?", magic.to_le_bytes()),
            ));
        }
        let version = cursor.u32("GGUF version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 2 | 3) => {
                return Err(Error::Unsupported("big-endian GGUF; convert it to little-endian".into()));
            }
            _ => {
                return Err(Error::Unsupported(format!("GGUF version {version}; versions 2 and 3 are read")));
            }
        }
        let tensor_count = cursor.u64("tensor count")?;
        let metadata_count = cursor.u64("metadata count")?;
        cursor.expect_items("tensor count", tensor_count, tensors::MIN_TENSOR_BYTES)?;
        cursor.expect_items("metadata count", metadata_count, metadata::MIN_PAIR_BYTES)?;
        let metadata = Metadata::read(&mut cursor, metadata_count)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = tensors::read(&mut cursor, tensor_count)?;
        let data_offset = cursor
            .position()
            .checked_next_multiple_of(alignment)
            .ok_or_else(|| Error::malformed("tensor data", "its start overflows"))?;
        tensors::place(&mut tensors, data_offset, alignment, source.len())?;
        Ok(Gguf { version, metadata, alignment, data_offset, tensors })
    }
}

/// `general.alignment`, checked: a power of two up to [`MAX_ALIGNMENT`].
fn alignment(metadata: &Metadata) -> Result<u64> {
    let key = "general.alignment";
    let alignment = metadata.opt_u32(key)?.map_or(DEFAULT_ALIGNMENT, u64::from);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(Error::malformed(
            format!("metadata '{key}'"),
            format!("found {alignment}, expected a power of two from 1 to {MAX_ALIGNMENT}"),
        ));
    }
    Ok(alignment)
}
