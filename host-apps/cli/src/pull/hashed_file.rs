//! A file that is appended to and hashed on the way, so that a whole model is never read only to be hashed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// An open file, its length, and the SHA-256 of all of it.
#[derive(Debug)]
pub struct HashedFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    len: u64,
}

/// A point to go back to with [`HashedFile::rewind`].
#[derive(Debug, Clone)]
pub struct Checkpoint {
    hasher: Sha256,
    len: u64,
}

/// Length and SHA-256, in lower-case hexadecimal, of files that are only read, as if they were joined.
pub fn hash_files<'a>(paths: impl IntoIterator<Item = &'a Path>, mut hashed: impl FnMut(u64)) -> Result<(u64, String)> {
    let (mut hasher, mut len) = (Sha256::new(), 0);
    for path in paths {
        let opened = File::open(path).and_then(|mut file| hash(&mut file, &mut hasher, &mut len, &mut hashed));
        opened.with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok((len, hexadecimal(hasher)))
}

/// Hashes from where `file` stands to its end.
fn hash(file: &mut File, hasher: &mut Sha256, len: &mut u64, hashed: &mut impl FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..read]);
        *len += read as u64;
        hashed(*len);
    }
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl HashedFile {
    /// Opens or creates `path`, keeps at most its first `keep` bytes, and hashes what is kept.
    pub fn resume(path: &Path, keep: u64, mut hashed: impl FnMut(u64)) -> Result<Self> {
        let mut open = || -> io::Result<Self> {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            if file.metadata()?.len() > keep {
                file.set_len(keep)?;
            }
            let (mut hasher, mut len) = (Sha256::new(), 0);
            hash(&mut file, &mut hasher, &mut len, &mut hashed)?;
            Ok(Self { path: path.to_owned(), file, hasher, len })
        };
        open().with_context(|| format!("cannot open {}", path.display()))
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// The hash of everything so far, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        hexadecimal(self.hasher.clone())
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { hasher: self.hasher.clone(), len: self.len }
    }

    /// Forgets what was appended since `to`.
    pub fn rewind(&mut self, to: &Checkpoint) -> Result<()> {
        let mut rewind = || -> io::Result<()> {
            self.file.set_len(to.len)?;
            self.file.seek(SeekFrom::Start(to.len)).map(drop)
        };
        rewind().with_context(|| format!("cannot shorten {}", self.path.display()))?;
        self.hasher = to.hasher.clone();
        self.len = to.len;
        Ok(())
    }

    /// Forgets everything.
    pub fn clear(&mut self) -> Result<()> {
        self.rewind(&Checkpoint { hasher: Sha256::new(), len: 0 })
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("cannot sync {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn resumes_rewinds_and_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "abXXXX").unwrap();
        let mut file = HashedFile::resume(&path, 2, |_| {}).unwrap();
        assert_eq!(file.len(), 2);
        let checkpoint = file.checkpoint();
        file.append(b"rubbish").unwrap();
        file.rewind(&checkpoint).unwrap();
        file.append(b"c").unwrap();
        assert_eq!(file.sha256(), ABC);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        file.clear().unwrap();
        assert_eq!((file.len(), std::fs::read(&path).unwrap().len()), (0, 0));
    }
}
