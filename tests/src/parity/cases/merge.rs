//! The merge of split attention, and each chunk's share.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{AttnParams, Step, Variant};

use super::attention::{Batch, Run};
use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON};

/// A few exponentials, products and a division.
const MERGED: Compare = Compare::f32(1e-5);

/// Sums over rows and heads.
const SHARES: Compare = Compare::f32(1e-5);

pub fn attn_merge(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    // (rows, heads, head_dim, splits, spread of the maxima)
    let shapes = [
        (1, 1, 64, 1, 1.0),
        (2, 9, 64, 3, 1.0),
        (3, 4, 256, 7, 3.0),
        (7, 2, 128, 2, 60.0),
        (9, 14, 64, 16, 10.0),
        (33, 3, 4, 5, 1.0),
    ];
    shapes
        .into_iter()
        .map(|(rows, heads, dim, splits, spread)| {
            let out_stride = heads * dim + 4;
            let parts = rows * heads * splits;
            let (mut partial, mut split_ml) = (Out::new((parts + splits) * dim), Out::new((parts + splits) * 2));
            let (mut out, mut row_ml) = (Out::new((rows + 1) * out_stride), Out::new((rows + 1) * heads * 2));
            for at in 0..parts {
                // One part at least is not empty, any of them.
                let keep = at / splits % splits;
                if at % splits == keep || rng.below(3) > 0 {
                    let sum = 1.0 + 20.0 * rng.float().abs();
                    split_ml.put(2 * at, &[spread * rng.float(), sum]);
                    partial.put(at * dim, &floats(rng, dim).iter().map(|v| v * sum).collect::<Vec<_>>());
                } else {
                    split_ml.put(2 * at, &[-1e30, 0.0]);
                }
            }
            for row in 0..rows {
                out.expect(row * out_stride..row * out_stride + heads * dim);
                row_ml.expect(2 * row * heads..2 * (row + 1) * heads);
            }
            let params = AttnParams {
                heads: heads as u32,
                heads_per_group: 1,
                groups: heads as u32,
                head_dim: dim as u32,
                q_stride: POISON,
                out_stride: out_stride as u32,
                window: 0,
                scale: 1.0,
                ..Default::default()
            };
            let step = Step { rows: rows as u32, splits: splits as u32, ..Step::default() };
            let buffers = vec![partial.input(), split_ml.input(), out.output(MERGED), row_ml.output(MERGED)];
            let name = format!("rows {rows}, heads {heads} of {dim}, splits {splits}, maxima ±{spread}");
            Case::new(variant, name, step, params, [Work::Fixed((heads * dim / 4) as u32), Work::Rows], buffers)
        })
        .collect()
}

pub fn attn_share(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shapes: [(usize, usize, u32, &[Run]); 7] = [
        (1, 0, 1, &[(0, 1)]),
        (9, 0, 1, &[(13, 7)]),
        (3, 0, 1, &[(40, 1), (5, 2), (80, 9)]),
        (4, 20, 1, &[(30, 9)]),
        (2, 16, 1, &[(64, 33), (15, 2), (3, 1)]),
        (14, 0, 1, &[(1100, 3)]),
        (3, 0, 0, &[(20, 2)]),
    ];
    shapes.into_iter().map(|(heads, window, density, runs)| share(variant, rng, heads, window, density, runs)).collect()
}

fn share(
    variant: &'static Variant,
    rng: &mut Rng,
    heads: usize,
    window: usize,
    density: u32,
    runs: &'static [Run],
) -> Case {
    let batch = Batch::new(rng, runs, (1, 64), |_, _| 0);
    let (rows, chunks) = (batch.rows(), batch.chunks());
    let (mut row_ml, mut chunk_ml) = (Out::new((rows + 1) * heads * 2), Out::new((rows + 1) * heads * chunks * 2));
    let mut shares = Out::new(batch.tables.len());
    for row in 0..rows {
        let (position, table) = batch.places[row];
        for at in row * heads..(row + 1) * heads {
            let top = 5.0 * rng.float();
            row_ml.put(2 * at, &[top, 1.0 + 100.0 * rng.float().abs()]);
            for chunk in batch.first_chunk(row, window)..=position as usize / 16 {
                let own = [top - 2.0 * rng.float().abs(), 0.1 + 10.0 * rng.float().abs()];
                chunk_ml.put(2 * (at * chunks + chunk), &own);
                if density == 1 {
                    let entry = table as usize + chunk;
                    shares.put(entry, &[rng.float().abs()]);
                    shares.expect(entry..entry + 1);
                }
            }
        }
    }
    let params = AttnParams {
        heads: heads as u32,
        heads_per_group: 1,
        groups: heads as u32,
        head_dim: 64,
        q_stride: POISON,
        out_stride: POISON,
        window: window as u32,
        scale: 1.0,
        ..Default::default()
    };
    let step = Step { rows: rows as u32, batch_chunks: chunks as u32, density, ..Step::default() };
    let buffers = vec![Buffer::input(batch.row_words()), row_ml.input(), chunk_ml.input(), shares.output(SHARES)];
    let name = format!("heads {heads}, window {window}, density {density}, runs {runs:?}");
    Case::new(variant, name, step, params, [Work::DensityChunks, Work::Rows], buffers)
}
