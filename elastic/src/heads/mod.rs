//! The heads: what is trained of the encoder that reads a prompt before the model does (ElastiLM, arXiv 2409.09071), in one
//! file.
//!
//! The encoder's bottom, embeddings and the first layers of a BERT model, is not in it: [`EncoderId`] names the file it is
//! read from. Each head is one more layer of the same shape (BERT's: norms after the sums, GELU by erf) and what reads its
//! rows. The score head says of each token whether to keep it. The decision head sees two rows of its own before the
//! prompt's, one for each target, and reads the first of them after the layer.
//!
//! A safetensors file, which can be mapped. Its metadata has one entry, `concertina`, with a head as JSON. Tensors, where
//! `HEAD` is `score` or `decision`:
//!
//! | name | type and shape | content |
//! |---|---|---|
//! | `HEAD.layer.{q,k,v,o}.weight` | U8 `(dim, dim / 32 · 34)` | Q8_0 blocks, `(outputs, inputs)` |
//! | `HEAD.layer.up.weight` | U8 `(ffn, dim / 32 · 34)` | the same |
//! | `HEAD.layer.down.weight` | U8 `(dim, ffn / 32 · 34)` | the same |
//! | `HEAD.layer.{q,k,v,o,up,down}.bias` | F32 `(outputs)` | |
//! | `HEAD.layer.{attn_norm,ffn_norm}.{weight,bias}` | F32 `(dim)` | after attention, after the MLP |
//! | `score.out.weight`, `.bias` | F32 `(1, dim)`, `(1)` | logit of keeping a token |
//! | `decision.prompt.weight`, `.bias` | F32 `(prompt levels, dim)`, `(prompt levels)` | logits of prompt levels |
//! | `decision.model.weight`, `.bias` | F32 `(model levels, dim)`, `(model levels)` | logits of model levels |
//! | `decision.ttft` | F32 `(TTFT targets, dim)` | the row of each target |
//! | `decision.tpot` | F32 `(TPOT targets, dim)` | the same |
//!
//! Reading checks every size, every list and that every number is one. What is wrong is an [`Error`] that names it.

mod layer;
mod read;
mod write;

pub use layer::{Dense, Layer, Linear, Matrix, Norm};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Version of the format that is written and read.
pub const VERSION: u32 = 1;

/// Which encoder the heads stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderId {
    /// BLAKE3 of the file that holds the bottom.
    pub source_blake3: String,
    /// Layers of it that both heads share.
    pub bottom_layers: usize,
    /// Width of its rows.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Neurons of the MLP.
    pub ffn: usize,
    /// Tokens that it reads at once, `[CLS]` and `[SEP]` included.
    pub positions: usize,
}

/// What making the heads took.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The command line that makes them.
    pub command: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Prompts whose words were labelled for the score head.
    pub prompts: u64,
    /// Questions that were answered at every pair of levels for the decision head.
    pub questions: u64,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// Says of each token whether to keep it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreHead {
    /// The layer over the bottom's rows.
    pub layer: Layer,
    /// `(1, dim)`: the logit of keeping a token. A word's score is the mean over its tokens.
    pub out: Linear,
}

/// Picks a prompt level and a model level for a target.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionHead {
    /// The layer over the target's two rows and the bottom's.
    pub layer: Layer,
    /// `(prompt levels, dim)`, of the first row after the layer.
    pub prompt: Linear,
    /// `(model levels, dim)`, of the first row after the layer.
    pub model: Linear,
    /// `(TTFT targets, dim)`: the first row before the layer.
    pub ttft: Vec<f32>,
    /// `(TPOT targets, dim)`: the second row before the layer.
    pub tpot: Vec<f32>,
}

/// Both heads.
#[derive(Debug, Clone, PartialEq)]
pub struct Heads {
    /// What they stand on.
    pub encoder: EncoderId,
    /// BLAKE3 of the model file that the labels came from: the one whose units lie in order.
    pub model_blake3: String,
    /// TTFT that a call may ask for, in percent of the whole model's on the whole prompt; rising to 100.
    pub ttft_targets: Vec<u32>,
    /// TPOT that a call may ask for, in percent of the whole model's; rising to 100.
    pub tpot_targets: Vec<u32>,
    /// Prompt levels in percent of the words, rising to 100.
    pub prompt_levels: Vec<u32>,
    /// Levels of the model, rising to 100.
    pub model_levels: Vec<u32>,
    /// Keep or drop.
    pub score: ScoreHead,
    /// Levels for a target.
    pub decision: DecisionHead,
    /// What it took.
    pub report: Report,
}

/// The metadata entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    encoder: EncoderId,
    model_blake3: String,
    ttft_targets: Vec<u32>,
    tpot_targets: Vec<u32>,
    prompt_levels: Vec<u32>,
    model_levels: Vec<u32>,
    report: Report,
}

/// What errors call it.
const FILE: &str = "heads file";

fn malformed(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Malformed { file: FILE, field: field.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
