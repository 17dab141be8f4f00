//! The device key in a file that only its owner can read.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::key::DeviceKey;

/// The file's name. It lies beside the store's directory, so that a copy of the store is of no use without it.
pub const NAME: &str = "device.key";

/// A key file, whether or not it exists.
#[derive(Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    pub fn beside(directory: &Path) -> Self {
        Self(directory.join(NAME))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The key; `None` where there is no file. A file that others can read is refused.
    pub fn load(&self) -> Result<Option<DeviceKey>> {
        let path = self.0.display();
        let mut file = match File::open(&self.0) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read the device key {path}")),
        };
        let metadata = file.metadata().with_context(|| format!("cannot look at {path}"))?;
        ensure!(metadata.is_file(), "the device key {path} is not a file");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
            ensure!(
                mode & 0o077 == 0,
                "others can read or change the device key {path} (mode {mode:o}), so it may be known: `chmod 600 {path}` \
                 if you are sure that nobody did"
            );
        }
        let mut key = DeviceKey::default();
        let whole = metadata.len() == key.len() as u64 && file.read_exact(&mut key[..]).is_ok();
        ensure!(whole, "{path} is damaged: a device key is {} bytes, this has {}", key.len(), metadata.len());
        Ok(Some(key))
    }

    /// Write the key, in one step and durably. Where another process was faster its key stands, and is returned.
    pub fn make(&self, key: &DeviceKey) -> Result<DeviceKey> {
        let directory = self.0.parent().unwrap_or_else(|| Path::new("."));
        let write = || -> io::Result<bool> {
            // Only its owner can read it from the beginning on.
            let mut file = tempfile::Builder::new().prefix(".device.key.").tempfile_in(directory)?;
            file.write_all(&key[..])?;
            file.as_file().sync_all()?;
            match file.persist_noclobber(&self.0) {
                Ok(_) => {}
                Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                Err(e) => return Err(e.error),
            }
            sync_directory(directory)?;
            Ok(true)
        };
        let made = write().with_context(|| format!("cannot write the device key {}", self.0.display()))?;
        if made {
            return Ok(key.clone());
        }
        self.load()?.with_context(|| format!("the device key {} came and went", self.0.display()))
    }
}

/// A new name is durable once its directory is.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DeviceKey {
        DeviceKey::new([byte; 32])
    }

    #[test]
    fn a_key_is_written_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::beside(dir.path());
        assert!(file.load().unwrap().is_none());
        assert_eq!(file.make(&key(1)).unwrap(), key(1));
        assert_eq!(file.load().unwrap(), Some(key(1)));
        assert_eq!(file.make(&key(2)).unwrap(), key(1), "the first one stands");
        assert_eq!(file.load().unwrap(), Some(key(1)));
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME], "nothing is left over");
    }

    #[test]
    fn makers_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let make = |byte| {
            let file = KeyFile::beside(dir.path());
            move || file.make(&key(byte)).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|byte| std::thread::spawn(make(byte))).collect();
        let made: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(made.iter().all(|key| key == &made[0]));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::beside(dir.path());
        file.make(&key(1)).unwrap();
        let mode = || fs::metadata(file.path()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o600);
        for open in [0o640, 0o604, 0o620, 0o660, 0o644] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(open)).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{open:o}")), "{error}");
            assert!(file.make(&key(2)).is_err(), "and not replaced");
        }
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(file.load().unwrap(), Some(key(1)));
    }

    #[test]
    fn a_damaged_key_is_neither_used_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::beside(dir.path());
        file.make(&key(1)).unwrap();
        for length in [0, 31, 33] {
            fs::write(file.path(), vec![1; length]).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains("damaged"), "{error}");
        }
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.load().is_err());
    }
}
