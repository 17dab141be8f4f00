//! Writing arrays for NumPy: float32, two dimensions, format version 1.0.
//!
//! ```text
//! offset  bytes
//!      0      6  93 'N' 'U' 'M' 'P' 'Y'
//!      6      2  version 1, 0
//!      8      2  length of the header, little-endian
//!     10      n  a Python dictionary, padded with spaces and ended by a line feed, so that 10 + n divides by 64
//! 10 + n         the rows, little-endian, the last dimension fastest
//! ```

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Writes rows one after the other, so that no more than one row is in memory. The file appears under its name only
/// when it is complete.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<std::fs::File>,
    rows: usize,
    columns: usize,
    written: usize,
}

impl NpyWriter {
    /// Begins an array of shape `[rows, columns]`.
    pub fn create(path: &Path, rows: usize, columns: usize) -> Result<Self> {
        let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
        name.push(".new");
        let temporary = path.with_file_name(name);
        let begin = || -> io::Result<_> {
            let mut out = BufWriter::new(std::fs::File::create(&temporary)?);
            out.write_all(&header(rows, columns))?;
            Ok(out)
        };
        let out = begin().with_context(|| format!("cannot write {}", temporary.display()))?;
        Ok(Self { path: path.to_owned(), temporary, out, rows, columns, written: 0 })
    }

    /// Appends a row of `columns` values.
    pub fn row(&mut self, values: &[f32]) -> Result<()> {
        ensure!(values.len() == self.columns, "a row has {} values instead of {}", values.len(), self.columns);
        ensure!(self.written < self.rows, "more than {} rows", self.rows);
        for value in values {
            self.out
                .write_all(&value.to_le_bytes())
                .with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        self.written += 1;
        Ok(())
    }

    /// Ends the array after its last row.
    pub fn finish(mut self) -> Result<()> {
        ensure!(self.written == self.rows, "{} rows were written instead of {}", self.written, self.rows);
        let end = || -> io::Result<()> {
            self.out.flush()?;
            self.out.get_ref().sync_all()?;
            std::fs::rename(&self.temporary, &self.path)
        };
        let mut end = end;
        end().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What was not finished is taken away.
impl Drop for NpyWriter {
    fn drop(&mut self) {
        // After `finish` there is no such file any more; an error leaves a file that the next run replaces.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn header(rows: usize, columns: usize) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Two numbers of at most 20 digits: the whole is always below 65,536.
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(length as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.resize(10 + length - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut npy = NpyWriter::create(&path, 2, 3).unwrap();
        npy.row(&[1.0, -2.0, 0.5]).unwrap();
        assert!(!path.exists(), "not there before it is complete");
        npy.row(&[0.0, f32::MIN_POSITIVE, f32::INFINITY]).unwrap();
        npy.finish().unwrap();

        let mut expected = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        expected.extend_from_slice(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
        expected.resize(127, b' ');
        expected.push(b'\n');
        for bits in [0x3f80_0000u32, 0xc000_0000, 0x3f00_0000, 0, 0x0080_0000, 0x7f80_0000] {
            expected.extend_from_slice(&bits.to_le_bytes());
        }
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn headers_of_any_shape_are_aligned() {
        for (rows, columns) in [(0, 0), (1, 151_936), (usize::MAX, usize::MAX), (123_456, 1)] {
            let header = header(rows, columns);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])) + 10, header.len());
        }
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let mut npy = NpyWriter::create(&path, 1, 2).unwrap();
        assert!(npy.row(&[1.0]).is_err());
        npy.row(&[1.0, 2.0]).unwrap();
        assert!(npy.row(&[1.0, 2.0]).is_err());
        drop(npy);
        assert!(NpyWriter::create(&path, 1, 2).unwrap().finish().is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left over");
    }
}
