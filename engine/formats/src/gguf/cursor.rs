//! A buffered reader over a [`ByteSource`] that knows how many bytes remain.

use crate::{ByteSource, Error, Result};

/// Bytes fetched at a time.
const BUFFER: u64 = 64 * 1024;

/// Reads little-endian values one after the other. Every read names the field it is for.
pub(super) struct Cursor<'a> {
    source: &'a dyn ByteSource,
    len: u64,
    position: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte in the source.
    buffer_at: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a dyn ByteSource) -> Self {
        Cursor { source, len: source.len(), position: 0, buffer: Vec::new(), buffer_at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes left to read.
    pub(super) fn remaining(&self) -> u64 {
        self.len - self.position
    }

    /// An error unless `count` items of at least `min_bytes` each can follow.
    pub(super) fn expect_items(&self, field: &str, count: u64, min_bytes: u64) -> Result<()> {
        match count.checked_mul(min_bytes) {
            Some(bytes) if bytes <= self.remaining() => Ok(()),
            _ => Err(Error::malformed(
                field,
                format!(
                    "claims {count} of at least {min_bytes} bytes each, but {} bytes remain; the file is cut or corrupt",
                    self.remaining()
                ),
            )),
        }
    }

    /// Fill `out` with the next bytes.
    pub(super) fn fill(&mut self, field: &str, out: &mut [u8]) -> Result<()> {
        let want = out.len() as u64;
        if want > self.remaining() {
            return Err(Error::malformed(
                field,
                format!("needs {want} bytes at offset {}, but the file ends after {}", self.position, self.len),
            ));
        }
        if want > BUFFER {
            self.source.read_at(self.position, out)?;
            self.position += want;
            return Ok(());
        }
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if self.position < self.buffer_at || self.position + want > buffered {
            self.buffer.resize(BUFFER.min(self.remaining()) as usize, 0);
            self.buffer_at = self.position;
            self.source.read_at(self.position, &mut self.buffer)?;
        }
        let from = (self.position - self.buffer_at) as usize;
        out.copy_from_slice(&self.buffer[from..from + out.len()]);
        self.position += want;
        Ok(())
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(field, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self, field: &str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// One byte that must be 0 or 1.
    pub(super) fn bool(&mut self, field: &str) -> Result<bool> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::malformed(field, format!("found {other}, expected a bool of 0 or 1"))),
        }
    }

    /// A string: 64-bit length, then UTF-8. At most `max` bytes long.
    pub(super) fn string(&mut self, field: &str, max: u64) -> Result<String> {
        let len = self.u64(field)?;
        if len > max || len > self.remaining() {
            return Err(Error::malformed(
                field,
                format!("string claims {len} bytes; {} remain and {max} are allowed", self.remaining()),
            ));
        }
        let len = usize::try_from(len).map_err(|_| Error::malformed(field, "longer than the address space"))?;
        let mut bytes = vec![0; len];
        self.fill(field, &mut bytes)?;
        String::from_utf8(bytes)
            .map_err(|e| Error::malformed(field, format!("not UTF-8 after byte {}", e.utf8_error().valid_up_to())))
    }
}
