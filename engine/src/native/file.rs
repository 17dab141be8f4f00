//! Model files through mmap.

use std::fs::File;
use std::io;
use std::path::Path;

use concertina_elastic::heads::Heads;
use concertina_formats::{Bert, ByteSource, Model, open_bert, open_gguf, open_safetensors};
use memmap2::{Advice, Mmap};

use crate::{Error, Result};

/// A file mapped into memory, its pages dropped again once they were read.
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Map a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is read-only and all access goes through `read_at`, which copies. A file that another
        // process truncates meanwhile raises SIGBUS, as for every program that maps files; the cache's files are
        // replaced by rename, never truncated.
        let map = unsafe { Mmap::map(&file)? };
        let _ = map.advise(Advice::Sequential);
        Ok(Self(map))
    }
}

impl ByteSource for MappedFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len());
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        out.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(())
    }

    fn done_with(&self, offset: u64, len: u64) {
        // Whole pages inside the range only; a hint, so failure does not matter.
        const PAGE: u64 = 65_536;
        let end = offset.saturating_add(len);
        // The last page is dropped too where nothing follows it.
        let end = if end >= self.len() { self.len() } else { end / PAGE * PAGE };
        let first = offset.next_multiple_of(PAGE);
        #[cfg(unix)]
        if first < end && end <= self.len() {
            // SAFETY: dropping clean pages of a read-only file mapping: the next access reads them from the file again.
            let _ = unsafe {
                self.0.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    first as usize,
                    (end - first) as usize,
                )
            };
        }
        #[cfg(not(unix))]
        let _ = (first, end);
    }
}

/// Open a model: a GGUF file, or a directory in Hugging Face's safetensors layout.
pub fn open_model(path: &Path) -> Result<Model> {
    if path.is_dir() {
        return Ok(open_safetensors(&files_of(path))?);
    }
    let file = MappedFile::open(path).map_err(file_error(path))?;
    Ok(open_gguf(Box::new(file))?)
}

/// Open an encoder: a directory in Hugging Face's safetensors layout.
pub fn open_encoder(path: &Path) -> Result<Bert> {
    Ok(open_bert(&files_of(path))?)
}

/// Read the heads that were trained on an encoder.
pub fn open_heads(path: &Path) -> Result<Heads> {
    let bytes = std::fs::read(path).map_err(file_error(path))?;
    Ok(Heads::from_bytes(&bytes)?)
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::File { path, source }
}

/// Opens the files of a directory by name.
fn files_of(directory: &Path) -> impl Fn(&str) -> concertina_formats::Result<Option<Box<dyn ByteSource>>> {
    move |name| {
        // Names come from an index file: none may leave the directory.
        if Path::new(name).components().count() != 1 || name == ".." || name == "." {
            return Err(concertina_formats::Error::malformed("weight_map", format!("'{name}' is not a file name")));
        }
        let path = directory.join(name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Box::new(MappedFile::open(&path)?)))
    }
}

/// BLAKE3 of a file, in hexadecimal.
pub fn blake3_of(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}
