//! Contexts with their chunk tables, and the parts of split attention.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::twins::Plane;
use concertina_shaders::{AttnParams, Step, Variant};
use half::f16;

use super::{floats, shuffled};
use crate::parity::{Buffer, Case, Compare, Out, POISON, POISON_F16};

/// Rows of one context in a batch: first position, rows.
pub type Run = (usize, usize);

/// A batch over contexts whose chunks lie in scattered places.
pub struct Batch {
    /// `(position, first entry of the chunk table)` of each row.
    pub places: Vec<(u32, u32)>,
    /// Entries that no context uses lead to the trap: a chunk where all is NaN.
    pub tables: Vec<u32>,
    /// Words of the arena, the trap and a few idle places included.
    pub words: usize,
    groups: u32,
    head_dim: u32,
}

impl Batch {
    /// One context a run, in order; chunks of `groups` heads of `head_dim` dimensions. `width` of a chunk: of its run and
    /// its number.
    pub fn new(
        rng: &mut Rng,
        runs: &[Run],
        (groups, head_dim): (usize, usize),
        width: impl Fn(usize, usize) -> u32,
    ) -> Self {
        let chunks: usize = runs.iter().map(|(first, rows)| (first + rows).div_ceil(16)).sum();
        let slots = chunks + 3;
        // Room for a chunk of f32.
        let units = (head_dim * 32).div_ceil(128) * 4 + 1;
        let order: Vec<u32> = shuffled(rng, slots).into_iter().map(|slot| slot * units as u32).collect();
        let (trap, free) = order.split_first().expect("there are slots");
        let mut free = free.iter();
        let mut tables = vec![*trap; 2];
        let mut places = Vec::new();
        for (run, (first, rows)) in runs.iter().enumerate() {
            let table = tables.len() as u32;
            let places_of = free.by_ref().take((first + rows).div_ceil(16));
            tables.extend(places_of.enumerate().map(|(chunk, place)| width(run, chunk) << 28 | place));
            tables.extend([*trap; 2]);
            places.extend((*first..first + rows).map(|position| (position as u32, table)));
        }
        let words = slots * units * 2 * groups * 16;
        Self { places, tables, words, groups: groups as u32, head_dim: head_dim as u32 }
    }

    /// Where the keys (or values) of a group of the chunk lie that a row's position is in.
    pub fn plane(&self, (position, table): (u32, u32), value: bool, group: usize) -> Plane {
        let entry = self.tables[table as usize + position as usize / 16];
        Plane::of(entry, value, group, self.groups, self.head_dim)
    }

    /// Rows that attention may take together.
    pub fn span(&self) -> u32 {
        let one = self.places.iter().all(|(_, table)| *table == self.places[0].1);
        if one { self.rows() as u32 } else { 1 }
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// The longest context's chunks.
    pub fn chunks(&self) -> usize {
        self.places.iter().map(|(position, _)| *position as usize / 16 + 1).max().unwrap_or(0)
    }

    /// What kernels read of the rows, and one row past the batch that would be valid.
    pub fn row_words(&self) -> Vec<u32> {
        let past = self.places.first().copied();
        self.places
            .iter()
            .chain(past.iter())
            .flat_map(|(position, table)| [*position, *table, POISON, POISON])
            .collect()
    }

    /// First chunk that a row sees.
    pub fn first_chunk(&self, row: usize, window: usize) -> usize {
        let seen = self.places[row].0 as usize + 1;
        if window == 0 { 0 } else { seen.saturating_sub(window) / 16 }
    }
}

/// Scores of up to 256 products each, their exponentials, and sums over up to some hundred keys.
const VALUES: Compare = Compare::f32(2e-5);

#[derive(Debug, Clone, Copy)]
struct Shape {
    head_dim: usize,
    heads: usize,
    per_group: usize,
    /// Groups that a chunk has room for.
    groups: usize,
    window: usize,
    /// Parts, and chunks of a part.
    splits: (usize, usize),
    density: u32,
    runs: &'static [Run],
    /// Of each chunk: its run and number pick one of these.
    widths: &'static [u32],
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shape = |head_dim, heads: [usize; 3], window, splits, density, runs| Shape {
        head_dim,
        heads: heads[0],
        per_group: heads[1],
        groups: heads[2],
        window,
        splits,
        density,
        runs,
        widths: &[0],
    };
    let widths: &[&[u32]] = match variant.pages {
        "kv32" => &[&[4]],
        "kv16" => &[&[0]],
        "kv16+kv4" => &[&[0], &[2], &[0, 2, 2]],
        "kv16+kv8+kv4+kv2" => &[&[0], &[1], &[3], &[0, 1, 2, 3], &[3, 2, 2, 1]],
        _ => &[&[0], &[4], &[0, 1, 2, 3], &[3, 2, 2, 1]],
    };
    let shapes = [
        shape(64, [1, 1, 1], 0, (1, 1), 0, &[(0, 1)][..]),
        shape(64, [9, 3, 3], 0, (1, 2), 1, &[(13, 7)]),
        shape(64, [6, 3, 4], 0, (3, 1), 0, &[(40, 1), (5, 1), (16, 1)]),
        shape(128, [4, 2, 2], 0, (2, 3), 1, &[(15, 2), (0, 3), (63, 8)]),
        shape(128, [2, 1, 4], 0, (4, 2), 0, &[(79, 2)]),
        shape(256, [4, 4, 1], 20, (1, 3), 1, &[(30, 9)]),
        shape(256, [4, 4, 2], 16, (5, 1), 1, &[(64, 3), (15, 2), (3, 1)]),
        shape(64, [3, 1, 3], 33, (3, 3), 0, &[(100, 9), (31, 2)]),
        shape(64, [7, 7, 1], 1, (9, 1), 1, &[(47, 2)]),
        shape(16, [2, 2, 1], 0, (1, 3), 0, &[(0, 33)]),
        shape(80, [5, 5, 1], 0, (2, 2), 1, &[(49, 5)]),
        shape(64, [14, 7, 2], 0, (9, 2), 1, &[(150, 1), (271, 1)]),
    ];
    shapes
        .into_iter()
        .filter(|s| s.head_dim <= 64 || !variant.subgroups)
        .flat_map(|s| widths.iter().map(move |widths| Shape { widths, ..s }))
        .map(|s| case(variant, rng, s))
        .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    // What is not sealed is as wide as it was written: the first of the widths. So is what a poisoned token makes unsealed.
    let unsealed = if s.widths[0] == 4 { 4 } else { 0 };
    let batch = Batch::new(rng, s.runs, (s.groups, s.head_dim), |run, chunk| {
        let (first, rows) = s.runs[run];
        if (first + rows) / 16 <= chunk { unsealed } else { s.widths[(run + chunk) % s.widths.len()] }
    });
    let (rows, dim, chunks) = (batch.rows(), s.head_dim, batch.chunks());
    assert!(s.splits.0 * s.splits.1 >= chunks, "{s:?}: the parts leave chunks out");
    let q_stride = s.heads * dim + 4;
    let mut q = Out::new((rows + 1) * q_stride);
    for row in 0..rows {
        q.put(row * q_stride, &floats(rng, s.heads * dim));
    }

    // Keys and values: positions that are written, in groups that are kept, from the first chunk that any row sees.
    let mut pages = Out::filled(batch.words, if unsealed == 4 { POISON } else { POISON_F16 });
    let mut first_row = 0;
    for (first, count) in s.runs {
        let last = batch.places[first_row + count - 1];
        for position in 16 * batch.first_chunk(first_row, s.window)..first + count {
            for value in [false, true] {
                for group in 0..s.heads / s.per_group {
                    let plane = batch.plane((position as u32, last.1), value, group);
                    fill(rng, &mut pages.words, &plane, position % 16, dim);
                }
            }
        }
        first_row += count;
    }

    // Keys without their centres, in half of the cases.
    let centres = if s.density == 1 { batch.words as u32 / 4 } else { 0 };
    if centres > 0 {
        let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
        let words = chunks * s.groups * dim / 2;
        pages.words.extend((0..words).map(|_| half(rng.float()) | half(rng.float()) << 16));
        pages.written.resize(pages.words.len(), false);
    }

    let alone = s.splits.0 == 1;
    let out_stride = s.heads * dim + 8;
    let (mut out, mut row_ml) = (Out::new((rows + 1) * out_stride), Out::new((rows + 1) * s.heads * 2));
    let mut partial = Out::new((rows + 1) * s.heads * s.splits.0 * dim);
    let mut split_ml = Out::new((rows + 1) * s.heads * s.splits.0 * 2);
    let mut chunk_ml = Out::new((rows + 1) * s.heads * chunks * 2);
    for row in 0..rows {
        let (begin, end) = (batch.first_chunk(row, s.window), batch.places[row].0 as usize / 16 + 1);
        for head in 0..s.heads {
            for split in 0..s.splits.0 {
                let at = (row * s.heads + head) * s.splits.0 + split;
                if alone {
                    out.expect(row * out_stride + head * dim..row * out_stride + (head + 1) * dim);
                    row_ml.expect(2 * (row * s.heads + head)..2 * (row * s.heads + head) + 2);
                    continue;
                }
                split_ml.expect(2 * at..2 * at + 2);
                let chunks = (split * s.splits.1).max(begin)..((split + 1) * s.splits.1).min(end);
                if !chunks.is_empty() {
                    partial.expect(at * dim..(at + 1) * dim);
                }
            }
            if s.density == 1 {
                let at = (row * s.heads + head) * chunks;
                chunk_ml.expect(2 * (at + begin)..2 * (at + end));
            }
        }
    }
    let params = AttnParams {
        heads: s.heads as u32,
        heads_per_group: s.per_group as u32,
        groups: s.groups as u32,
        head_dim: dim as u32,
        q_stride: q_stride as u32,
        out_stride: out_stride as u32,
        window: s.window as u32,
        // Scores of about ±3: some keys matter much more than others.
        scale: 3.0 / (dim as f32).sqrt(),
        // The transform, or none.
        rotate: if s.splits.0 == 1 && s.density == 0 { 0 } else { 1 << dim.trailing_zeros() },
        centres,
        most_queries: if batch.span() == 1 { s.per_group.min(4) as u32 } else { 4 },
        ..Default::default()
    };
    let step = Step {
        rows: rows as u32,
        splits: s.splits.0 as u32,
        chunks_per_split: s.splits.1 as u32,
        batch_chunks: chunks as u32,
        density: s.density,
        span: batch.span(),
        ..Step::default()
    };
    let buffers = vec![
        Buffer::input(batch.row_words()),
        Buffer::input(batch.tables.clone()),
        q.input(),
        pages.input(),
        partial.output(VALUES),
        split_ml.output(VALUES),
        chunk_ml.output(VALUES),
        out.output(VALUES),
        row_ml.output(VALUES),
    ];
    let work = [attention_work(s.heads / s.per_group, s.per_group), Work::Fixed(1)];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers)
}

/// Workgroups of `attn_split`.
fn attention_work(groups: usize, per_group: usize) -> Work {
    Work::Attention { groups: groups as u32, heads_per_group: per_group as u32 }
}

/// Random elements of a token.
pub fn fill(rng: &mut Rng, words: &mut [u32], plane: &Plane, t: usize, dim: usize) {
    let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
    for i in 0..dim {
        let (word, bit) = plane.element(t, i);
        let (mask, bits) = match plane.bits {
            32 => (u32::MAX, rng.float().to_bits()),
            16 => (0xffff, half(rng.float())),
            bits => ((1 << bits) - 1, rng.below(1 << bits) as u32),
        };
        words[word] = words[word] & !(mask << bit) | bits << bit;
    }
    if plane.bits < 16 {
        // Values of about ±1.7, as the others.
        let scale = (3.0 + 0.4 * rng.float()) / ((1 << plane.bits) - 1) as f32;
        words[plane.meta(t)] = half(scale) | half(-1.6 + 0.3 * rng.float()) << 16;
    }
}
