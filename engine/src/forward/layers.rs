//! Recordings: the layers of a sub-model, the head, sampling, scoring.

use concertina_elastic::package::Site;
use concertina_elastic::{LayerUnits, SubModel};
use concertina_formats::{Activation, ModelSpec, RopeStyle};
use concertina_kv::Widths;
use concertina_shaders::{
    AttnParams, EmbedParams, GatherParams, GluParams, NormParams, QuantParams, RopeParams, SampleParams, TokenParams,
};

use super::buffers::RECENT;
use super::product::{Place, Product, Products, twice};
use super::{Buffers, Kernels};
use crate::Result;
use crate::adapters::{AdapterWeights, LevelWeights};
use crate::record::{Recording, Slice, When, Work};
use crate::tune::Family;
use crate::weights::{LayerWeights, Matrix, Weights};

/// Queries of a workgroup of attention.
const QUERIES: u32 = 4;

struct Recorder<'a> {
    spec: &'a ModelSpec,
    kernels: &'a Kernels,
    buffers: &'a Buffers,
    family: Family,
    rotate: bool,
    widths: Widths,
    recording: Recording,
}

/// What the recording of the layers depends on, beside the sub-model.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// Recovery adapters of its level.
    pub adapters: Option<&'a LevelWeights>,
    /// Kernels for batches of this family.
    pub family: Family,
    /// Widths of the pages that are read.
    pub widths: Widths,
    /// Queries, keys and values are transformed.
    pub rotate: bool,
}

impl Recorder<'_> {
    /// y = x Wᵀ, part by part.
    fn product(&mut self, p: Product<'_>) -> Result<()> {
        let norm = (self.spec.norm_eps, self.spec.norm_offset);
        let of = Products { kernels: self.kernels, family: self.family, none: self.buffers.none, norm };
        of.record(&mut self.recording, p)
    }

    fn norm(&mut self, x: Slice, weight: Slice, y: Slice, accumulate: bool, out_rows: bool) {
        let dim = self.spec.dim as u32;
        let params = NormParams {
            dim,
            heads: 1,
            x_stride: dim,
            y_stride: dim,
            accumulate: u32::from(accumulate),
            out_rows: u32::from(out_rows),
            eps: self.spec.norm_eps,
            offset: self.spec.norm_offset,
            ..Default::default()
        };
        let rows = if out_rows { Work::OutRows } else { Work::Rows };
        self.recording.push(self.kernels.best("rms_norm"), &params, &[x, weight, y], [Work::Fixed(1), rows]);
    }

    /// Norm of the heads that lie so in `y`, in place.
    fn head_norm(&mut self, y: Slice, weight: Slice, heads: usize, to: Place) {
        let dim = self.spec.head_dim;
        let params = NormParams {
            dim: dim as u32,
            heads: heads as u32,
            y_stride: to.stride as u32,
            eps: self.spec.norm_eps,
            offset: self.spec.norm_offset,
            in_place: 1,
            y_offset: to.offset as u32,
            run: (to.run / dim) as u32,
            run_step: to.step as u32,
            ..Default::default()
        };
        let args = [self.buffers.none, weight, y];
        self.recording.push(self.kernels.best("rms_norm"), &params, &args, [Work::Fixed(heads as u32), Work::Rows]);
    }

    fn embed(&mut self, table: &Matrix) {
        let pieces = (self.spec.dim / 32) as u32;
        for part in &table.parts {
            let params = EmbedParams {
                pieces,
                row_block: table.layout.row_block as u32,
                first: part.first as u32,
                count: part.count as u32,
                scale: self.spec.embed_scale,
                ..Default::default()
            };
            let [w, ws] = twice(part.slice);
            let args = [self.buffers.tokens, w, ws, self.buffers.hidden];
            let variant = self.kernels.best(&format!("embed.{}", table.layout.format.name()));
            self.recording.push(variant, &params, &args, [Work::Fixed(pieces), Work::Rows]);
        }
    }

    /// A layer, without the half of which nothing is kept.
    fn layer(&mut self, index: usize, w: &LayerWeights, kept: Kept<'_>, rows: usize) -> Result<()> {
        let LayerUnits { groups, neurons } = kept.units;
        let adapter = |site| kept.adapters.and_then(|level| level.get(index, site));
        if groups > 0 {
            self.attention(index, w, groups, adapter(Site::O), rows)?;
        }
        if neurons > 0 {
            self.mlp(w, neurons, adapter(Site::Down))?;
        }
        Ok(())
    }

    fn attention(
        &mut self,
        index: usize,
        w: &LayerWeights,
        groups: usize,
        adapter: Option<AdapterWeights>,
        rows: usize,
    ) -> Result<()> {
        let (spec, b) = (self.spec, self.buffers);
        let heads_per_group = spec.n_heads / spec.n_groups;
        let heads = groups * heads_per_group;
        let hq = spec.n_heads * spec.head_dim;
        let layer = &spec.layers[index];

        // A row holds, for each KV group, its queries, its key and its value.
        let of_group = (heads_per_group + 2) * spec.head_dim;
        let stride = spec.n_groups * of_group;
        let queries = heads_per_group * spec.head_dim;
        let at = |offset, run| Place { offset, stride, run, step: of_group };
        let places = [at(0, queries), at(queries, spec.head_dim), at(queries + spec.head_dim, spec.head_dim)];
        let (x, norm) = self.normed(b.hidden, w.attn_norm);
        if let [qkv] = &w.qkv[..] {
            let to = Place { run: 0, ..places[0] };
            let (bias, n) = (w.qkv_bias[0], groups * of_group);
            self.product(Product { bias, n, to, norm, ..Product::new(qkv, x, b.qkv) })?;
        } else {
            for ((matrix, bias), to) in w.qkv.iter().zip(&w.qkv_bias).zip(places) {
                let n = groups * to.run;
                self.product(Product { bias: *bias, n, to, norm, ..Product::new(matrix, x, b.qkv) })?;
            }
        }
        if let Some(weight) = w.q_norm {
            self.head_norm(b.qkv, weight, heads, places[0]);
        }
        if let Some(weight) = w.k_norm {
            self.head_norm(b.qkv, weight, groups, places[1]);
        }
        let rotate = rotation(spec, self.rotate);
        let rope = RopeParams {
            heads: heads as u32,
            heads_per_group: heads_per_group as u32,
            kept: groups as u32,
            groups: spec.n_groups as u32,
            head_dim: spec.head_dim as u32,
            halves: u32::from(spec.rope_style == RopeStyle::Halves),
            rope_offset: (layer.rope * rows * spec.head_dim / 2) as u32,
            rotate,
            q_stride: stride as u32,
            q_step: of_group as u32,
            k_offset: queries as u32,
            k_stride: stride as u32,
            k_step: of_group as u32,
            v_offset: (queries + spec.head_dim) as u32,
            v_stride: stride as u32,
            v_step: of_group as u32,
            out_stride: hq as u32,
            ..Default::default()
        };
        let token = self.kernels.attn_token(spec.head_dim, self.widths).filter(|_| self.family == Family::Narrow);
        let when = if token.is_some() { When::Together } else { When::Always };
        let octets = ((heads + 2 * groups) * spec.head_dim / 8) as u32;
        let pages = b.pages[index];
        let args = [b.rows, b.tables, b.rope, b.qkv, b.qkv, b.qkv, b.turned, pages];
        let work = [Work::Fixed(octets), Work::Rows];
        self.recording.push_when(when, self.kernels.rope_kv(rotate), &rope, &args, work);

        let attn = AttnParams {
            heads: heads as u32,
            heads_per_group: heads_per_group as u32,
            groups: spec.n_groups as u32,
            head_dim: spec.head_dim as u32,
            q_stride: hq as u32,
            out_stride: hq as u32,
            window: layer.window.unwrap_or(0),
            scale: spec.attn_scale,
            rotate,
            centres: b.centres,
            most_queries: QUERIES,
            ..Default::default()
        };
        let args = [b.rows, b.tables, b.turned, pages, b.partial, b.split_ml, b.chunk_ml, b.attended, b.row_ml];
        let work = Work::Attention { groups: groups as u32, heads_per_group: heads_per_group as u32 };
        let variant = self.kernels.attention(spec.head_dim, self.widths);
        // Rows of contexts of their own have a group's heads only, and a kernel that computes no more.
        if token.is_some() && attn.heads_per_group < QUERIES {
            let single = AttnParams { most_queries: attn.heads_per_group, ..attn };
            self.recording.push_when(When::Singly, variant, &single, &args, [work, Work::Fixed(1)]);
            self.recording.push_when(When::Spanned, variant, &attn, &args, [work, Work::Fixed(1)]);
        } else {
            self.recording.push_when(when, variant, &attn, &args, [work, Work::Fixed(1)]);
        }
        let args = [b.partial, b.split_ml, b.attended, b.row_ml];
        let work = [Work::Fixed((heads * spec.head_dim / 4) as u32), Work::SplitRows];
        self.recording.push(self.kernels.best("attn_merge"), &attn, &args, work);

        // The same in one dispatch.
        if let Some(variant) = token {
            let params = TokenParams {
                heads: rope.heads,
                heads_per_group: rope.heads_per_group,
                groups: rope.groups,
                head_dim: rope.head_dim,
                halves: rope.halves,
                rope_offset: rope.rope_offset,
                rotate,
                window: attn.window,
                q_offset: rope.q_offset,
                k_offset: rope.k_offset,
                v_offset: rope.v_offset,
                row_stride: stride as u32,
                group_stride: of_group as u32,
                out_stride: attn.out_stride,
                scale: attn.scale,
                centres: attn.centres,
            };
            let args = [b.rows, b.tables, b.rope, b.qkv, pages, b.chunk_ml, b.attended, b.row_ml];
            let work = Work::Tokens { groups: groups as u32, heads_per_group: heads_per_group as u32 };
            self.recording.push_when(When::Apart, variant, &params, &args, [work, Work::Fixed(1)]);
        }
        let args = [b.rows, b.row_ml, b.chunk_ml, b.density];
        self.recording.push(self.kernels.best("attn_share"), &attn, &args, [Work::DensityChunks, Work::Rows]);

        self.residual(&w.o, b.attended, heads * spec.head_dim, adapter, w.post_attn_norm)
    }

    fn mlp(&mut self, w: &LayerWeights, neurons: usize, adapter: Option<AdapterWeights>) -> Result<()> {
        let (spec, b) = (self.spec, self.buffers);
        let (x, norm) = self.normed(b.hidden, w.ffn_norm);
        if let [both] = &w.gate_up[..] {
            let to = Place { offset: 0, stride: spec.ffn, run: 0, step: 0 };
            let glu = Some(spec.activation);
            self.product(Product { n: 2 * neurons, to, norm, glu, ..Product::new(both, x, b.gate) })?;
        } else {
            for (matrix, y) in w.gate_up.iter().zip([b.gate, b.up]) {
                self.product(Product { n: neurons, norm, ..Product::new(matrix, x, y) })?;
            }
            let glu = GluParams {
                n: neurons as u32,
                stride: spec.ffn as u32,
                gelu: u32::from(spec.activation == Activation::GeluTanh),
                pad: 0,
            };
            let work = [Work::Fixed(neurons as u32), Work::Rows];
            self.recording.push(self.kernels.best("glu"), &glu, &[b.up, b.gate], work);
        }
        self.residual(&w.down, b.gate, neurons, adapter, w.post_ffn_norm)
    }

    /// What a product of the normed `x` takes: x and the gains for a row or two, where a dispatch costs more than norming
    /// again in each workgroup; for a batch, x normed.
    fn normed(&mut self, x: Slice, weight: Slice) -> (Slice, Option<Slice>) {
        if self.family == Family::Narrow {
            return (x, Some(weight));
        }
        self.norm(x, weight, self.buffers.normed, false, false);
        (self.buffers.normed, None)
    }

    /// hidden += W x over the first `k` input features, with what its adapter adds, normed on the way if the model does so.
    fn residual(
        &mut self,
        w: &Matrix,
        x: Slice,
        k: usize,
        adapter: Option<AdapterWeights>,
        post_norm: Option<Slice>,
    ) -> Result<()> {
        let b = self.buffers;
        match post_norm {
            None => self.product(Product { k, adapter, accumulate: true, ..Product::new(w, x, b.hidden) }),
            Some(weight) => {
                self.product(Product { k, adapter, ..Product::new(w, x, b.projected) })?;
                self.norm(b.projected, weight, b.hidden, true, false);
                Ok(())
            }
        }
    }
}

/// What a sub-model keeps of a layer.
#[derive(Clone, Copy)]
struct Kept<'a> {
    units: LayerUnits,
    adapters: Option<&'a LevelWeights>,
}

/// Dimensions of a block of the Walsh-Hadamard transform: the largest power of two that divides a head.
pub fn rotation(spec: &ModelSpec, rotate: bool) -> u32 {
    if rotate { 1 << spec.head_dim.trailing_zeros() } else { 0 }
}

/// Chunks that change their width, in every layer.
pub fn requantise(spec: &ModelSpec, kernels: &Kernels, b: &Buffers) -> Recording {
    let groups = spec.n_groups as u32;
    let params = QuantParams { kept: groups, groups, head_dim: spec.head_dim as u32, centres: b.centres };
    let mut recording = Recording::default();
    for pages in &b.pages {
        let work = [Work::Fixed(16 * groups), Work::Jobs];
        recording.push(kernels.best("kv_quant"), &params, &[b.jobs, *pages], work);
    }
    recording
}

/// Embedding to the last residual, for a sub-model and batches of at most `rows`.
pub fn layers(
    spec: &ModelSpec,
    rows: usize,
    kernels: &Kernels,
    buffers: &Buffers,
    weights: &Weights,
    sub: &SubModel,
    of: Of<'_>,
) -> Result<Recording> {
    let Of { adapters, family, widths, rotate } = of;
    let mut recorder = Recorder { spec, kernels, buffers, family, rotate, widths, recording: Recording::default() };
    recorder.embed(&weights.embed);
    for (i, (layer, units)) in weights.layers.iter().zip(&sub.layers).enumerate() {
        recorder.layer(i, layer, Kept { units: *units, adapters }, rows)?;
    }
    Ok(recorder.recording)
}

/// Final norm and logits of the rows that want them.
pub fn head(
    spec: &ModelSpec,
    kernels: &Kernels,
    buffers: &Buffers,
    weights: &Weights,
    family: Family,
) -> Result<Recording> {
    let (rotate, widths) = (false, Widths::default());
    let mut recorder = Recorder { spec, kernels, buffers, family, rotate, widths, recording: Recording::default() };
    let b = buffers;
    let dim = spec.dim as u32;
    let gather = GatherParams { dim, ..Default::default() };
    let work = [Work::Fixed(dim), Work::OutRows];
    recorder.recording.push(kernels.best("gather_rows"), &gather, &[b.outs, b.hidden, b.picked], work);
    recorder.norm(b.picked, weights.final_norm, b.picked_norm, false, true);
    let output = weights.output.as_ref().unwrap_or(&weights.embed);
    recorder.product(Product { out_rows: true, ..Product::new(output, b.picked_norm, b.logits) })?;
    Ok(recorder.recording)
}

fn sample_params(spec: &ModelSpec) -> SampleParams {
    SampleParams { vocab: spec.vocab as u32, recent: RECENT, ..Default::default() }
}

/// A token from each row of logits.
pub fn sample(spec: &ModelSpec, b: &Buffers) -> Result<Recording> {
    let mut recording = Recording::default();
    let args = [b.outs, b.rows, b.samplers, b.recent, b.logits, b.tokens, b.sampled];
    let variant = concertina_shaders::variant("sample").expect("in the table");
    recording.push(variant, &sample_params(spec), &args, [Work::OutRows, Work::Fixed(1)]);
    Ok(recording)
}

/// Negative log-likelihood of the wanted token of each row of logits.
pub fn row_nll(spec: &ModelSpec, b: &Buffers) -> Result<Recording> {
    let mut recording = Recording::default();
    let variant = concertina_shaders::variant("row_nll").expect("in the table");
    recording.push(variant, &sample_params(spec), &[b.outs, b.logits, b.nll], [Work::OutRows, Work::Fixed(1)]);
    Ok(recording)
}
