//! Reference logits made by an independent forward pass: `MODEL.json` and `MODEL.logits.npz` (see the oracle's README).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::note;

/// What the oracle knows of one model.
#[derive(Debug, Deserialize)]
pub struct Oracle {
    /// Prompts by name.
    pub prompts: BTreeMap<String, Prompt>,
}

/// What the oracle knows of one prompt.
#[derive(Debug, Deserialize)]
pub struct Prompt {
    /// Tokens of the prompt.
    pub tokens: Vec<u32>,
    /// Positions at which logits were taken.
    pub positions: Vec<usize>,
    /// Distance between the first two logits there.
    pub margin: Vec<f64>,
    /// Perplexity over next-token predictions.
    pub ppl: Option<f64>,
    /// Tokens of a greedy continuation.
    #[serde(default)]
    pub greedy: Vec<u32>,
    /// Distance between the first two logits at each of them.
    #[serde(default)]
    pub greedy_margin: Vec<f64>,
    /// Logits at the positions.
    #[serde(skip)]
    pub logits: Vec<Vec<f32>>,
}

/// `CONCERTINA_ORACLE`, or `../shared/oracle` beside the workspace.
fn directory() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracle");
    let directory = std::env::var_os("CONCERTINA_ORACLE").map_or_else(beside, PathBuf::from);
    directory.is_dir().then_some(directory)
}

impl Oracle {
    /// The oracle of a model; `None`, and a line that says so, where it is absent.
    ///
    /// # Panics
    /// If its files do not hold what they should.
    pub fn of(model: &str) -> Option<Self> {
        let directory = directory().or_else(|| {
            note(format!("skipped: {model} (no oracle: set CONCERTINA_ORACLE)"));
            None
        })?;
        let path = directory.join(format!("{model}.json"));
        let Ok(text) = std::fs::read(&path) else {
            note(format!("skipped: {model} (the oracle does not know it)"));
            return None;
        };
        let mut oracle: Self = serde_json::from_slice(&text).expect("an oracle's JSON");
        let file = File::open(directory.join(format!("{model}.logits.npz"))).expect("the oracle's logits");
        let mut arrays = zip::ZipArchive::new(file).expect("a zip archive");
        for (name, prompt) in &mut oracle.prompts {
            let mut bytes = Vec::new();
            let mut member = arrays.by_name(&format!("{name}.npy")).expect("an array for each prompt");
            member.read_to_end(&mut bytes).expect("a readable member");
            prompt.logits = npy_rows(&bytes);
            assert_eq!(prompt.logits.len(), prompt.positions.len(), "{name}: a row for each position");
            assert_eq!(prompt.margin.len(), prompt.positions.len(), "{name}: a margin for each position");
        }
        Some(oracle)
    }
}

/// Rows of a two-dimensional float32 array in NumPy's format, version 1.
fn npy_rows(bytes: &[u8]) -> Vec<Vec<f32>> {
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "not an .npy file of version 1");
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(header_len);
    let header = std::str::from_utf8(header).expect("an ASCII header");
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).expect("a shape");
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let [rows, cols] = shape[..] else { panic!("{shape:?} is not a shape of rows and columns") };
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(data);
    assert_eq!(values.len(), rows * cols, "an array as long as its shape");
    values.chunks_exact(cols).map(<[f32]>::to_vec).collect()
}
