//! The structs that kernels take as uniforms. Their offsets are checked against naga's reflection by a test.

use bytemuck::{Pod, Zeroable};

/// A uniform struct that knows its members' names and offsets.
pub trait Params: Pod {
    /// Name of the struct, in Rust and in WGSL.
    const NAME: &'static str;
    /// `(name, offset in bytes)` of each member.
    const MEMBERS: &'static [(&'static str, usize)];
}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($(#[$mdoc:meta])* $member:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
        pub struct $name { $($(#[$mdoc])* pub $member: $ty,)* }

        impl Params for $name {
            const NAME: &'static str = stringify!($name);
            const MEMBERS: &'static [(&'static str, usize)] =
                &[$((stringify!($member), std::mem::offset_of!($name, $member)),)*];
        }
    )*};
}

params! {
    /// What changes from one replay of a recording to the next; bound to every kernel.
    Step {
        /// Rows of the batch: one token of one context each.
        rows: u32,
        /// Rows that get logits.
        out_rows: u32,
        /// Parts that attention cuts the chunks of a context into.
        splits: u32,
        /// Chunks of a part.
        chunks_per_split: u32,
        /// Stride of per-chunk statistics: the most chunks any row sees.
        batch_chunks: u32,
        /// 1: collect each chunk's share of the probability.
        density: u32,
        /// Rows that attention may take together: all of a batch of one context, else 1.
        span: u32,
        /// Chunks that change their width.
        jobs: u32,
        /// 1: each row is the only one of its context, and attention is not split.
        apart: u32,
    }

    /// Parameters of `embed`.
    EmbedParams {
        /// Embedding width in pieces of 32.
        pieces: u32,
        /// Rows of a row block.
        row_block: u32,
        /// First token of this part of the table.
        first: u32,
        /// Tokens of this part of the table.
        count: u32,
        /// Multiplies the embedding.
        scale: f32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
        /// Padding.
        pad2: u32,
    }

    /// Parameters of `gather_rows`.
    GatherParams {
        /// Features of a row.
        dim: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
        /// Padding.
        pad2: u32,
    }

    /// Parameters of `rms_norm`.
    NormParams {
        /// Features of a vector.
        dim: u32,
        /// Vectors a row.
        heads: u32,
        /// Features between two rows of x.
        x_stride: u32,
        /// Features between two rows of y.
        y_stride: u32,
        /// 1: add to y instead of replacing it.
        accumulate: u32,
        /// 1: the batch is `Step::out_rows`, else `Step::rows`.
        out_rows: u32,
        /// Added to the mean of squares.
        eps: f32,
        /// Added to every weight.
        offset: f32,
        /// 1: normalise y itself; x is not read.
        in_place: u32,
        /// First feature of y.
        y_offset: u32,
        /// Vectors of y that lie side by side.
        run: u32,
        /// Features from the first of a run to the first of the next.
        run_step: u32,
    }

    /// Parameters of `adapter`.
    AdapterParams {
        /// Inputs of A, a multiple of 4: a prefix of x.
        inputs: u32,
        /// Outputs of B, a multiple of 4.
        outputs: u32,
        /// Features between two rows of x, a multiple of 4.
        x_stride: u32,
        /// Features between two rows of y, a multiple of 4.
        y_stride: u32,
        /// 1: batches have two rows at most.
        few: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
        /// Padding.
        pad2: u32,
    }

    /// Parameters of every kernel that multiplies with weights (`matmul`, `matvec` and those named after them). Feature f of this part lies at
    /// `row * y_stride + y_offset + f / y_run * y_step + f % y_run`.
    MatmulParams {
        /// Output features to compute: a prefix of the rows of W.
        n: u32,
        /// Panels to read: a prefix of the columns of W.
        panels: u32,
        /// Panels of a row block as stored.
        panels_stored: u32,
        /// Rows of a row block, a multiple of 32.
        row_block: u32,
        /// First input feature.
        x_offset: u32,
        /// Features between two rows of x.
        x_stride: u32,
        /// Output feature of the first row of W here: parts of a matrix follow each other.
        first: u32,
        /// Where output feature 0 lies.
        y_offset: u32,
        /// Features between two rows of y.
        y_stride: u32,
        /// Output features that lie side by side; 0: all of them.
        y_run: u32,
        /// From the first of a run to the first of the next.
        y_step: u32,
        /// 1: add the bias.
        bias: u32,
        /// 1: add to y instead of replacing it.
        accumulate: u32,
        /// 1: the batch is `Step::out_rows`, else `Step::rows`.
        out_rows: u32,
        /// 1: RMSNorm of x on the way in, over the panels read.
        norm: u32,
        /// Gated MLP on the way out: 1: SiLU, 2: tanh approximation of GELU. Rows of W come in fours, two of gate and
        /// two of up, and give two output features.
        glu: u32,
        /// Of the norm: added to the mean of squares.
        eps: f32,
        /// Of the norm: added to every gain.
        gain_offset: f32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
    }

    /// Parameters of `glu`.
    GluParams {
        /// Neurons kept: a prefix.
        n: u32,
        /// Neurons between two rows.
        stride: u32,
        /// 1: tanh approximation of GELU, else SiLU.
        gelu: u32,
        /// Padding.
        pad: u32,
    }

    /// Parameters of `layer_norm`.
    LayerNormParams {
        /// Features of a row, a multiple of 4.
        dim: u32,
        /// Features between two rows, a multiple of 4.
        stride: u32,
        /// 1: the batch is `Step::out_rows`, else `Step::rows`.
        out_rows: u32,
        /// Added to the variance.
        eps: f32,
    }

    /// Parameters of `gelu_erf`.
    GeluParams {
        /// Features of a row, a multiple of 4.
        n: u32,
        /// Features between two rows, a multiple of 4.
        stride: u32,
        /// 1: the batch is `Step::out_rows`, else `Step::rows`.
        out_rows: u32,
        /// Padding.
        pad: u32,
    }

    /// Parameters of `attn_dense`. Offsets and strides are multiples of 4.
    DenseParams {
        /// Heads.
        heads: u32,
        /// Dimensions of a head, a multiple of 4, at most 64.
        head_dim: u32,
        /// The query of head h and row r begins at `q_offset + r·q_stride + h·head_dim`.
        q_offset: u32,
        /// Features between two rows of queries.
        q_stride: u32,
        /// Likewise of keys.
        k_offset: u32,
        /// Features between two rows of keys, and of values.
        kv_stride: u32,
        /// Likewise of values.
        v_offset: u32,
        /// Features between two rows of the output.
        out_stride: u32,
        /// Keys before those of `Step::rows`.
        before: u32,
        /// 1: queries are `Step::out_rows`, else `Step::rows`.
        out_rows: u32,
        /// Multiplies `q·k`.
        scale: f32,
        /// Padding.
        pad: u32,
    }

    /// Parameters of `rope_kv`: where each head's features lie, and what is done to them.
    RopeParams {
        /// Query heads kept.
        heads: u32,
        /// Query heads of a KV group.
        heads_per_group: u32,
        /// KV groups kept.
        kept: u32,
        /// KV groups that a chunk has room for.
        groups: u32,
        /// Dimensions of a head, a multiple of 16.
        head_dim: u32,
        /// 1: pairs `(i, i + d/2)`, else `(2i, 2i + 1)`.
        halves: u32,
        /// First `(cos, sin)` of the layer's rotary embedding.
        rope_offset: u32,
        /// Dimensions of a block of the Walsh-Hadamard transform, a power of two that divides `head_dim`; 0: none.
        rotate: u32,
        /// Head h of row r begins at `q_offset + r·q_stride + (h / heads_per_group)·q_step + (h % heads_per_group)·head_dim`.
        q_offset: u32,
        /// Features between two rows of queries.
        q_stride: u32,
        /// Features between two groups of queries.
        q_step: u32,
        /// The key of group g and row r begins at `k_offset + r·k_stride + g·k_step`.
        k_offset: u32,
        /// Features between two rows of keys.
        k_stride: u32,
        /// Features between two groups of keys.
        k_step: u32,
        /// Likewise of values.
        v_offset: u32,
        /// Features between two rows of values.
        v_stride: u32,
        /// Features between two groups of values.
        v_step: u32,
        /// Features between two rows of what comes out.
        out_stride: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
    }

    /// Parameters of `kv_quant`.
    QuantParams {
        /// KV groups that are written: a prefix.
        kept: u32,
        /// KV groups that a chunk has room for.
        groups: u32,
        /// Dimensions of a head.
        head_dim: u32,
        /// Piece of 16 bytes of the arena where the centres of keys begin; 0: there are none.
        centres: u32,
    }

    /// Parameters of `attn_split`, `attn_merge` and `attn_share`.
    AttnParams {
        /// Query heads kept.
        heads: u32,
        /// Query heads of a KV group.
        heads_per_group: u32,
        /// KV groups that a chunk has room for.
        groups: u32,
        /// Dimensions of a head.
        head_dim: u32,
        /// Features between two rows of q.
        q_stride: u32,
        /// Features between two rows of the output.
        out_stride: u32,
        /// Keys that a query sees, itself included; 0: all before it.
        window: u32,
        /// Multiplies `q·k`.
        scale: f32,
        /// Dimensions of a block of the transform that values went through; 0: none.
        rotate: u32,
        /// Piece of 16 bytes of the arena where the centres of keys begin; 0: none were taken off.
        centres: u32,
        /// Most queries that a workgroup has: 4, or a group's heads where rows are taken one by one.
        most_queries: u32,
        /// Padding.
        pad0: u32,
    }

    /// Parameters of `attn_token`.
    TokenParams {
        /// Query heads kept.
        heads: u32,
        /// Query heads of a KV group.
        heads_per_group: u32,
        /// KV groups that a chunk has room for.
        groups: u32,
        /// Dimensions of a head, a multiple of 16, at most 64.
        head_dim: u32,
        /// 1: pairs `(i, i + d/2)`, else `(2i, 2i + 1)`.
        halves: u32,
        /// First `(cos, sin)` of the layer's rotary embedding.
        rope_offset: u32,
        /// Dimensions of a block of the Walsh-Hadamard transform, a power of two that divides `head_dim`; 0: none.
        rotate: u32,
        /// Keys that a query sees, itself included; 0: all before it.
        window: u32,
        /// Query i of group g and row r begins at `q_offset + r·row_stride + g·group_stride + i·head_dim`.
        q_offset: u32,
        /// Its key likewise.
        k_offset: u32,
        /// Its value likewise.
        v_offset: u32,
        /// Features between two rows.
        row_stride: u32,
        /// Features between two groups.
        group_stride: u32,
        /// Features between two rows of the output.
        out_stride: u32,
        /// Multiplies `q·k`.
        scale: f32,
        /// Piece of 16 bytes of the arena where the centres of keys begin; 0: none were taken off.
        centres: u32,
    }

    /// Parameters of `sample` and `row_nll`.
    SampleParams {
        /// Tokens of the vocabulary.
        vocab: u32,
        /// Entries of a ring of recent tokens.
        recent: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
    }

    /// Parameters of the kernels that measure an adapter.
    RoofParams {
        /// Elements of x and of y: vectors of four words.
        count: u32,
        /// Turns of the loop.
        turns: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
    }

    /// How a context samples, as `sample` reads it from a storage buffer.
    Sampler {
        /// 0: the most likely token.
        temperature: f32,
        /// Nucleus mass; 1: off.
        top_p: f32,
        /// Least probability as a share of the greatest; 0: off.
        min_p: f32,
        /// Repetition penalty; 1: off.
        penalty: f32,
        /// Tokens to keep; 0: off.
        top_k: u32,
        /// Seed of the noise.
        seed: u32,
        /// Padding.
        pad0: u32,
        /// Padding.
        pad1: u32,
    }
}
