//! Runs over time: a line of JSON each.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A run as the history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Seconds since 1970.
    pub unix_s: u64,
    pub adapter: String,
    pub model: String,
    /// Kinds of passes.
    pub names: Vec<String>,
    /// Milliseconds of each.
    pub ms: Vec<f64>,
    /// Share of matrix kernels of each.
    pub matrix_share: Vec<f64>,
}

/// Append a run, and return those of the same adapter, model and kinds of passes, oldest first. Lines that are no runs are
/// passed over: a file may be torn, or written by another version.
pub fn append(path: &Path, run: Run) -> Result<Vec<Run>> {
    let at = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new().create(true).append(true).open(path).with_context(at)?;
    writeln!(file, "{}", serde_json::to_string(&run)?).with_context(at)?;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let like = |old: &Run| {
        let lengths = old.ms.len() == old.names.len();
        lengths && (&old.adapter, &old.model, &old.names) == (&run.adapter, &run.model, &run.names)
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(like).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_lines_and_other_adapters_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.jsonl");
        let run = |adapter: &str, ms| Run {
            unix_s: 1,
            adapter: adapter.into(),
            model: "m".into(),
            names: vec!["decode".into()],
            ms: vec![ms],
            matrix_share: vec![0.5],
        };
        append(&path, run("a", 1.0)).unwrap();
        append(&path, run("b", 2.0)).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"unix_s\": \n").unwrap();
        let runs = append(&path, run("a", 3.0)).unwrap();
        assert_eq!(runs, [run("a", 1.0), run("a", 3.0)]);
    }
}
