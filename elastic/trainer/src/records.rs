//! Findings that are written one by one, so that work that was stopped goes on at the next.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A file with a line that says what findings depend on, then a line of JSON for each.
pub struct Records<T> {
    path: PathBuf,
    file: File,
    /// What was found so far, in order.
    pub found: Vec<T>,
    /// When the last finding was added.
    last: Instant,
}

/// A finding, and how long it took.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    seconds: f64,
    found: T,
}

/// Seconds that the findings of a file took.
pub(crate) fn seconds(path: &Path) -> f64 {
    #[derive(Deserialize)]
    struct Seconds {
        seconds: f64,
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().skip(1).filter_map(|line| serde_json::from_str::<Seconds>(line).ok());
    lines.map(|line| line.seconds).sum()
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
        let found: Vec<Line<T>> = lines
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is damaged: remove it to begin again", path.display()))?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(whole as u64)?;
        if first.is_none() {
            writeln!(file, "{basis}")?;
        }
        let found = found.into_iter().map(|line| line.found).collect();
        Ok(Self { path: path.into(), file, found, last: Instant::now() })
    }

    /// Add a finding.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, finding: T) -> Result<()> {
        let line = Line { seconds: self.last.elapsed().as_secs_f64(), found: finding };
        self.last = Instant::now();
        let (mut text, finding) = (serde_json::to_string(&line)?, line.found);
        text.push('\n');
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
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
        assert!(seconds(&path) > 0.0);
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
