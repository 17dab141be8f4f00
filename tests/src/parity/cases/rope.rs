//! Rotary embedding of queries and keys, and the way of keys and values into the pages.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{RopeParams, Step, Variant};

use super::attention::{Batch, Run};
use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON, POISON_F16};

/// Two products and a sum.
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
    runs: &'static [Run],
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shape =
        |head_dim, per_group, groups, halves, rope, runs| Shape { head_dim, per_group, groups, halves, rope, runs };
    [
        shape(64, 3, (1, 1), 1, 0, &[(0, 1)][..]),
        shape(64, 3, (3, 3), 0, 1, &[(14, 7)]),
        shape(128, 2, (2, 4), 1, 1, &[(15, 2), (0, 1), (47, 4)]),
        shape(256, 4, (1, 1), 1, 0, &[(1000, 1), (16, 8)]),
        shape(128, 2, (1, 3), 0, 0, &[(31, 33)]),
        shape(80, 1, (5, 6), 1, 1, &[(3, 1), (4, 1), (5, 1), (300, 1)]),
        shape(4, 1, (1, 1), 0, 1, &[(12, 9)]),
    ]
    .into_iter()
    .map(|s| case(variant, rng, s))
    .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let batch = Batch::new(rng, s.runs);
    let (rows, dim) = (batch.rows(), s.head_dim);
    let capacity = rows + 2; // rows of a buffer, as the engine has more than a batch needs
    let of_group = (s.per_group + 2) * dim;
    let stride = s.groups.1 * of_group + 7;
    let mut qkv = Out::new(capacity * stride);
    let mut rope = Out::new(2 * capacity * dim);
    let rope_offset = s.rope * capacity * dim / 2;
    let (per_word, poison) = if variant.kv32 { (1, POISON) } else { (2, POISON_F16) };
    let mut pages = Out::filled(batch.slots * 2 * s.groups.1 * 16 * dim / per_word, poison);
    for (row, place) in batch.places.iter().enumerate() {
        for group in 0..s.groups.0 {
            let at = row * stride + group * of_group;
            qkv.put(at, &floats(rng, of_group));
            qkv.expect(at..at + s.per_group * dim);
        }
        let angles: Vec<f32> = (0..dim / 2)
            .map(|i| f64::from(place.0) * 10_000f64.powf(-2.0 * i as f64 / dim as f64))
            .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
            .collect();
        rope.put(2 * rope_offset + row * dim, &angles);
        let (slot, token) = (batch.slot(*place), place.0 as usize % 16);
        for value in 0..2 {
            for group in 0..s.groups.0 {
                let at = (((slot * 2 + value) * s.groups.1 + group) * 16 + token) * dim / per_word;
                pages.expect(at..at + dim / per_word);
            }
        }
    }
    let params = RopeParams {
        heads: (s.groups.0 * s.per_group) as u32,
        kept: s.groups.0 as u32,
        groups: s.groups.1 as u32,
        head_dim: dim as u32,
        heads_per_group: s.per_group as u32,
        stride: stride as u32,
        halves: s.halves,
        rope_offset: rope_offset as u32,
    };
    let step = Step { rows: rows as u32, ..Step::default() };
    let buffers = vec![
        Buffer::input(batch.row_words()),
        Buffer::input(batch.tables.clone()),
        rope.input(),
        qkv.output(BOUND),
        pages.output(if variant.kv32 { BOUND } else { Compare::Half }),
    ];
    let work = [Work::Fixed((s.groups.0 * of_group / 4) as u32), Work::Rows];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers)
}
