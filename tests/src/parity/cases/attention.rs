//! Contexts with their chunk tables, and the parts of split attention.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{AttnParams, Step, Variant};
use half::f16;

use super::{floats, shuffled};
use crate::parity::{Buffer, Case, Compare, Out, POISON, POISON_F16};

/// Rows of one context in a batch: first position, rows.
pub type Run = (usize, usize);

/// A batch over contexts whose chunks lie in scattered slots.
pub struct Batch {
    /// `(position, first entry of the chunk table)` of each row.
    pub places: Vec<(u32, u32)>,
    /// Entries that no context uses lead to the trap: a slot where all is NaN.
    pub tables: Vec<u32>,
    /// Slots of the pages, the trap and a few idle ones included.
    pub slots: usize,
}

impl Batch {
    /// One context a run, in order.
    pub fn new(rng: &mut Rng, runs: &[Run]) -> Self {
        let chunks: usize = runs.iter().map(|(first, rows)| (first + rows).div_ceil(16)).sum();
        let slots = chunks + 3;
        let order = shuffled(rng, slots);
        let (trap, free) = order.split_first().expect("there are slots");
        let mut free = free.iter();
        let mut tables = vec![*trap; 2];
        let mut places = Vec::new();
        for (first, rows) in runs {
            let table = tables.len() as u32;
            tables.extend(free.by_ref().take((first + rows).div_ceil(16)));
            tables.extend([*trap; 2]);
            places.extend((*first..first + rows).map(|position| (position as u32, table)));
        }
        Self { places, tables, slots }
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// Slot of the chunk that a row's position lies in.
    pub fn slot(&self, (position, table): (u32, u32)) -> usize {
        self.tables[table as usize + position as usize / 16] as usize & 0x0fff_ffff
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
    };
    [
        shape(64, [1, 1, 1], 0, (1, 1), 0, &[(0, 1)][..]),
        shape(64, [9, 3, 3], 0, (1, 2), 1, &[(13, 7)]),
        shape(64, [6, 3, 4], 0, (3, 1), 0, &[(40, 1), (5, 1), (16, 1)]),
        shape(128, [4, 2, 2], 0, (2, 3), 1, &[(15, 2), (0, 3), (63, 8)]),
        shape(128, [2, 1, 4], 0, (4, 2), 0, &[(79, 2)]),
        shape(256, [4, 4, 1], 20, (1, 3), 1, &[(30, 9)]),
        shape(256, [4, 4, 2], 16, (5, 1), 1, &[(64, 3), (15, 2), (3, 1)]),
        shape(64, [3, 1, 3], 33, (3, 3), 0, &[(100, 9), (31, 2)]),
        shape(64, [7, 7, 1], 1, (9, 1), 1, &[(47, 2)]),
        shape(4, [2, 2, 1], 0, (1, 3), 0, &[(0, 33)]),
        shape(64, [14, 7, 2], 0, (9, 2), 1, &[(150, 1), (271, 1)]),
    ]
    .into_iter()
    .map(|s| case(variant, rng, s))
    .collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let batch = Batch::new(rng, s.runs);
    let (rows, dim, chunks) = (batch.rows(), s.head_dim, batch.chunks());
    assert!(s.splits.0 * s.splits.1 >= chunks, "{s:?}: the parts leave chunks out");
    let per_group = s.per_group + 2;
    let q_stride = s.heads.div_ceil(s.per_group) * per_group * dim + 4;
    let mut q = Out::new((rows + 1) * q_stride);
    for row in 0..rows {
        for head in 0..s.heads {
            let place = head / s.per_group * per_group + head % s.per_group;
            q.put(row * q_stride + place * dim, &floats(rng, dim));
        }
    }

    // Keys and values: positions that are written, in groups that are kept, from the first chunk that any row sees.
    let (per_word, poison) = if variant.kv32 { (1, POISON) } else { (2, POISON_F16) };
    let mut pages = Out::filled(batch.slots * 2 * s.groups * 16 * dim / per_word, poison);
    let mut first_row = 0;
    for (first, count) in s.runs {
        let last = batch.places[first_row + count - 1];
        for position in 16 * batch.first_chunk(first_row, s.window)..first + count {
            let slot = batch.slot((position as u32, last.1));
            for value in 0..2 {
                for group in 0..s.heads.div_ceil(s.per_group) {
                    let at = (((slot * 2 + value) * s.groups + group) * 16 + position % 16) * dim / per_word;
                    for word in &mut pages.words[at..at + dim / per_word] {
                        let half = |v: f32| u32::from(f16::from_f32(v).to_bits());
                        *word = match variant.kv32 {
                            true => rng.float().to_bits(),
                            false => half(rng.float()) | half(rng.float()) << 16,
                        };
                    }
                }
            }
        }
        first_row += count;
    }

    let mut partial = Out::new((rows + 1) * s.heads * s.splits.0 * dim);
    let mut split_ml = Out::new((rows + 1) * s.heads * s.splits.0 * 2);
    let mut chunk_ml = Out::new((rows + 1) * s.heads * chunks * 2);
    for row in 0..rows {
        let (begin, end) = (batch.first_chunk(row, s.window), batch.places[row].0 as usize / 16 + 1);
        for head in 0..s.heads {
            for split in 0..s.splits.0 {
                let at = (row * s.heads + head) * s.splits.0 + split;
                split_ml.expect(2 * at..2 * at + 2);
                if (split * s.splits.1).max(begin) < ((split + 1) * s.splits.1).min(end) {
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
        out_stride: POISON,
        window: s.window as u32,
        // Scores of about ±3: some keys matter much more than others.
        scale: 3.0 / (dim as f32).sqrt(),
    };
    let step = Step {
        rows: rows as u32,
        splits: s.splits.0 as u32,
        chunks_per_split: s.splits.1 as u32,
        batch_chunks: chunks as u32,
        density: s.density,
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
    ];
    let work = [Work::RowsSplits(s.heads as u32), Work::Fixed(1)];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers)
}
