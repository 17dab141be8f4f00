//! Findings that are written one by one, so that work that was stopped goes on at the next.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file with a line that says what findings depend on, then a line of JSON for each.
pub struct Records<T> {
    path: PathBuf,
    file: File,
    /// What was found so far, in order.
    pub found: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Open the file, or begin it. A last line that was torn is dropped.
    ///
    /// # Errors
    /// If it cannot be read, or is of another `basis`.
    pub fn open(path: &Path, basis: &str) -> Result<Self> {
        let bytes = if path.is_file() { std::fs::read(path)? } else { Vec::new() };
        // Whole lines end with a line feed.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..whole]).with_context(|| format!("{}", path.display()))?;
        let mut lines = text.lines();
        let first = lines.next();
        let there = first.unwrap_or(basis);
        ensure!(there == basis, "{} is of other work ({there}): remove it to begin again", path.display());
        let found: Vec<T> = lines
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is damaged: remove it to begin again", path.display()))?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(whole as u64)?;
        if first.is_none() {
            writeln!(file, "{basis}")?;
        }
        Ok(Self { path: path.into(), file, found })
    }

    /// Add a finding.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, finding: T) -> Result<()> {
        let mut line = serde_json::to_string(&finding)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.found.push(finding);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_after_the_last_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        let mut records = Records::<u32>::open(&path, "basis").unwrap();
        records.add(1).unwrap();
        records.add(2).unwrap();
        drop(records);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"3");
        std::fs::write(&path, torn).unwrap();
        let mut records = Records::<u32>::open(&path, "basis").unwrap();
        assert_eq!(records.found, [1, 2]);
        records.add(4).unwrap();
        assert_eq!(Records::<u32>::open(&path, "basis").unwrap().found, [1, 2, 4]);
        let error = Records::<u32>::open(&path, "other").err().unwrap().to_string();
        assert!(error.contains("of other work"), "{error}");
    }
}
