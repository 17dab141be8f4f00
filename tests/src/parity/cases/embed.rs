//! Rows of the embedding table, whole or in parts.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{EmbedParams, PanelLayout, Step, Variant};

use crate::parity::{Buffer, Case, Compare, Out, packed};

/// One product of the decoded weight and the scale.
const BOUND: Compare = Compare::f32(1e-6);

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    // (rows, panels, tokens of the table, part of it, one row block)
    let shapes = [
        (1, 1, 1, (0, 1), false),
        (3, 2, 70, (0, 70), false),
        (9, 3, 70, (0, 33), false),
        (33, 1, 97, (32, 65), false),
        (7, 2, 40, (5, 30), true),
    ];
    shapes.into_iter().map(|shape| case(variant, rng, shape)).collect()
}

fn case(
    variant: &'static Variant,
    rng: &mut Rng,
    (rows, panels, vocab, (first, count), one_block): (usize, usize, usize, (usize, usize), bool),
) -> Case {
    let format = variant.format.expect("kernels over weights have a format");
    let dim = panels * format.panel_cols();
    let make = if one_block { PanelLayout::by_cols } else { PanelLayout::by_rows };
    let layout = make(format, count, dim).expect("whole panels");
    let mut tokens: Vec<u32> = (0..rows).map(|_| rng.below(vocab) as u32).collect();
    // The ends of the part and the tokens beyond them, where the batch has room.
    let edges = [first, first + count - 1, first + count, first.wrapping_sub(1)];
    for (token, edge) in tokens.iter_mut().rev().zip(edges.into_iter().filter(|edge| *edge < vocab)) {
        *token = edge as u32;
    }
    let inside = |token: u32| (first..first + count).contains(&(token as usize));
    let mut y = Out::new((rows + 1) * dim);
    for (row, token) in tokens.iter().enumerate() {
        if inside(*token) {
            y.expect(row * dim..(row + 1) * dim);
        }
    }
    let weights = packed(&layout, rng, |row, _| tokens.contains(&((row + first) as u32)));
    // A row past the batch, with a token of the table.
    tokens.push(first as u32);
    let params = EmbedParams {
        pieces: (dim / 32) as u32,
        row_block: layout.row_block as u32,
        first: first as u32,
        count: count as u32,
        scale: 1.0 + rng.float().abs(),
        ..EmbedParams::default()
    };
    let step = Step { rows: rows as u32, ..Step::default() };
    let buffers = vec![Buffer::input(tokens), Buffer::input(weights), Buffer::alias(1), y.output(BOUND)];
    let name = format!("rows {rows}, dim {dim}, tokens {first}+{count} of {vocab}, row block {}", layout.row_block);
    Case::new(variant, name, step, params, [Work::Fixed((dim / 32) as u32), Work::Rows], buffers)
}
