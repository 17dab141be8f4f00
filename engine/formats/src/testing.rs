//! Tiny complete models for tests, as the bytes of files: hidden from documentation, not part of the API, free to panic.
//!
//! ```
//! use concertina_formats::{MemorySource, open_gguf, testing::TinyModel};
//! let bytes = TinyModel::new("qwen2").gguf();
//! assert_eq!(open_gguf(Box::new(MemorySource(bytes))).unwrap().spec.layers.len(), 2);
//! ```

mod blocks;
mod fields;
mod gguf_file;
mod rng;
mod safetensors_dir;
mod tiny_bert;
mod vocabulary;
mod writer;

#[cfg(test)]
pub(crate) use blocks::pack_scales;
pub use blocks::{encode_floats, random_blocks};
pub use fields::{Field, FieldKind, header_fields};
pub use rng::Rng;
pub use safetensors_dir::{open_map, split_in_shards};
pub use tiny_bert::TinyBert;
pub use vocabulary::{CHAT_TEMPLATE, Vocabulary};
pub use writer::GgufWriter;

use crate::DType;

/// A little model with pseudo-random weights. The same seed gives the same model in both worlds: where the types are
/// floats, a GGUF file and a safetensors directory of one `TinyModel` compute the same function.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// `llama`, `qwen2` or `gemma3`.
    pub arch: &'static str,
    /// Seed of the weights.
    pub seed: u64,
    /// Layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Neurons of the MLP.
    pub ffn: usize,
    /// Query heads.
    pub n_heads: usize,
    /// KV groups.
    pub n_groups: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Tokens of context.
    pub context_len: usize,
    /// Sliding window (gemma3).
    pub window: usize,
    /// Every so many layers, one has no window (gemma3).
    pub window_pattern: usize,
    /// Whether llama has biases on Q, K and V (qwen2 always does).
    pub qkv_bias: bool,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Type of the layers' matrices.
    pub matrices: DType,
    /// Type of the embedding.
    pub embed: DType,
    /// Type of the output matrix, when not tied.
    pub output: DType,
    /// Types of single roles, by their GGUF name without `blk.N.` and `.weight`: `("ffn_down", DType::Q8_0)`.
    pub overrides: Vec<(&'static str, DType)>,
    /// llama 3's `rope_freqs`: `head_dim / 2` divisors, or none. GGUF only.
    pub rope_factors: Vec<f32>,
    /// The chat template, if any.
    pub chat_template: Option<String>,
}

/// One tensor of a [`TinyModel`].
pub(crate) struct TinyTensor {
    pub(crate) gguf: String,
    pub(crate) hf: String,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) dtype: DType,
    pub(crate) kind: Kind,
}

/// What a tensor is for, which decides its values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Matrix,
    /// Rows of Q or K, which GGUF's llama permutes: with the number of heads.
    Rotated(usize),
    Bias,
    /// A bias of Q or K: with the number of heads.
    RotatedBias(usize),
    Norm,
}

impl TinyModel {
    /// Two layers of width 64 (gemma3: three, the last of them global), 4 heads on 2 groups, all in F32.
    pub fn new(arch: &'static str) -> TinyModel {
        let gemma = arch == "gemma3";
        TinyModel {
            arch,
            seed: 1,
            n_layers: if gemma { 3 } else { 2 },
            dim: 64,
            ffn: 96,
            n_heads: 4,
            n_groups: 2,
            head_dim: 16,
            context_len: 256,
            window: 24,
            window_pattern: 3,
            qkv_bias: false,
            tied: arch != "qwen2",
            matrices: DType::F32,
            embed: DType::F32,
            output: DType::F32,
            overrides: Vec::new(),
            rope_factors: Vec::new(),
            chat_template: Some(CHAT_TEMPLATE.into()),
        }
    }

    /// The same model with all matrices of one type. K-quants need widths that are multiples of 256: they are raised.
    pub fn with_dtype(mut self, dtype: DType) -> TinyModel {
        (self.matrices, self.embed, self.output) = (dtype, dtype, dtype);
        if dtype.block().0 == 256 {
            (self.dim, self.ffn, self.n_heads, self.n_groups, self.head_dim) = (256, 512, 8, 4, 32);
        }
        self
    }

    /// Tokens in the vocabulary, unused ones at the end included.
    pub fn vocab(&self) -> usize {
        Vocabulary::new().padded_len()
    }

    /// All tensors, in the order of a GGUF file.
    pub(crate) fn tensors(&self) -> Vec<TinyTensor> {
        let (dim, ffn, vocab) = (self.dim, self.ffn, self.vocab());
        let (heads, groups) = (self.n_heads, self.n_groups);
        let (hq, hk) = (heads * self.head_dim, groups * self.head_dim);
        let gemma = self.arch == "gemma3";
        let mut all = Vec::new();
        let mut add = |gguf: String, hf: String, rows, cols, dtype, kind| {
            all.push(TinyTensor { gguf, hf, rows, cols, dtype, kind });
        };
        let plain = |name: &str| name.to_owned();
        let embed_hf = plain("model.embed_tokens.weight");
        add(plain("token_embd.weight"), embed_hf, vocab, dim, self.embed, Kind::Matrix);
        for l in 0..self.n_layers {
            let mut layer = |gguf: &str, hf: &str, rows, cols, kind| {
                let role = gguf.trim_end_matches(".weight");
                let default = if matches!(kind, Kind::Matrix | Kind::Rotated(_)) { self.matrices } else { DType::F32 };
                let chosen = self.overrides.iter().find(|(name, _)| *name == role);
                let dtype = chosen.map_or(default, |&(_, dtype)| dtype);
                add(format!("blk.{l}.{gguf}"), format!("model.layers.{l}.{hf}"), rows, cols, dtype, kind);
            };
            layer("attn_norm.weight", "input_layernorm.weight", 1, dim, Kind::Norm);
            layer("attn_q.weight", "self_attn.q_proj.weight", hq, dim, Kind::Rotated(heads));
            layer("attn_k.weight", "self_attn.k_proj.weight", hk, dim, Kind::Rotated(groups));
            layer("attn_v.weight", "self_attn.v_proj.weight", hk, dim, Kind::Matrix);
            if self.arch == "qwen2" || self.qkv_bias {
                layer("attn_q.bias", "self_attn.q_proj.bias", 1, hq, Kind::RotatedBias(heads));
                layer("attn_k.bias", "self_attn.k_proj.bias", 1, hk, Kind::RotatedBias(groups));
                layer("attn_v.bias", "self_attn.v_proj.bias", 1, hk, Kind::Bias);
            }
            if gemma {
                layer("attn_q_norm.weight", "self_attn.q_norm.weight", 1, self.head_dim, Kind::Norm);
                layer("attn_k_norm.weight", "self_attn.k_norm.weight", 1, self.head_dim, Kind::Norm);
                let hf = "post_attention_layernorm.weight";
                layer("post_attention_norm.weight", hf, 1, dim, Kind::Norm);
                layer("post_ffw_norm.weight", "post_feedforward_layernorm.weight", 1, dim, Kind::Norm);
            }
            layer("attn_output.weight", "self_attn.o_proj.weight", dim, hq, Kind::Matrix);
            let before_ffn = if gemma { "pre_feedforward_layernorm.weight" } else { "post_attention_layernorm.weight" };
            layer("ffn_norm.weight", before_ffn, 1, dim, Kind::Norm);
            layer("ffn_gate.weight", "mlp.gate_proj.weight", ffn, dim, Kind::Matrix);
            layer("ffn_up.weight", "mlp.up_proj.weight", ffn, dim, Kind::Matrix);
            layer("ffn_down.weight", "mlp.down_proj.weight", dim, ffn, Kind::Matrix);
        }
        add(plain("output_norm.weight"), plain("model.norm.weight"), 1, dim, DType::F32, Kind::Norm);
        if !self.tied {
            add(plain("output.weight"), plain("lm_head.weight"), vocab, dim, self.output, Kind::Matrix);
        }
        all
    }

    /// Weights of `tensor` in the order of Hugging Face: small around 0, norms around 1.
    pub(crate) fn floats(&self, tensor: &TinyTensor) -> Vec<f32> {
        let mut rng = Rng::named(self.seed, &tensor.gguf);
        let (mean, std) = match tensor.kind {
            Kind::Matrix | Kind::Rotated(_) => (0.0, 1.0 / (tensor.cols as f32).sqrt()),
            Kind::Bias | Kind::RotatedBias(_) => (0.0, 0.1),
            Kind::Norm => (1.0, 0.1),
        };
        (0..tensor.rows * tensor.cols).map(|_| mean + std * rng.float()).collect()
    }
}
