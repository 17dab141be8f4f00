//! What came of requests, line by line in a file: a run that was stopped goes on where it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::ask::Done;

/// What came of a request, by policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number in the draw.
    pub request: usize,
    pub done: Vec<(String, Done)>,
}

/// Records, in a file if there is one.
#[derive(Debug)]
pub struct Records {
    pub known: Vec<Record>,
    file: Option<File>,
}

impl Records {
    /// Those of `path` for a run that `described` names; a new file begins with that name. A last line that was cut off by a
    /// kill is dropped.
    ///
    /// # Errors
    /// If the file is of another run, or another process has it, or it cannot be read or written.
    pub fn open(path: Option<&Path>, described: &str) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { known: Vec::new(), file: None }) };
        let what = || format!("cannot use {}", path.display());
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).with_context(what)?;
        match file.try_lock() {
            // Two that write side by side would write into each other's lines.
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{} is being written by another run: let it end, or name another file with --records",
                    path.display()
                )
            }
            // File systems without locks are no reason to keep nothing.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(what)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let head = lines.next();
        ensure!(
            head.is_none_or(|head| head == described),
            "{} is of another run:\n  {}\nand this one is\n  {described}\nname another file with --records",
            path.display(),
            head.unwrap_or_default()
        );
        let known: Vec<Record> = lines.map(serde_json::from_str).collect::<Result<_, _>>().with_context(what)?;
        file.set_len(whole as u64).with_context(what)?;
        file.seek(SeekFrom::End(0)).with_context(what)?;
        if head.is_none() {
            writeln!(file, "{described}").with_context(what)?;
        }
        Ok(Self { known, file: Some(file) })
    }

    /// Another one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, record: Record) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&record)?).context("cannot write the records")?;
        }
        self.known.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(request: usize) -> Record {
        let done = Done {
            right: true,
            right_plain: true,
            right_a_token: false,
            met: false,
            prompt_level: 60,
            level: 80,
            kept: 0.6,
            target: concertina::elastic::slo::Target { ttft_ms: Some(1.5), tpot_ms: None },
            predicted: Some((1.0, 2.0)),
            measured: (1.25, 2.5),
            apart: None,
            feasible: true,
            encoder: true,
            decide_ms: 0.5,
        };
        Record { request, done: vec![("ours".into(), done)] }
    }

    #[test]
    fn a_run_goes_on_where_it_was_killed() {
        let dir = std::env::temp_dir().join(format!("concertina-records-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("r.jsonl");
        let _ = std::fs::remove_file(&path);
        let mut records = Records::open(Some(&path), "this run").unwrap();
        records.add(record(0)).unwrap();
        records.add(record(1)).unwrap();
        drop(records);
        // The third was cut off.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"request\":2,\"do");
        std::fs::write(&path, &bytes).unwrap();
        let mut again = Records::open(Some(&path), "this run").unwrap();
        let beside = Records::open(Some(&path), "this run").unwrap_err().to_string();
        assert!(beside.contains("another run") && beside.contains("--records"), "{beside}");
        assert_eq!(again.known, [record(0), record(1)]);
        again.add(record(2)).unwrap();
        drop(again);
        assert_eq!(Records::open(Some(&path), "this run").unwrap().known.len(), 3);
        let error = Records::open(Some(&path), "that run").unwrap_err().to_string();
        assert!(error.contains("another run") && error.contains("--records"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
