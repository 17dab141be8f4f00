//! The frozen part: embeddings and the first layers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::pieces::Pieces;
use super::{Layer, Norm};
use crate::file;

/// An encoder that was read from a folder.
pub struct MiniLm {
    /// BLAKE3 of `model.safetensors`.
    pub hash: String,
    /// Text to pieces.
    pub pieces: Pieces,
    /// Width of its rows.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Neurons of the MLP.
    pub ffn: usize,
    /// Pieces that it reads at once.
    pub positions: usize,
    /// All its layers.
    pub layers: Vec<Layer>,
    words: Tensor,
    places: Tensor,
    kind: Tensor,
    norm: Norm,
}

#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    max_position_embeddings: usize,
    hidden_act: String,
}

impl MiniLm {
    /// Read `model.safetensors`, `config.json` and `tokenizer.json` of a folder.
    ///
    /// # Errors
    /// If a file is missing, or is none of such a model.
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<(PathBuf, Vec<u8>)> {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((path, bytes))
        };
        let (path, bytes) = read("config.json")?;
        let config: Config = serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?;
        ensure!(config.hidden_act == "gelu", "{}: hidden_act {}, not gelu", path.display(), config.hidden_act);
        let (dim, heads, ffn) = (config.hidden_size, config.num_attention_heads, config.intermediate_size);
        ensure!(heads > 0 && dim % heads == 0, "{}: {heads} heads of {dim} dimensions", path.display());
        let (path, bytes) = read("tokenizer.json")?;
        let pieces = Pieces::new(&bytes).with_context(|| format!("{}", path.display()))?;
        let (path, bytes) = read("model.safetensors")?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .with_context(|| format!("{}", path.display()))?;
        let get = |name: &str| {
            let name = format!("embeddings.{name}");
            tensors.get(&name).cloned().with_context(|| format!("tensor '{name}' is missing"))
        };
        let layers = (0..config.num_hidden_layers).map(|i| Layer::read(&tensors, i, dim, ffn)).collect::<Result<_>>();
        let places = get("position_embeddings.weight")?;
        ensure!(places.dims() == [config.max_position_embeddings, dim], "position embeddings {:?}", places.dims());
        Ok(Self {
            hash: file::hash(&path)?,
            pieces,
            dim,
            heads,
            ffn,
            positions: config.max_position_embeddings,
            layers: layers?,
            words: get("word_embeddings.weight")?,
            places,
            // A text of one part: all its pieces are of kind 0.
            kind: get("token_type_embeddings.weight")?.narrow(0, 0, 1)?,
            norm: Norm { weight: get("LayerNorm.weight")?, bias: get("LayerNorm.bias")? },
        })
    }

    /// Rows `(n, dim)` of a window's pieces after the first `layers` layers.
    ///
    /// # Errors
    /// If the pieces are more than the positions, or candle refuses.
    pub fn rows(&self, pieces: &[u32], layers: usize) -> Result<Tensor> {
        ensure!(pieces.len() <= self.positions, "{} pieces, at most {} are read at once", pieces.len(), self.positions);
        let ids = Tensor::from_slice(pieces, pieces.len(), &Device::Cpu)?;
        let sum = (self.words.index_select(&ids, 0)? + self.places.narrow(0, 0, pieces.len())?)?;
        let mut x = self.norm.apply(&sum.broadcast_add(&self.kind)?)?;
        for layer in self.layers.iter().take(layers) {
            x = layer.forward(&x, self.heads)?;
        }
        Ok(x)
    }
}
