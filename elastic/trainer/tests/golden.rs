//! The trainer's forward pass against logits of an independent one. Skips, and says so, where models or the oracle are
//! absent.
#![allow(clippy::print_stderr, reason = "a test says what it skipped and how far off it was")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use concertina_trainer::file::open_model;
use concertina_trainer::net::{Batch, Net, Pass};
use concertina_trainer::ops::head::each_row;
use serde::Deserialize;

/// Largest difference of one of the top 16 logits, which are between 5 and 30.
const TOLERANCE: f32 = 2e-3;

#[derive(Deserialize)]
struct Oracle {
    prompts: BTreeMap<String, Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    top16: Vec<Vec<(u32, f32)>>,
}

fn files(name: &str) -> Option<(PathBuf, PathBuf)> {
    let model = PathBuf::from(std::env::var_os("CONCERTINA_TEST_MODELS")?).join(format!("{name}.gguf"));
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let oracle = std::env::var_os("CONCERTINA_ORACLE").map_or_else(beside, PathBuf::from).join(format!("{name}.json"));
    (model.is_file() && oracle.is_file()).then_some((model, oracle))
}

fn check(name: &str) {
    let Some((model, oracle)) = files(name) else {
        eprintln!("skipped: {name} (no model or no oracle)");
        return;
    };
    let net = Net::load(&open_model(&model).unwrap()).unwrap();
    let oracle: Oracle = serde_json::from_slice(&std::fs::read(oracle).unwrap()).unwrap();
    let units = net.full();
    let pass = Pass::new(&net, &units, None).unwrap();
    for (prompt, expected) in &oracle.prompts {
        let batch = Batch { ids: expected.tokens.clone(), tokens: expected.tokens.len() };
        let hidden = pass.hidden(&batch).unwrap();
        let rows = each_row(&hidden, &net.head, |_, row| row.to_vec()).unwrap();
        let mut worst = 0f32;
        for (position, top) in expected.positions.iter().zip(&expected.top16) {
            for (id, logit) in top {
                worst = worst.max((rows[*position][*id as usize] - logit).abs());
            }
        }
        eprintln!("{name}, {prompt}: {} positions, off by {worst:.2e} at most", expected.positions.len());
        assert!(worst <= TOLERANCE, "{name}, {prompt}: {worst}");
    }
}

#[test]
fn smollm2_135m() {
    check("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen25_coder_05b() {
    check("qwen2.5-coder-0.5b-instruct-q4_k_m");
}
