//! The recording of the encoder: the bottom, then both heads.
//!
//! Only the target's row of the decision head is read after its layer, so of that head only keys and values are computed for
//! all rows, and the rest for one. Queries, keys and values of the targets' own rows depend on no prompt: [`super::targets`].

use concertina_shaders::{DenseParams, GeluParams, LayerNormParams};

use super::EncoderFiles;
use super::weights::{Dense, Norm, Rest, Weights};
use crate::forward::{Kernels, Place, Product, Products};
use crate::record::{Recording, Slice, Work};
use crate::tune::Family;
use crate::{Backend, Result};

/// Rows that the decision head has before the prompt's: the targets for TTFT and TPOT.
pub(super) const ROWS_BEFORE: usize = 2;

/// Queries, keys and values of the score head, keys and values of the decision head.
const PARTS: usize = 5;

/// Bindings begin at multiples of this.
const ALIGN: u64 = 256;

/// Buffers of a pass over at most R rows.
pub(super) struct Buffers {
    pub dim: usize,
    ffn: usize,
    /// Levels of prompt and model.
    pub levels: usize,
    /// `(R, dim)`: the residual stream.
    pub hidden: Slice,
    /// `(2 + R, PARTS, dim)`: queries, keys and values. The first two rows are the targets'; the bottom uses three parts.
    wide: Slice,
    /// `(R, dim)`.
    pub attended: Slice,
    /// `(R, ffn)`.
    inner: Slice,
    /// `(dim)`: the row of the TTFT target.
    pub row: Slice,
    /// `(dim)`: its query.
    pub query: Slice,
    /// `(dim)`.
    row_attended: Slice,
    /// `(ffn)`.
    row_inner: Slice,
    /// `(levels)` logits; from `score_at` on `(R)` logits.
    pub out: Slice,
    /// Byte of `out` where the logits of keeping begin.
    pub score_at: u64,
    none: Slice,
}

impl Buffers {
    /// Allocate all of them, and name them in `held`.
    pub fn alloc(backend: &mut Backend, files: &EncoderFiles, held: &mut Vec<Slice>) -> Result<Self> {
        let heads = &files.heads;
        let (dim, ffn) = (heads.encoder.dim, heads.encoder.ffn);
        let levels = heads.prompt_levels.len() + heads.model_levels.len();
        // The targets' rows go through once, too.
        let rows = heads.encoder.positions.max(heads.ttft_targets.len() + heads.tpot_targets.len());
        let score_at = (4 * levels as u64).next_multiple_of(ALIGN);
        let mut alloc = |bytes: u64| -> Result<Slice> {
            let slice = backend.alloc("encoder", bytes)?;
            held.push(slice);
            Ok(slice)
        };
        let mut words = |n: usize| alloc(4 * n as u64);
        Ok(Self {
            dim,
            ffn,
            levels,
            hidden: words(rows * dim)?,
            wide: words((ROWS_BEFORE + rows) * PARTS * dim)?,
            attended: words(rows * dim)?,
            inner: words(rows * ffn)?,
            row: words(dim)?,
            query: words(dim)?,
            row_attended: words(dim)?,
            row_inner: words(ffn)?,
            none: words(64)?,
            out: alloc(score_at + 4 * rows as u64)?,
            score_at,
        })
    }

    /// Rows of `wide` that are the prompt's.
    pub fn wide_rows(&self) -> Slice {
        let before = (4 * ROWS_BEFORE * PARTS * self.dim) as u64;
        Slice { offset: self.wide.offset + before, len: self.wide.len - before, ..self.wide }
    }

    /// The decision head's key and value of a target's row: `(2, dim)`.
    pub fn keys_before(&self, row: usize) -> Slice {
        let first = (4 * (row * PARTS + 3) * self.dim) as u64;
        Slice { offset: self.wide.offset + first, len: (8 * self.dim) as u64, ..self.wide }
    }

    /// Features between two rows of `wide`.
    pub fn wide_stride(&self) -> usize {
        PARTS * self.dim
    }
}

/// What is recorded with.
pub(super) struct Recorder<'a> {
    pub buffers: &'a Buffers,
    pub kernels: &'a Kernels,
    pub heads: usize,
    pub eps: f32,
    pub recording: Recording,
}

/// Where the rest of a layer works: on all rows, or on the target's alone.
struct Stream {
    hidden: Slice,
    attended: Slice,
    inner: Slice,
    one: bool,
}

impl Stream {
    fn work(&self) -> Work {
        if self.one { Work::OutRows } else { Work::Rows }
    }
}

impl Recorder<'_> {
    /// y (+)= x Wᵀ + bias, of all rows or of one, into rows of y that lie `stride` apart.
    pub fn product(&mut self, dense: &Dense, x: Slice, y: Slice, of: Out) -> Result<()> {
        let family = if of.one { Family::Narrow } else { Family::Wide };
        let products = Products { kernels: self.kernels, family, none: self.buffers.none, norm: (0.0, 0.0) };
        let stride = of.stride.unwrap_or(dense.w.layout.rows);
        let to = Place { offset: 0, stride, run: 0, step: 0 };
        let bias = Some(dense.bias);
        let product = Product { to, bias, accumulate: of.add, out_rows: of.one, ..Product::new(&dense.w, x, y) };
        products.record(&mut self.recording, product)
    }

    fn norm(&mut self, norm: Norm, stream: &Stream) {
        let dim = self.buffers.dim as u32;
        let params = LayerNormParams { dim, stride: dim, out_rows: u32::from(stream.one), eps: self.eps };
        let args = [norm.weight, norm.bias, stream.hidden];
        self.recording.push(self.kernels.best("layer_norm"), &params, &args, [Work::Fixed(1), stream.work()]);
    }

    /// From what attention found to the layer's rows, which take the place of those before.
    fn rest(&mut self, w: &Rest, stream: &Stream) -> Result<()> {
        let of = Out { one: stream.one, ..Out::default() };
        self.product(&w.o, stream.attended, stream.hidden, Out { add: true, ..of })?;
        self.norm(w.attn_norm, stream);
        self.product(&w.up, stream.hidden, stream.inner, of)?;
        let ffn = self.buffers.ffn as u32;
        let params = GeluParams { n: ffn, stride: ffn, out_rows: u32::from(stream.one), pad: 0 };
        let work = [Work::Fixed(ffn / 4), stream.work()];
        self.recording.push(self.kernels.best("gelu_erf"), &params, &[stream.inner], work);
        self.product(&w.down, stream.inner, stream.hidden, Out { add: true, ..of })?;
        self.norm(w.ffn_norm, stream);
        Ok(())
    }

    fn attention(&mut self, params: DenseParams, args: [Slice; 3]) {
        let dim = self.buffers.dim;
        let head_dim = dim / self.heads;
        let params = DenseParams {
            heads: self.heads as u32,
            head_dim: head_dim as u32,
            kv_stride: self.buffers.wide_stride() as u32,
            out_stride: dim as u32,
            scale: (head_dim as f32).sqrt().recip(),
            ..params
        };
        let rows = if params.out_rows == 1 { Work::OutRows } else { Work::Rows };
        let work = [Work::Fixed(self.heads as u32), rows];
        self.recording.push(self.kernels.best("attn_dense"), &params, &args, work);
    }

    /// Attention of all rows among themselves: queries, keys and values are the first parts of `wide`.
    fn among_rows(&mut self) {
        let b = self.buffers;
        let (dim, stride) = (b.dim as u32, b.wide_stride() as u32);
        let params = DenseParams { q_stride: stride, k_offset: dim, v_offset: 2 * dim, ..DenseParams::default() };
        self.attention(params, [b.wide_rows(), b.wide_rows(), b.attended]);
    }
}

/// How a product goes into its output.
#[derive(Clone, Copy, Default)]
pub(super) struct Out {
    /// Features between two rows, where they are not those of the matrix.
    pub stride: Option<usize>,
    /// Added to what is there.
    pub add: bool,
    /// Of the row of the target alone.
    pub one: bool,
}

/// The whole pass over a window.
pub(super) fn record(files: &EncoderFiles, kernels: &Kernels, w: &Weights, b: &Buffers) -> Result<Recording> {
    let spec = &files.bert.spec;
    let mut r = Recorder { buffers: b, kernels, heads: spec.heads, eps: spec.eps, recording: Recording::default() };
    let stream = Stream { hidden: b.hidden, attended: b.attended, inner: b.inner, one: false };
    let wide = Out { stride: Some(b.wide_stride()), ..Out::default() };
    for (qkv, rest) in &w.bottom {
        r.product(qkv, b.hidden, b.wide_rows(), wide)?;
        r.among_rows();
        r.rest(rest, &stream)?;
    }
    r.product(&w.heads, b.hidden, b.wide_rows(), wide)?;
    r.among_rows();
    r.rest(&w.score, &stream)?;
    let scores = Slice { offset: b.out.offset + b.score_at, len: b.out.len - b.score_at, ..b.out };
    r.product(&w.score_out, b.hidden, scores, Out::default())?;

    let dim = b.dim as u32;
    let params = DenseParams {
        q_stride: dim,
        k_offset: 3 * dim,
        v_offset: 4 * dim,
        before: ROWS_BEFORE as u32,
        out_rows: 1,
        ..DenseParams::default()
    };
    r.attention(params, [b.query, b.wide, b.row_attended]);
    let row = Stream { hidden: b.row, attended: b.row_attended, inner: b.row_inner, one: true };
    r.rest(&w.decision, &row)?;
    let levels = b.out.prefix(4 * b.levels as u64);
    r.product(&w.decision_out, b.row, levels, Out { one: true, ..Out::default() })?;
    Ok(r.recording)
}
