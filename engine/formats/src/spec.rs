//! What the engine needs to know of a model: shapes, constants, and which tensor plays which part.

use crate::DType;

/// How rotary position embedding pairs the dimensions of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Pairs `(2i, 2i + 1)`: GGUF files of arch llama, whose Q and K rows are permuted for it.
    Interleaved,
    /// Pairs `(i, i + d/2)`: GPT-NeoX order, and all Hugging Face checkpoints.
    Halves,
}

/// Rotary position embedding of one layer. Angle of pair `i` at position `p`:
/// `p / scale / factors[i] * base^(-2i / dims)`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Frequency base.
    pub base: f64,
    /// Linear position scale (1 when unscaled).
    pub scale: f64,
    /// Per-pair divisors (llama 3's `rope_freqs`), `head_dim / 2` of them, or empty for none.
    pub factors: Vec<f32>,
}

/// The gate's non-linearity in the gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)` (SwiGLU).
    Silu,
    /// tanh approximation of GELU (GeGLU).
    GeluTanh,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Index into [`ModelSpec::ropes`].
    pub rope: usize,
    /// Sliding window: a query at `p` sees keys at `p - window + 1 ..= p`. `None`: all of them.
    pub window: Option<u32>,
}

/// Hyperparameters of a decoder-only transformer with grouped-query attention and a gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Architecture by GGUF's name: `llama`, `qwen2`, `gemma3`.
    pub arch: String,
    /// Display name from the file, if any.
    pub name: String,
    /// Width of the residual stream.
    pub dim: usize,
    /// Neurons of the gated MLP.
    pub ffn: usize,
    /// Query heads.
    pub n_heads: usize,
    /// KV groups (key and value heads); divides `n_heads`.
    pub n_groups: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Tokens of context the model was trained for.
    pub context_len: usize,
    /// Epsilon of RMSNorm.
    pub norm_eps: f32,
    /// Added to every norm weight (1 for Gemma's Hugging Face checkpoints; GGUF has it folded in).
    pub norm_offset: f32,
    /// Multiplies embeddings (`sqrt(dim)` for Gemma, else 1).
    pub embed_scale: f32,
    /// Multiplies `q·k` (usually `1/sqrt(head_dim)`).
    pub attn_scale: f32,
    /// Non-linearity of the MLP.
    pub activation: Activation,
    /// Pairing of rotated dimensions.
    pub rope_style: RopeStyle,
    /// The distinct rotary embeddings that layers refer to.
    pub ropes: Vec<RopeSpec>,
    /// One entry a layer.
    pub layers: Vec<LayerSpec>,
}

/// A tensor as stored: `rows × cols`, row-major, each row in whole blocks of its type. Vectors have one row.
/// Its range was checked to lie inside its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Output features, or 1 for a vector.
    pub rows: usize,
    /// Input features, or the length of a vector.
    pub cols: usize,
    /// Index into [`crate::Model::sources`].
    pub source: usize,
    /// First byte in that source.
    pub offset: u64,
    /// Bytes: `rows * cols / block elements * block bytes`.
    pub bytes: u64,
}

/// Tensors of one layer. Shapes as `(rows, cols)`; `hq = n_heads * head_dim`, `hk = n_groups * head_dim`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // shapes say it
pub struct LayerTensors {
    pub attn_norm: TensorInfo,              // (1, dim)
    pub q: TensorInfo,                      // (hq, dim)
    pub k: TensorInfo,                      // (hk, dim)
    pub v: TensorInfo,                      // (hk, dim)
    pub q_bias: Option<TensorInfo>,         // (1, hq)
    pub k_bias: Option<TensorInfo>,         // (1, hk)
    pub v_bias: Option<TensorInfo>,         // (1, hk)
    pub q_norm: Option<TensorInfo>,         // (1, head_dim)
    pub k_norm: Option<TensorInfo>,         // (1, head_dim)
    pub o: TensorInfo,                      // (dim, hq)
    pub post_attn_norm: Option<TensorInfo>, // (1, dim), on attention's output before the residual
    pub ffn_norm: TensorInfo,               // (1, dim)
    pub gate: TensorInfo,                   // (ffn, dim)
    pub up: TensorInfo,                     // (ffn, dim)
    pub down: TensorInfo,                   // (dim, ffn)
    pub post_ffn_norm: Option<TensorInfo>,  // (1, dim), on the MLP's output before the residual
}

/// All tensors of a model, shapes checked against the [`ModelSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelTensors {
    pub embed: TensorInfo,          // (vocab, dim)
    pub layers: Vec<LayerTensors>,  // n_layers
    pub final_norm: TensorInfo,     // (1, dim)
    pub output: Option<TensorInfo>, // (vocab, dim); None: tied to `embed`
}
