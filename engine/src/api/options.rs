//! What a caller can choose, with defaults that work.

use std::sync::Arc;

use concertina_formats::ModelSpec;
use concertina_kv::{CHUNK_TOKENS, KvGeometry, Width};
use concertina_shaders::Sampler;

use crate::backend::Restrictions;
use crate::forward::geometry;
use crate::tune::{Tune, TuneHost};

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which adapter, by number or by a part of its name; `cpu` for the CPU twins. `None`: the environment variable
    /// `CONCERTINA_ADAPTER`, else the best one.
    pub adapter: Option<String>,
    /// Most tokens of a context; the model's own limit holds too.
    pub context_tokens: usize,
    /// Contexts that may be open at once.
    pub contexts: usize,
    /// Bytes of GPU memory for keys and values.
    pub kv_budget_bytes: u64,
    /// Tokens that prefill takes in one piece.
    pub prefill_rows: usize,
    /// Round nothing but the weights: keys and values are kept as f32, which halves the tokens that fit a budget, and
    /// no kernel is used that rounds activations to 8 bits or multiplies in f16. With f16, models with large biases on
    /// their keys (Qwen2.5) have logits that are off by up to 1 %.
    pub exact: bool,
    /// When the matrix kernels are measured; the environment variable `CONCERTINA_TUNE` (`off`, `auto`, `full`) overrides
    /// it.
    pub tune: Tune,
    /// Keeps what was measured, and hears of progress.
    pub tune_host: Option<Arc<dyn TuneHost>>,
    /// Width to which chunks are brought once all of their 16 tokens are written; not with `exact`.
    pub kv_width: Width,
    /// Share of those chunks that is brought to half of that width instead, evenly spread; 0: none.
    pub kv_narrower: f32,
    /// Further widths to which [`Engine::requantise`](crate::Engine::requantise) may bring chunks; not with `exact`.
    pub kv_widths: Vec<Width>,
    /// Transform queries, keys and values by a Walsh-Hadamard matrix, so that narrow widths lose less; not with `exact`.
    /// Off for measurements only.
    pub kv_rotate: bool,
    /// Limits below what the device has: for tests.
    #[doc(hidden)]
    pub restrictions: Restrictions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            adapter: None,
            context_tokens: 4096,
            contexts: 4,
            kv_budget_bytes: 256 << 20,
            prefill_rows: 128,
            exact: false,
            tune: Tune::Auto,
            tune_host: None,
            kv_width: Width::W16,
            kv_narrower: 0.0,
            kv_widths: Vec::new(),
            kv_rotate: true,
            restrictions: Restrictions::default(),
        }
    }
}

impl Options {
    /// Make contexts of `tokens` tokens, at most what the model can read, and enough KV memory that each of `contexts`
    /// may be full.
    pub fn fit_contexts(&mut self, spec: &ModelSpec, tokens: usize) {
        self.context_tokens = tokens.clamp(1, spec.context_len.max(1));
        let chunks = KvGeometry::chunks_for(self.context_tokens);
        let geometry = geometry(spec, self.exact);
        let mut chunks = chunks as u64 * self.contexts.max(1) as u64;
        if self.narrows() {
            // Slabs of each width that are not full.
            chunks += 24;
        }
        self.kv_budget_bytes = geometry.chunk_bytes(geometry.written) * chunks;
    }

    /// Whether chunks change their width.
    pub(crate) fn narrows(&self) -> bool {
        !self.exact && self.kv_width.is_quantised()
    }

    /// Widths that sealed chunks get.
    pub(crate) fn narrow_widths(&self) -> Vec<Width> {
        let (narrows, exact) = (self.narrows(), self.exact);
        let used = |width: &Width| {
            (!exact && self.kv_widths.contains(width))
                || narrows && (0..1000).any(|index| self.width_of(index) == Some(*width))
        };
        [Width::W8, Width::W4, Width::W2].into_iter().filter(used).collect()
    }

    /// The width of sealed chunk `index`, if it is to change.
    pub(crate) fn width_of(&self, index: usize) -> Option<Width> {
        let narrower = match self.kv_width {
            Width::W8 => Width::W4,
            Width::W4 | Width::W2 => Width::W2,
            Width::W16 | Width::W32 => return None,
        };
        // One whenever the share times the chunks so far passes a whole number.
        let share = |n: usize| (n as f32 * self.kv_narrower).floor();
        Some(if share(index + 1) > share(index) { narrower } else { self.kv_width })
    }

    /// Rows of a batch, at most.
    pub(crate) fn rows(&self) -> usize {
        self.prefill_rows.clamp(1, 1024)
    }

    /// Bytes of GPU memory that keys and values of `tokens` tokens take as they are written.
    pub fn bytes_of(&self, spec: &ModelSpec, tokens: usize) -> u64 {
        let geometry = geometry(spec, self.exact);
        geometry.chunk_bytes(geometry.written) * KvGeometry::chunks_for(tokens) as u64
    }

    /// Tokens whose keys and values fit `bytes` of GPU memory.
    pub fn tokens_within(&self, spec: &ModelSpec, bytes: u64) -> usize {
        let geometry = geometry(spec, self.exact);
        usize::try_from(bytes / geometry.chunk_bytes(geometry.written).max(1))
            .unwrap_or(usize::MAX)
            .saturating_mul(CHUNK_TOKENS)
    }
}

/// How tokens are picked. The order is: repetition penalty, top-k, top-p, min-p, temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0: always the most likely token.
    pub temperature: f32,
    /// Keep the most likely tokens only; 0: all.
    pub top_k: u32,
    /// Keep the most likely tokens that together have this probability; 1: all.
    pub top_p: f32,
    /// Keep tokens with at least this share of the greatest probability; 0: all.
    pub min_p: f32,
    /// Divides the logits of the last 64 tokens (multiplies negative ones); 1: off.
    pub repetition_penalty: f32,
    /// Seed of the draw: the same seed gives the same answer.
    pub seed: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.7, top_k: 40, top_p: 0.95, min_p: 0.05, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }

    /// Checked, as the kernel reads it.
    pub(crate) fn sampler(&self) -> crate::Result<Sampler> {
        let bad = |what: &str| Err(crate::Error::Invalid(format!("sampling: {what}")));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("temperature must be 0 or more");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("top-p must be above 0 and at most 1");
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return bad("min-p must be between 0 and 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return bad("the repetition penalty must be above 0");
        }
        Ok(Sampler {
            temperature: self.temperature,
            top_p: self.top_p,
            min_p: self.min_p,
            penalty: self.repetition_penalty,
            top_k: self.top_k,
            seed: self.seed,
            ..Default::default()
        })
    }
}

/// What one answer may be.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How tokens are picked.
    pub sampling: Sampling,
    /// Size of the sub-model, in percent of the units that are cut.
    pub level: u32,
    /// Go on past tokens that end an answer.
    pub ignore_end: bool,
    /// Tokens of a piece of prefill; 0: as many as fit a batch.
    pub piece: usize,
    /// Collect how attention spreads over the context's chunks: see [`crate::Engine::density`].
    pub collect_density: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 512,
            sampling: Sampling::default(),
            level: 100,
            ignore_end: false,
            piece: 0,
            collect_density: false,
        }
    }
}
