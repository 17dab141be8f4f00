//! The chunk store's files, in one directory that one process owns.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use concertina_kv::store::Medium;

/// Files of a directory. Open files are kept open.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    open: Mutex<HashMap<String, Arc<File>>>,
    /// Held locked, so that no second process opens the store.
    _lock: File,
}

impl Directory {
    /// Make the directory where there is none, readable by its owner only, and lock it.
    ///
    /// # Errors
    /// Where that fails; [`io::ErrorKind::WouldBlock`] where another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        let lock = options().open(path.join("lock"))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { path: path.to_owned(), open: Mutex::default(), _lock: lock })
    }

    /// A file by name; created where `create` is set.
    fn file(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        if !is_plain(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(name) {
            return Ok(Arc::clone(file));
        }
        let path = self.path.join(name);
        let file = Arc::new(if create { options().open(path)? } else { options().create(false).open(path)? });
        open.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn sync_directory(&self) -> io::Result<()> {
        // Elsewhere a directory cannot be synced; a new file's existence is durable with its contents.
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') && name != "lock"
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(unix)]
fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => (out, offset) = (&mut out[n..], offset + n as u64),
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_all_at(file: &File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, data, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => (data, offset) = (&data[n..], offset + n as u64),
        }
    }
    Ok(())
}

impl Medium for Directory {
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        match self.file(name, false) {
            Ok(file) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_exact_at(&*self.file(name, false)?, out, offset)
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        write_all_at(&*self.file(name, true)?, data, offset)
    }

    fn set_len(&self, name: &str, len: u64) -> io::Result<()> {
        self.file(name, true)?.set_len(len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let file = self.file(name, true)?;
        // The length of a file decides what can be read back, so its metadata counts.
        file.sync_all()?;
        self.sync_directory()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && is_plain(&name)
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use concertina_kv::store::{ModelId, Options, Store};

    #[test]
    fn a_store_in_a_directory_is_there_after_reopening() {
        let path = std::env::temp_dir().join(format!("concertina-store-{}", std::process::id()));
        let directory = || Arc::new(Directory::open(&path).unwrap());
        let mut store = Store::open(directory(), &Options::new([1; 32], [1; 32])).unwrap();
        let context = store.create("mail", ModelId([0; 32]), 0).unwrap();
        store.append("mail", context, 0, &[1, 2, 3], 0).unwrap();
        assert!(Directory::open(&path).is_err(), "one process at a time");
        drop(store);
        let mut store = Store::open(directory(), &Options::new([1; 32], [2; 32])).unwrap();
        assert_eq!(store.tokens("mail", context).unwrap(), [1, 2, 3]);
        drop(store);
        std::fs::remove_dir_all(&path).unwrap();
    }
}
