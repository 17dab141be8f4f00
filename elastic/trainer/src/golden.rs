//! Logits of every level by this forward pass, for the engine to be compared with.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::compare::read_package;
use crate::elasticize::Order;
use crate::file;
use crate::net::{Batch, Net, Pass};
use crate::ops::head::each_row;
use crate::recover::package::restored;
use crate::watch::Watch;

/// What is read: nothing that any model was trained on.
const TEXT: &str = "Question: Why does a kettle whistle when its water boils?\nAnswer: Steam is pressed through two thin \
                    plates with a hole in each, and the jet between them becomes unsteady";
/// Logits that are told of a position.
const TOP: usize = 16;

/// The file.
#[derive(Debug, Serialize)]
pub struct Golden {
    /// BLAKE3 of the reordered model's file.
    pub permuted_blake3: String,
    /// Tokens that were read.
    pub tokens: Vec<u32>,
    /// Positions at which logits were taken.
    pub positions: Vec<usize>,
    /// Each level.
    pub levels: Vec<Level>,
}

/// A level's logits.
#[derive(Debug, Serialize)]
pub struct Level {
    /// The level.
    pub level: u32,
    /// Token and logit of the largest ones, by position, with the recovery adapters as they are stored.
    pub top: Vec<Vec<(u32, f32)>>,
    /// Sum of the squares of all logits, by position.
    pub squares: Vec<f64>,
}

/// Compute them, and write NAME.elastic.golden.json.
///
/// # Errors
/// If the package and the reordered model are not there, or not of each other.
pub fn golden(order: &Order, watch: &mut dyn Watch) -> Result<PathBuf> {
    let stem = order.model.file_stem().context("the model has no name")?.to_string_lossy().into_owned();
    let path = |suffix: &str| order.out.join(format!("{stem}.{suffix}"));
    let package = read_package(&path("elastic.safetensors"))?;
    let permuted_blake3 = file::hash(&path("elastic.gguf"))?;
    ensure!(permuted_blake3 == package.model.permuted_blake3, "the package is not of the reordered model");
    let model = file::open_model(&path("elastic.gguf"))?;
    let tokens = model.tokenizer.encode_prompt(TEXT, false)?;
    let net = Net::load(&model)?;
    let positions = vec![3, tokens.len() / 2, tokens.len() - 1];
    let mut levels = Vec::new();
    for sub in &package.levels {
        watch.say(&format!("level {}", sub.level));
        let adapters = package.adapters(sub.level).map(|stored| restored(stored, net.layers.len())).transpose()?;
        let batch = Batch { ids: tokens.clone(), tokens: tokens.len() };
        let hidden = Pass::new(&net, &sub.layers, adapters.as_ref())?.hidden(&batch)?;
        let rows = each_row(&hidden, &net.head, |_, row| row.to_vec())?;
        let top = |position: &usize| {
            let mut all: Vec<(u32, f32)> = (0..).zip(rows[*position].iter().copied()).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all.truncate(TOP);
            all
        };
        let squares = |position: &usize| rows[*position].iter().map(|x| f64::from(*x).powi(2)).sum();
        levels.push(Level {
            level: sub.level,
            top: positions.iter().map(top).collect(),
            squares: positions.iter().map(squares).collect(),
        });
    }
    let to = path("elastic.golden.json");
    let golden = Golden { permuted_blake3, tokens, positions, levels };
    file::write_whole(&to, serde_json::to_string(&golden)?.as_bytes())?;
    Ok(to)
}
