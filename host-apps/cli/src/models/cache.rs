//! Where downloaded models lie.
//!
//! ```text
//! <root>/models/NAME.gguf            the model, complete and checked
//! <root>/models/NAME/                or a model that is a directory
//! <root>/models/NAME.verified.json   that its hash was checked, and for which size and time of change
//! <root>/models/NAME.partial/        what an interrupted pull left
//! <root>/models/NAME.lock            held while a pull runs
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::catalogue::Model;

/// The variable that moves the cache elsewhere.
pub const CACHE_ENV: &str = "CONCERTINA_CACHE";

/// Downloaded models under one root directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// What the cache holds of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Absent,
    /// A file of another length than the catalogue says.
    WrongSize(u64),
    /// The right length, but nobody has checked the hash since the file last changed.
    Unverified,
    Verified,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    sha256: String,
    bytes: u64,
    modified_ns: u128,
}

impl Cache {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `$CONCERTINA_CACHE`, or `concertina` in the platform's cache directory.
    pub fn from_env() -> Result<Self> {
        if let Some(root) = std::env::var_os(CACHE_ENV).filter(|v| !v.is_empty()) {
            return Ok(Self::at(PathBuf::from(root)));
        }
        let base = etcetera::base_strategy::choose_native_strategy().with_context(|| {
            format!("no home directory is known, so no cache directory: set {CACHE_ENV} to a directory")
        })?;
        Ok(Self::at(base.cache_dir().join("concertina")))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn models_dir(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Where the model lies: a file, or a directory.
    pub fn model_path(&self, model: &Model) -> PathBuf {
        let dir = self.models_dir();
        if model.files.is_empty() { dir.join(format!("{}.gguf", model.name)) } else { dir.join(&model.name) }
    }

    /// Its files with their sizes, in the order in which their joint hash is taken.
    pub fn files(&self, model: &Model) -> Vec<(PathBuf, u64)> {
        let path = self.model_path(model);
        if model.files.is_empty() {
            return vec![(path, model.bytes)];
        }
        model.files.iter().map(|file| (path.join(&file.name), file.bytes)).collect()
    }

    pub fn partial_dir(&self, model: &Model) -> PathBuf {
        self.models_dir().join(format!("{}.partial", model.name))
    }

    pub fn lock_path(&self, model: &Model) -> PathBuf {
        self.models_dir().join(format!("{}.lock", model.name))
    }

    fn marker_path(&self, model: &Model) -> PathBuf {
        self.models_dir().join(format!("{}.verified.json", model.name))
    }

    /// Looks at sizes and at the marker; reads no model.
    pub fn state(&self, model: &Model) -> Result<State> {
        let mut newest = None;
        let mut right = true;
        let mut found_bytes = 0;
        for (path, bytes) in self.files(model) {
            let found = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::Absent),
                Err(e) => return Err(e).with_context(|| format!("cannot look at {}", path.display())),
            };
            right &= found.len() == bytes;
            found_bytes += found.len();
            newest = newest.max(modified_ns(&found));
        }
        if !right {
            return Ok(State::WrongSize(found_bytes));
        }
        // A missing, torn or foreign marker only means that the hash has to be computed again.
        let marker =
            fs::read(self.marker_path(model)).ok().and_then(|text| serde_json::from_slice::<Marker>(&text).ok());
        let verified = marker.is_some_and(|marker| Some(marker) == Marker::of(model, newest));
        Ok(if verified { State::Verified } else { State::Unverified })
    }

    /// Records that the model's files have the hash of the catalogue.
    pub fn mark_verified(&self, model: &Model) -> Result<()> {
        let mut newest = None;
        for (path, _) in self.files(model) {
            newest = newest.max(modified_ns(&fs::metadata(path)?));
        }
        if let Some(marker) = Marker::of(model, newest) {
            write_atomically(&self.marker_path(model), &serde_json::to_vec(&marker)?)?;
        }
        Ok(())
    }
}

impl Marker {
    /// For files that last changed then.
    fn of(model: &Model, modified_ns: Option<u128>) -> Option<Self> {
        Some(Self { sha256: model.sha256.clone(), bytes: model.bytes, modified_ns: modified_ns? })
    }
}

/// When a file last changed, where its file system tells.
fn modified_ns(metadata: &fs::Metadata) -> Option<u128> {
    Some(metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos())
}

/// The user's own catalogue, whether or not it exists.
pub fn user_catalogue_path() -> Option<PathBuf> {
    Some(etcetera::base_strategy::choose_native_strategy().ok()?.config_dir().join("concertina").join("models.toml"))
}

/// Replaces `path` in one step: a crash leaves the old content or the new, never half of it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::catalogue::Catalogue;

    #[test]
    fn the_state_follows_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let mut model = Catalogue::load(None).unwrap().models()[0].clone();
        model.bytes = 3;
        assert_eq!(cache.state(&model).unwrap(), State::Absent);
        fs::create_dir_all(cache.models_dir()).unwrap();
        fs::write(cache.model_path(&model), "ab").unwrap();
        assert_eq!(cache.state(&model).unwrap(), State::WrongSize(2));
        fs::write(cache.model_path(&model), "abc").unwrap();
        assert_eq!(cache.state(&model).unwrap(), State::Unverified);
        cache.mark_verified(&model).unwrap();
        assert_eq!(cache.state(&model).unwrap(), State::Verified);

        let changed = File::options().write(true).open(cache.model_path(&model)).unwrap();
        changed.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(cache.state(&model).unwrap(), State::Unverified, "a changed file is checked again");

        cache.mark_verified(&model).unwrap();
        model.sha256 = "0".repeat(64);
        assert_eq!(cache.state(&model).unwrap(), State::Unverified, "the catalogue now wants another hash");
        fs::write(cache.marker_path(&model), "{").unwrap();
        assert_eq!(cache.state(&model).unwrap(), State::Unverified, "a torn marker is no marker");
    }
}
