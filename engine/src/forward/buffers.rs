//! Activation buffers, KV pages and chunk tables on the device.

use concertina_formats::ModelSpec;
use concertina_kv::{CHUNK_TOKENS, KvGeometry, Width};
use concertina_shaders::Sampler;

use super::centres;
use crate::record::Slice;
use crate::{Backend, BufferLimits, Error, Result};

/// Tokens that a repetition penalty looks back on.
pub const RECENT: u32 = 64;

/// Chunks that change their width in one submission.
pub const JOBS: usize = 128;

/// How much a forward pass can hold.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Rows of a batch: tokens that prefill takes at once.
    pub rows: usize,
    /// Rows that get logits at once.
    pub out_rows: usize,
    /// Tokens of a context.
    pub context_tokens: usize,
    /// Contexts that are in GPU memory at the same time.
    pub contexts: usize,
    /// Units of KV memory, in which [`KvGeometry`] counts the places of chunks.
    pub units: usize,
    /// Keys and values are kept as f32, not f16.
    pub exact: bool,
    /// Widths that chunks may have, the written one first.
    pub widths: Vec<Width>,
    /// Queries, keys and values go through a Walsh-Hadamard transform.
    pub rotate: bool,
    /// Quantised keys are stored without their centres.
    pub centres: bool,
}

impl Capacity {
    /// Shrunk to what the model and the device allow.
    pub fn fitted(mut self, spec: &ModelSpec, limits: BufferLimits) -> Result<Self> {
        self.context_tokens = self.context_tokens.clamp(CHUNK_TOKENS, spec.context_len.max(CHUNK_TOKENS));
        let most = limits.binding.min(limits.buffer);
        let geometry = geometry(spec, self.exact);
        if !spec.head_dim.is_multiple_of(16) || spec.head_dim > 256 {
            return Err(Error::Unsupported(format!(
                "heads of {} dimensions: attention takes multiples of 16 up to 256",
                spec.head_dim
            )));
        }
        let centres = if self.centres { centres::bytes(spec, self.chunks()) } else { 0 };
        self.units = self.units.min((most.saturating_sub(centres) / geometry.unit_bytes()) as usize).min(1 << 28);
        self.out_rows = self.out_rows.min((most / (4 * spec.vocab as u64)) as usize);
        let widest = (spec.ffn.max(spec.dim).max((spec.n_heads + 2 * spec.n_groups) * spec.head_dim) * 4) as u64;
        let stats = (spec.n_heads * self.chunks() * 8) as u64;
        self.rows = self.rows.min((most / widest.max(stats)) as usize);
        if self.chunks_in_memory(spec) == 0 || self.out_rows == 0 || self.rows == 0 {
            return Err(Error::Unsupported(format!(
                "the device binds at most {most} bytes, too few for this model's activations"
            )));
        }
        Ok(self)
    }

    /// Chunks of a context.
    pub fn chunks(&self) -> usize {
        KvGeometry::chunks_for(self.context_tokens)
    }

    /// Chunks that fit GPU memory as they are written.
    pub fn chunks_in_memory(&self, spec: &ModelSpec) -> usize {
        let geometry = geometry(spec, self.exact);
        self.units / geometry.units(geometry.written) as usize
    }

    /// Most rows times splits that attention may use.
    pub fn row_splits(&self) -> usize {
        self.rows.max(128)
    }
}

/// Shape of the model's keys and values.
pub fn geometry(spec: &ModelSpec, exact: bool) -> KvGeometry {
    let written = if exact { Width::W32 } else { Width::W16 };
    KvGeometry { layers: spec.layers.len(), groups: spec.n_groups, head_dim: spec.head_dim, written }
}

/// Device buffers of a forward pass. Shapes beside them; R rows, O rows with logits, C contexts.
#[allow(missing_docs)]
pub struct Buffers {
    pub tokens: Slice,      // (R) u32
    pub rows: Slice,        // (R) vec4<u32>: position, chunk table
    pub rope: Slice,        // (ropes, R, head_dim / 2) cos, sin
    pub tables: Slice,      // (C, chunks) u32
    pub density: Slice,     // (C, chunks) f32
    pub hidden: Slice,      // (R, dim) the residual stream
    pub normed: Slice,      // (R, dim)
    pub qkv: Slice,         // (R, groups, heads a group of queries | key | value, head_dim)
    pub turned: Slice,      // (R, hq) queries with their positions
    pub attended: Slice,    // (R, hq)
    pub projected: Slice,   // (R, dim)
    pub gate: Slice,        // (R, ffn)
    pub up: Slice,          // (R, ffn)
    pub partial: Slice,     // (row splits, heads, head_dim)
    pub split_ml: Slice,    // (row splits, heads) vec2
    pub chunk_ml: Slice,    // (R, heads, chunks) vec2
    pub row_ml: Slice,      // (R, heads) vec2
    pub outs: Slice,        // (O) vec4<u32>
    pub picked: Slice,      // (O, dim)
    pub picked_norm: Slice, // (O, dim)
    pub logits: Slice,      // (O, vocab)
    pub nll: Slice,         // (O)
    pub sampled: Slice,     // (O) u32
    pub samplers: Slice,    // (C) Sampler
    pub recent: Slice,      // (C, RECENT) u32
    pub jobs: Slice,        // (JOBS) vec4<u32>: chunk table entries, from and to; chunk
    pub pages: Vec<Slice>,  // one a layer: an arena of units, then the table of centres
    pub centres: u32,       // piece of 16 bytes of an arena where that begins; 0: there is none
    pub none: Slice,        // stands in for what a kernel does not read
}

impl Buffers {
    /// Allocate all of them.
    pub fn alloc(backend: &mut Backend, spec: &ModelSpec, capacity: &Capacity) -> Result<Self> {
        let (r, o, c) = (capacity.rows, capacity.out_rows, capacity.contexts);
        let hq = spec.n_heads * spec.head_dim;
        let chunks = capacity.chunks();
        let mut words = |label: &str, n: usize| backend.alloc(label, 4 * n as u64);
        let mut buffers = Self {
            tokens: words("tokens", r)?,
            rows: words("rows", r * 4)?,
            rope: words("rope", spec.ropes.len() * r * spec.head_dim)?,
            tables: words("tables", c * chunks)?,
            density: words("density", c * chunks)?,
            hidden: words("hidden", r * spec.dim)?,
            normed: words("normed", r * spec.dim)?,
            qkv: words("qkv", r * (hq + 2 * spec.n_groups * spec.head_dim))?,
            turned: words("turned", r * hq)?,
            attended: words("attended", r * hq)?,
            projected: words("projected", r * spec.dim)?,
            gate: words("gate", r * spec.ffn)?,
            up: words("up", r * spec.ffn)?,
            partial: words("partial", capacity.row_splits() * hq)?,
            split_ml: words("split_ml", capacity.row_splits() * spec.n_heads * 2)?,
            chunk_ml: words("chunk_ml", r * spec.n_heads * chunks * 2)?,
            row_ml: words("row_ml", r * spec.n_heads * 2)?,
            outs: words("outs", o * 4)?,
            picked: words("picked", o * spec.dim)?,
            picked_norm: words("picked_norm", o * spec.dim)?,
            logits: words("logits", o * spec.vocab)?,
            nll: words("nll", o)?,
            sampled: words("sampled", o)?,
            samplers: words("samplers", c * size_of::<Sampler>() / 4)?,
            recent: words("recent", c * RECENT as usize)?,
            jobs: words("jobs", JOBS * 4)?,
            none: words("none", 64)?,
            pages: Vec::new(),
            centres: 0,
        };
        let page_bytes = geometry(spec, capacity.exact).unit_bytes() * capacity.units as u64;
        let centre_bytes = if capacity.centres { centres::bytes(spec, chunks) } else { 0 };
        for layer in 0..spec.layers.len() {
            buffers.pages.push(backend.alloc_shared(&format!("pages of layer {layer}"), page_bytes + centre_bytes)?);
        }
        if capacity.centres {
            buffers.centres = (page_bytes / 16) as u32;
        }
        Ok(buffers)
    }
}
