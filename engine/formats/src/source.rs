//! Where the bytes of a model come from.

use std::io;

/// Random-access bytes that do not change: a mapped file, a buffer, a file of a browser's private file system.
pub trait ByteSource: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// True when there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fill `out` from `offset`. Reading past the end is an error, never a short read.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// A hint that `offset..offset + len` will not be read again soon, so that a mapping may drop its pages.
    fn done_with(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// Bytes in memory.
pub struct MemorySource(pub Vec<u8>);

impl ByteSource for MemorySource {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len());
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(())
    }
}
