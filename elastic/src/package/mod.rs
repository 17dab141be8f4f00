//! The package: all that makes a model elastic, in one file.
//!
//! A safetensors file, which can be mapped. Its metadata has one entry, `concertina`, with a head as JSON. Tensors:
//!
//! | name | type and shape | content |
//! |---|---|---|
//! | `order.groups` | U32 `(layers, groups)` | original KV group at each place |
//! | `order.heads` | U32 `(layers, heads)` | original query head at each place |
//! | `order.neurons` | U32 `(layers, neurons)` | original neuron at each place |
//! | `levels` | U32 `(levels, layers, 2)` | groups and neurons that each layer keeps; 0: that half is left out |
//! | `adapters.LEVEL.codes` | I8 `(n)` | of each adapter in turn: `a`, `b`, `c` |
//! | `adapters.LEVEL.scales` | F32 `(m)` | of each adapter in turn: a scale a row of `a`, of `b`, and one of `c` |
//!
//! Adapters lie in the order of their sites in the head. Reading checks everything against everything: sizes, orders,
//! steps, numbers that are none. What is wrong is an [`Error`] that names it.

mod adapter;
mod read;
mod write;

pub use adapter::{Adapter, LevelAdapters, Site};

use serde::{Deserialize, Serialize};

use crate::{Error, LayerOrder, LayerShape, SubModel};

/// Version of the format that is written and read.
pub const VERSION: u32 = 1;

/// What errors call it.
const FILE: &str = "package";

fn malformed(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Malformed { file: FILE, field: field.into(), problem: problem.into() }
}

/// Which model a package is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelId {
    /// BLAKE3 of the model file that was analysed.
    pub source_blake3: String,
    /// BLAKE3 of the file whose units lie in this order; a level's prefix and the adapters are of that file.
    pub permuted_blake3: String,
    /// Type of `down` in that file.
    pub down: String,
}

/// Sizes that the model must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// KV groups of a layer.
    pub groups: usize,
    /// Neurons of a layer.
    pub neurons: usize,
    /// Groups are kept in multiples of this.
    pub group_step: usize,
    /// Neurons are kept in multiples of this.
    pub neuron_step: usize,
}

impl Shape {
    /// Of one layer.
    pub fn layer(&self) -> LayerShape {
        LayerShape {
            groups: self.groups,
            neurons: self.neurons,
            group_step: self.group_step,
            neuron_step: self.neuron_step,
        }
    }

    /// Columns of O that belong to a group.
    pub fn group_cols(&self) -> usize {
        self.heads / self.groups.max(1) * self.head_dim
    }
}

/// What making the package took.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The command line that makes it.
    pub command: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Tokens read for importance, anchors and levels.
    pub calibration_tokens: u64,
    /// Tokens read to train adapters, all levels together.
    pub training_tokens: u64,
    /// Seconds that all of it took.
    pub seconds: f64,
}

/// The package.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// Which model it is for.
    pub model: ModelId,
    /// Sizes of that model.
    pub shape: Shape,
    /// What the order is by.
    pub criterion: String,
    /// Original units at each place, by layer.
    pub order: Vec<LayerOrder>,
    /// Layers that are never cut, rising.
    pub anchors: Vec<usize>,
    /// The level table, by rising level; the last is 100.
    pub levels: Vec<SubModel>,
    /// Recovery adapters of levels, by rising level; a level may have none.
    pub adapters: Vec<LevelAdapters>,
    /// What it took.
    pub report: Report,
}

impl Package {
    /// The sub-model of a level of the table.
    pub fn level(&self, level: u32) -> Option<&SubModel> {
        self.levels.iter().find(|sub| sub.level == level)
    }

    /// The adapters of a level, if it has any.
    pub fn adapters(&self, level: u32) -> Option<&LevelAdapters> {
        self.adapters.iter().find(|adapters| adapters.level == level)
    }

    /// Inputs of the matrix at `site` of a layer in `sub`.
    pub(crate) fn inputs(shape: &Shape, sub: &SubModel, layer: usize, site: Site) -> usize {
        sub.layers.get(layer).map_or(0, |units| match site {
            Site::O => units.groups * shape.group_cols(),
            Site::Down => units.neurons,
        })
    }
}

/// The metadata entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    model: ModelId,
    shape: Shape,
    criterion: String,
    anchors: Vec<usize>,
    levels: Vec<u32>,
    adapters: Vec<AdaptersHead>,
    report: Report,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptersHead {
    level: u32,
    rank: usize,
    sites: Vec<(usize, Site)>,
}

#[cfg(test)]
mod tests;
