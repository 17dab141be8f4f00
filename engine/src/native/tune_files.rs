//! What the tuner found, as files of a directory.

use std::path::{Path, PathBuf};

use crate::tune::TuneHost;

/// Keeps what the tuner found in a directory, a file a key. A file that cannot be read or written is as none.
#[derive(Debug, Clone)]
pub struct TuneFiles(PathBuf);

impl TuneFiles {
    /// In `directory`, which is made when there is something to keep.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The file of a key.
    pub fn path(&self, key: &str) -> PathBuf {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        self.0.join(format!("{hash:016x}.json"))
    }
}

impl TuneHost for TuneFiles {
    fn load(&self, key: &str) -> Option<String> {
        std::fs::read_to_string(self.path(key)).ok()
    }

    fn store(&self, key: &str, text: &str) {
        if let Err(e) = write(&self.path(key), text) {
            log::info!("what the tuner found is not kept: {}: {e}", self.0.display());
        }
    }
}

/// Written beside it and renamed, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    std::fs::write(&partial, text)?;
    std::fs::rename(&partial, path)
}
