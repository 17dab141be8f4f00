//! A recording: kernels with their parameters and buffers in order, independent of what executes it. It is built once
//! for a shape and replayed for every token; only [`Step`] and the contents of buffers change between replays.

use bytemuck::bytes_of;
use concertina_shaders::{Params, Step, Variant};

/// A device buffer, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufId(pub(crate) u32);

/// A range of a device buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The buffer.
    pub buf: BufId,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Slice {
    /// The first `len` bytes of this range.
    ///
    /// # Panics
    /// If it is shorter.
    pub fn prefix(self, len: u64) -> Slice {
        assert!(len <= self.len, "a prefix of {len} bytes of {}", self.len);
        Slice { len, ..self }
    }
}

/// How much work a dimension of a dispatch holds; known when it is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Always this much.
    Fixed(u32),
    /// A row of the batch each.
    Rows,
    /// A row with logits each.
    OutRows,
    /// A part of the chunks for four queries of a KV group each: queries are the heads of a group in `Step::span` rows.
    Attention {
        /// KV groups.
        groups: u32,
        /// Query heads of each.
        heads_per_group: u32,
    },
    /// Four queries of a KV group of one row each.
    Tokens {
        /// KV groups.
        groups: u32,
        /// Query heads of each.
        heads_per_group: u32,
    },
    /// A row of the batch each, if attention was split.
    SplitRows,
    /// A chunk that changes its width each.
    Jobs,
    /// A chunk of the longest context each, if the step collects densities.
    DensityChunks,
}

impl Work {
    /// The amount for a step.
    pub fn amount(self, step: &Step) -> u32 {
        match self {
            Work::Fixed(n) => n,
            Work::Rows => step.rows,
            Work::OutRows => step.out_rows,
            Work::Attention { groups, heads_per_group } => {
                let blocks = (step.span * heads_per_group).div_ceil(4);
                groups * blocks * (step.rows / step.span.max(1)) * step.splits
            }
            Work::Tokens { groups, heads_per_group } => groups * heads_per_group.div_ceil(4) * step.rows,
            Work::SplitRows => {
                if step.splits > 1 {
                    step.rows
                } else {
                    0
                }
            }
            Work::Jobs => step.jobs,
            Work::DensityChunks => step.batch_chunks * step.density,
        }
    }
}

/// Which steps have a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// Those whose rows are the only ones of their contexts, with attention that is not split.
    Apart,
    /// The others.
    Together,
    /// Of those, the ones whose rows attention takes one by one.
    Singly,
    /// Of those, the ones whose rows attention takes several at a time.
    Spanned,
}

impl When {
    fn holds(self, step: &Step) -> bool {
        match self {
            When::Always => true,
            When::Apart => step.apart == 1,
            When::Together => step.apart == 0,
            When::Singly => step.apart == 0 && step.span == 1,
            When::Spanned => step.apart == 0 && step.span != 1,
        }
    }
}

/// One dispatch.
#[derive(Debug, Clone)]
pub struct Op {
    /// Which kernel.
    pub variant: &'static Variant,
    /// Its params, as bytes.
    pub params: Vec<u8>,
    /// Its buffers, in binding order from 2.
    pub args: Vec<Slice>,
    /// Work along x, of which a workgroup does `variant.group[0]`, and along y, of which it does `variant.group[1]`.
    pub work: [Work; 2],
    /// Which steps have it.
    pub when: When,
}

impl Op {
    /// Workgroups for a step.
    pub fn groups(&self, step: &Step) -> [u32; 2] {
        if !self.when.holds(step) {
            return [0, 0];
        }
        [0, 1].map(|i| self.work[i].amount(step).div_ceil(self.variant.group[i]))
    }
}

/// Dispatches in order.
#[derive(Debug, Default)]
pub struct Recording {
    /// The dispatches.
    pub ops: Vec<Op>,
}

impl Recording {
    /// Add a dispatch.
    ///
    /// # Panics
    /// If the params or the number of buffers are not those of the kernel.
    pub fn push<P: Params>(&mut self, variant: &'static Variant, params: &P, args: &[Slice], work: [Work; 2]) {
        self.push_when(When::Always, variant, params, args, work);
    }

    /// Add a dispatch that only some steps have.
    ///
    /// # Panics
    /// As [`Recording::push`].
    pub fn push_when<P: Params>(
        &mut self,
        when: When,
        variant: &'static Variant,
        params: &P,
        args: &[Slice],
        work: [Work; 2],
    ) {
        assert_eq!(variant.params, P::NAME, "{}: wrong params", variant.name);
        assert_eq!(variant.bindings.len(), args.len() + 2, "{}: wrong number of buffers", variant.name);
        self.ops.push(Op { variant, params: bytes_of(params).to_vec(), args: args.to_vec(), work, when });
    }
}
