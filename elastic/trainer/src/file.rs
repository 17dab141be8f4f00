//! Model files through mmap.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context, Result};
use concertina_formats::{ByteSource, Model, open_gguf};
use memmap2::Mmap;

struct Mapped(Mmap);

impl ByteSource for Mapped {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len());
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        out.copy_from_slice(&self.0[offset as usize..end as usize]);
        Ok(())
    }
}

/// The bytes of a file.
///
/// # Errors
/// If it cannot be opened.
pub fn map(path: &Path) -> Result<Box<dyn ByteSource>> {
    let open = || -> io::Result<Mmap> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and all access goes through `read_at`, which copies. A file that another
        // process truncates meanwhile raises SIGBUS, as for every program that maps files.
        unsafe { Mmap::map(&file) }
    };
    Ok(Box::new(Mapped(open().with_context(|| format!("cannot open {}", path.display()))?)))
}

/// A GGUF model.
///
/// # Errors
/// If it cannot be opened, or is refused.
pub fn open_model(path: &Path) -> Result<Model> {
    open_gguf(map(path)?).with_context(|| format!("cannot open the model {}", path.display()))
}

/// The BLAKE3 hash of a file, as hexadecimal digits.
///
/// # Errors
/// If it cannot be read.
pub fn hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut piece = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut piece).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&piece[..n]);
    }
}

/// Write a file so that it is there whole or not at all.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
