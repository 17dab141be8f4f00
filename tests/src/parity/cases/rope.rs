//! Rotary embedding of queries and keys, and the way of keys and values into the pages.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{RopeParams, Step, Variant};

use super::attention::{Batch, Run};
use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON, POISON_F16};

/// Two products and a sum, then sums of up to 256 of them.
const BOUND: Compare = Compare::f32(1e-6);

#[derive(Debug, Clone, Copy)]
struct Shape {
    head_dim: usize,
    /// Query heads of a group.
    per_group: usize,
    /// Groups kept, and that a chunk has room for.
    groups: (usize, usize),
    halves: u32,
    /// Which of the model's rotary embeddings.
    rope: usize,
    /// Whether the transform follows.
    rotate: bool,
    /// Width of the pages: f16 or f32.
    width: u32,
    /// Whether queries, keys and values lie group by group in one buffer.
    fused: bool,
    runs: &'static [Run],
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shape = |head_dim, per_group, groups, halves, rope, runs| Shape {
        head_dim,
        per_group,
        groups,
        halves,
        rope,
        rotate: true,
        width: 0,
        fused: false,
        runs,
    };
    let shapes = [
        shape(64, 3, (1, 1), 1, 0, &[(0, 1)][..]),
        shape(64, 3, (3, 3), 0, 1, &[(14, 7)]),
        shape(128, 2, (2, 4), 1, 1, &[(15, 2), (0, 1), (47, 4)]),
        shape(256, 4, (1, 1), 1, 0, &[(1000, 1), (16, 8)]),
        shape(128, 2, (1, 3), 0, 0, &[(31, 33)]),
        shape(80, 1, (5, 6), 1, 1, &[(3, 1), (4, 1), (5, 1), (300, 1)]),
        shape(16, 1, (1, 1), 0, 1, &[(12, 9)]),
    ];
    shapes
        .into_iter()
        .flat_map(|s| {
            [s, Shape { rotate: false, ..s }, Shape { width: 4, fused: true, ..s }, Shape { fused: true, ..s }]
        })
        // Eight lanes hold blocks of 64 dimensions.
        .filter(|s| !variant.subgroups || !s.rotate || 1 << s.head_dim.trailing_zeros() <= 64)
        .map(|s| case(variant, rng, s))
        .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let dim = s.head_dim;
    let batch = Batch::new(rng, s.runs, (s.groups.1, dim), |_, _| s.width);
    let (rows, heads) = (batch.rows(), s.per_group * s.groups.0);
    let capacity = rows + 2; // rows of a buffer, as the engine has more than a batch needs
    let mut p = RopeParams {
        heads: heads as u32,
        heads_per_group: s.per_group as u32,
        kept: s.groups.0 as u32,
        groups: s.groups.1 as u32,
        head_dim: dim as u32,
        halves: s.halves,
        rope_offset: (s.rope * capacity * dim / 2) as u32,
        rotate: if s.rotate { 1 << dim.trailing_zeros() } else { 0 },
        q_stride: (heads * dim + 8) as u32,
        q_step: (s.per_group * dim) as u32,
        k_stride: (s.groups.1 * dim + 4) as u32,
        k_step: dim as u32,
        v_stride: (s.groups.1 * dim + 12) as u32,
        v_step: dim as u32,
        out_stride: (heads * dim + 16) as u32,
        ..Default::default()
    };
    if s.fused {
        // Rows of [group: its query heads, its key, its value], with something before and after.
        let step = ((s.per_group + 2) * dim) as u32;
        let stride = step * s.groups.1 as u32 + 20;
        (p.q_stride, p.k_stride, p.v_stride) = (stride, stride, stride);
        (p.q_step, p.k_step, p.v_step) = (step, step, step);
        p.q_offset = 4;
        p.k_offset = 4 + (s.per_group * dim) as u32;
        p.v_offset = p.k_offset + dim as u32;
    }
    // Of a fused buffer each of the three views holds what it is read for, and NaN elsewhere.
    let mut q = Out::new(capacity * p.q_stride as usize);
    let mut k = Out::new(capacity * p.k_stride as usize);
    let mut v = Out::new(capacity * p.v_stride as usize);
    let mut q_out = Out::new(capacity * p.out_stride as usize);
    let mut rope = Out::new(2 * capacity * dim);
    let mut pages = Out::filled(batch.words, if s.width == 0 { POISON_F16 } else { POISON });
    for (row, place) in batch.places.iter().enumerate() {
        let r = row as u32;
        for head in 0..heads as u32 {
            let (group, inside) = (head / p.heads_per_group, head % p.heads_per_group);
            let at = p.q_offset + r * p.q_stride + group * p.q_step + inside * p.head_dim;
            q.put(at as usize, &floats(rng, dim));
        }
        for group in 0..p.kept {
            k.put((p.k_offset + r * p.k_stride + group * p.k_step) as usize, &floats(rng, dim));
            v.put((p.v_offset + r * p.v_stride + group * p.v_step) as usize, &floats(rng, dim));
        }
        let out = row * p.out_stride as usize;
        q_out.expect(out..out + heads * dim);
        let angles: Vec<f32> = (0..dim / 2)
            .map(|i| f64::from(place.0) * 10_000f64.powf(-2.0 * i as f64 / dim as f64))
            .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
            .collect();
        rope.put(2 * p.rope_offset as usize + row * dim, &angles);
        for value in [false, true] {
            for group in 0..s.groups.0 {
                let plane = batch.plane(*place, value, group);
                for i in 0..dim {
                    let (word, _) = plane.element(place.0 as usize % 16, i);
                    pages.expect(word..word + 1);
                }
            }
        }
    }
    let step = Step { rows: rows as u32, ..Step::default() };
    let buffers = vec![
        Buffer::input(batch.row_words()),
        Buffer::input(batch.tables.clone()),
        rope.input(),
        q.input(),
        k.input(),
        v.input(),
        q_out.output(BOUND),
        pages.output(match (s.width, s.rotate) {
            (4, _) => BOUND,
            (_, false) => Compare::Half,
            // Sums that nearly cancel are off by more than their last place.
            (_, true) => Compare::Halves { each: 1e-3 },
        }),
    ];
    let work = [Work::Fixed(((heads + 2 * s.groups.0) * dim / 8) as u32), Work::Rows];
    Case::new(variant, format!("{s:?}"), step, p, work, buffers)
}
