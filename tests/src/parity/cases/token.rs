//! Rotary embedding, pages and attention of single tokens in one dispatch.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{Step, TokenParams, Variant};
use half::f16;

use super::attention::{Batch, Run, fill};
use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON, POISON_F16};

#[derive(Debug, Clone, Copy)]
struct Shape {
    head_dim: usize,
    per_group: usize,
    /// Groups kept, and that a chunk has room for.
    groups: (usize, usize),
    halves: u32,
    window: usize,
    density: u32,
    rotate: bool,
    runs: &'static [Run],
    /// Of each chunk: its run and number pick one of these; the first is the width that is written.
    widths: &'static [u32],
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shape = |head_dim, per_group, groups, halves, window, density, runs| Shape {
        head_dim,
        per_group,
        groups,
        halves,
        window,
        density,
        rotate: true,
        runs,
        widths: &[0],
    };
    let widths: &[&[u32]] = match variant.pages {
        "kv32" => &[&[4]],
        "kv16" => &[&[0]],
        "kv16+kv4" => &[&[0], &[0, 2, 2], &[0, 2]],
        _ => &[&[0, 1, 2, 3], &[0, 3, 3, 1], &[0, 2]],
    };
    // Each row is the only one of its context.
    let shapes = [
        shape(64, 3, (1, 1), 0, 0, 0, &[(0, 1)][..]),
        shape(64, 3, (3, 3), 0, 0, 1, &[(77, 1)]),
        shape(64, 7, (2, 2), 1, 0, 1, &[(64, 1), (0, 1), (15, 1), (171, 1)]),
        shape(64, 4, (2, 4), 0, 0, 0, &[(16, 1), (17, 1)]),
        shape(64, 1, (1, 3), 1, 20, 1, &[(35, 1), (48, 1), (63, 1)]),
        shape(64, 5, (1, 1), 0, 1, 1, &[(40, 1), (32, 1), (1, 1)]),
        shape(16, 2, (2, 2), 0, 0, 0, &[(33, 1), (7, 1)]),
        shape(48, 3, (2, 3), 1, 0, 1, &[(50, 1)]),
        shape(32, 1, (5, 5), 0, 33, 0, &[(100, 1), (96, 1)]),
    ];
    shapes
        .into_iter()
        .flat_map(|s| [s, Shape { rotate: false, ..s }])
        .flat_map(|s| widths.iter().map(move |widths| Shape { widths, ..s }))
        .map(|s| case(variant, rng, s))
        .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let (dim, written) = (s.head_dim, s.widths[0]);
    let batch = Batch::new(rng, s.runs, (s.groups.1, dim), |run, chunk| {
        if (s.runs[run].0 + 1) / 16 <= chunk { written } else { s.widths[(run + chunk) % s.widths.len()] }
    });
    // The chunk that is written is as wide as that, full or not.
    let mut batch = batch;
    for (position, table) in batch.places.clone() {
        let entry = &mut batch.tables[table as usize + position as usize / 16];
        *entry = *entry & 0x0fff_ffff | written << 28;
    }
    let (rows, heads, chunks) = (batch.rows(), s.per_group * s.groups.0, batch.chunks());
    let capacity = rows + 2;
    let group_stride = (s.per_group + 2) * dim;
    let row_stride = group_stride * s.groups.1 + 20;
    let (q_offset, k_offset) = (4, 4 + s.per_group * dim);
    let mut p = TokenParams {
        heads: heads as u32,
        heads_per_group: s.per_group as u32,
        groups: s.groups.1 as u32,
        head_dim: dim as u32,
        halves: s.halves,
        rope_offset: (s.density as usize * capacity * dim / 2) as u32,
        rotate: if s.rotate { 1 << dim.trailing_zeros() } else { 0 },
        window: s.window as u32,
        q_offset: q_offset as u32,
        k_offset: k_offset as u32,
        v_offset: (k_offset + dim) as u32,
        row_stride: row_stride as u32,
        group_stride: group_stride as u32,
        out_stride: (heads * dim + 8) as u32,
        // Scores of about ±3: some keys matter much more than others.
        scale: 3.0 / (dim as f32).sqrt(),
        centres: 0,
    };

    let mut pages = Out::filled(batch.words, if written == 4 { POISON } else { POISON_F16 });
    // Keys without their centres, in half of the cases.
    if s.density == 1 && variant.pages.contains("kv4") {
        p.centres = batch.words as u32 / 4;
        let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
        let words = chunks * s.groups.1 * dim / 2;
        pages.words.extend((0..words).map(|_| half(rng.float()) | half(rng.float()) << 16));
        pages.written.resize(pages.words.len(), false);
    }
    let mut qkv = Out::new(capacity * row_stride);
    let mut rope = Out::new(2 * capacity * dim);
    let mut chunk_ml = Out::new((rows + 1) * heads * chunks * 2);
    let mut out = Out::new(capacity * p.out_stride as usize);
    let mut row_ml = Out::new((rows + 1) * heads * 2);
    for (row, place) in batch.places.iter().enumerate() {
        let position = place.0 as usize;
        for group in 0..s.groups.0 {
            qkv.put(q_offset + row * row_stride + group * group_stride, &floats(rng, group_stride));
            for value in [false, true] {
                // What is there before the token, from the first chunk in sight.
                for before in 16 * batch.first_chunk(row, s.window)..position {
                    let plane = batch.plane((before as u32, place.1), value, group);
                    fill(rng, &mut pages.words, &plane, before % 16, dim);
                }
                let plane = batch.plane(*place, value, group);
                for i in 0..dim {
                    let (word, _) = plane.element(position % 16, i);
                    pages.expect(word..word + 1);
                }
            }
        }
        let angles: Vec<f32> = (0..dim / 2)
            .map(|i| f64::from(place.0) * 10_000f64.powf(-2.0 * i as f64 / dim as f64))
            .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
            .collect();
        rope.put(2 * p.rope_offset as usize + row * dim, &angles);
        let to = row * p.out_stride as usize;
        out.expect(to..to + heads * dim);
        row_ml.expect(2 * row * heads..2 * (row + 1) * heads);
        for head in (0..heads).filter(|_| s.density == 1) {
            let at = (row * heads + head) * chunks;
            chunk_ml.expect(2 * (at + batch.first_chunk(row, s.window))..2 * (at + position / 16 + 1));
        }
    }
    let step = Step {
        rows: rows as u32,
        splits: 1,
        chunks_per_split: chunks as u32,
        batch_chunks: chunks as u32,
        density: s.density,
        span: 1,
        apart: 1,
        ..Step::default()
    };
    // Where the token's own key or value lies between two f16, the twin may round the other way.
    let sums = if written == 4 { Compare::f32(2e-5) } else { Compare::f32(2e-4) };
    let buffers = vec![
        Buffer::input(batch.row_words()),
        Buffer::input(batch.tables.clone()),
        rope.input(),
        qkv.input(),
        pages.output(match (written, s.rotate) {
            (4, _) => Compare::f32(1e-6),
            (_, false) => Compare::Half,
            (_, true) => Compare::Halves { each: 1e-3 },
        }),
        chunk_ml.output(sums),
        out.output(sums),
        row_ml.output(sums),
    ];
    let work = Work::Tokens { groups: s.groups.0 as u32, heads_per_group: s.per_group as u32 };
    Case::new(variant, format!("{s:?}"), step, p, [work, Work::Fixed(1)], buffers)
}
