//! What a heads file says of a text: the second opinion on the engine's encoder.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use concertina_elastic::heads::Heads;
use concertina_elastic::prompt::words;
use serde::Serialize;

use super::encoded::{BOTTOM, Encoded};
use super::score::{Scorer, restored_linear};
use crate::minilm::{Layer, MiniLm};

/// What the heads say of a text.
#[derive(Debug, Clone, Serialize)]
pub struct Opinion {
    /// The text.
    pub text: String,
    /// Its words.
    pub words: Vec<String>,
    /// A score each. A word without pieces has none.
    pub scores: Vec<Option<f32>>,
    /// For some targets.
    pub decisions: Vec<Logits>,
}

/// Logits of levels for a target.
#[derive(Debug, Clone, Serialize)]
pub struct Logits {
    /// TTFT target in percent.
    pub ttft: u32,
    /// TPOT target in percent.
    pub tpot: u32,
    /// One a prompt level.
    pub prompt: Vec<f32>,
    /// One a model level.
    pub model: Vec<f32>,
}

/// The score head of a heads file.
///
/// # Errors
/// If the heads are of another encoder.
pub(super) fn stored_scorer(minilm: &MiniLm, heads: &Heads) -> Result<Scorer> {
    let id = &heads.encoder;
    ensure!(id.source_blake3 == minilm.hash, "the heads are of another encoder ({})", id.source_blake3);
    ensure!(id.bottom_layers == BOTTOM, "a bottom of {} layers; {BOTTOM} are computed", id.bottom_layers);
    Scorer::restored(&heads.score, id.heads)
}

/// Read a text with stored heads, for the first and the last target of each kind.
///
/// # Errors
/// If the heads are of another encoder, or candle refuses.
pub fn encode(minilm: &MiniLm, heads: &Heads, text: &str) -> Result<Opinion> {
    let scorer = stored_scorer(minilm, heads)?;
    let id = &heads.encoder;
    let split = words(text);
    let encoded = Encoded::of(minilm, text, &split)?;
    let scores = scorer.ranking(&encoded)?;
    let decision = &heads.decision;
    let layer = Layer::restored(&decision.layer)?;
    let (prompt, model) = (restored_linear(&decision.prompt)?, restored_linear(&decision.model)?);
    let row =
        |rows: &[f32], i: usize| Tensor::from_slice(&rows[i * id.dim..(i + 1) * id.dim], (1, id.dim), &Device::Cpu);
    let last = (heads.ttft_targets.len() - 1, heads.tpot_targets.len() - 1);
    let mut decisions = Vec::new();
    for (ttft, tpot) in [(0, 0), last] {
        let mut firsts = Vec::new();
        for rows in &encoded.windows {
            let x = Tensor::cat(&[&row(&decision.ttft, ttft)?, &row(&decision.tpot, tpot)?, rows], 0)?;
            firsts.push(layer.forward(&x, id.heads)?.narrow(0, 0, 1)?);
        }
        // The readouts are linear: the mean of windows' logits is that of their rows.
        let first = Tensor::cat(&firsts, 0)?.mean_keepdim(0)?;
        decisions.push(Logits {
            ttft: heads.ttft_targets[ttft],
            tpot: heads.tpot_targets[tpot],
            prompt: prompt.apply(&first)?.squeeze(0)?.to_vec1()?,
            model: model.apply(&first)?.squeeze(0)?.to_vec1()?,
        });
    }
    Ok(Opinion {
        words: split.iter().map(|word| text[word.text.clone()].to_owned()).collect(),
        scores: scores.into_iter().map(|s| s.is_finite().then_some(s)).collect(),
        text: text.into(),
        decisions,
    })
}
