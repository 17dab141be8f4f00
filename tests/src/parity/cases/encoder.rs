//! Kernels that only the encoder uses.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{DenseParams, GeluParams, LayerNormParams, Step, Variant};

use super::floats;
use crate::parity::{Case, Compare, Out, POISON};

/// Mean and variance in f32, an inverse square root of 2 ulp.
const NORM: Compare = Compare::f32(1e-5);

/// The polynomial is off by 0.75e-7 of x; then an exponential and a division.
const GELU: Compare = Compare::f32(1e-6);

/// Exponentials, of which WGSL asks for 3 + 2 |x| ulp, and sums of up to 514 keys in any order.
const DENSE: Compare = Compare::f32(2e-5);

/// `(step, work along y)` of so many rows, counted by `Step::rows` or by `Step::out_rows`.
fn batch(rows: usize, out_rows: bool) -> (Step, Work) {
    match out_rows {
        true => (Step { rows: rows as u32 + 3, out_rows: rows as u32, ..Step::default() }, Work::OutRows),
        false => (Step { rows: rows as u32, out_rows: 1, ..Step::default() }, Work::Rows),
    }
}

pub fn layer_norm(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    // (rows, dim, gap, counted by out_rows, size, mean)
    let shapes = [
        (1, 4, 0, false, 1.0, 0.0),
        (3, 384, 0, false, 1.0, 0.5),
        (9, 64, 4, true, 10.0, -3.0),
        (33, 20, 8, false, 1.0, 100.0),
        (2, 132, 0, true, 1e-4, 0.0),
        (7, 384, 12, false, 300.0, 30.0),
        (2, 36, 4, false, 0.0, 2.0),
    ];
    shapes
        .into_iter()
        .map(|(rows, dim, gap, out_rows, size, mean)| {
            let stride = dim + gap;
            let (mut weight, mut bias, mut x) = (Out::new(dim), Out::new(dim), Out::new((rows + 1) * stride));
            weight.put(0, &floats(rng, dim));
            bias.put(0, &floats(rng, dim));
            for row in 0..rows {
                let values: Vec<f32> = floats(rng, dim).iter().map(|v| v * size + mean).collect();
                x.put(row * stride, &values);
                x.expect(row * stride..row * stride + dim);
            }
            let params = LayerNormParams {
                dim: dim as u32,
                stride: stride as u32,
                out_rows: u32::from(out_rows),
                eps: if size < 1e-3 { 1e-6 } else { 1e-12 },
            };
            // What a mean a hundred times the deviation leaves of it has two digits less.
            let close = if mean > 50.0 { Compare::f32(1e-4) } else { NORM };
            let (step, work) = batch(rows, out_rows);
            let name = format!("rows {rows}, dim {dim} of {stride}, out_rows {out_rows}, size {size}, mean {mean}");
            let buffers = vec![weight.input(), bias.input(), x.output(close)];
            Case::new(variant, name, step, params, [Work::Fixed(1), work], buffers)
        })
        .collect()
}

pub fn gelu_erf(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    // (rows, n, stride, size, counted by out_rows)
    let shapes = [
        (1, 4, 4, 1.0, false),
        (3, 1536, 1536, 1.0, false),
        (9, 256, 260, 3.0, true),
        (33, 100, 132, 0.01, false),
        (2, 260, 260, 40.0, true),
    ];
    shapes
        .into_iter()
        .map(|(rows, n, stride, size, out_rows)| {
            let mut x = Out::new((rows + 1) * stride);
            for row in 0..rows {
                let values: Vec<f32> = floats(rng, n).iter().map(|v| v * size).collect();
                x.put(row * stride, &values);
                x.expect(row * stride..row * stride + n);
            }
            let params = GeluParams { n: n as u32, stride: stride as u32, out_rows: u32::from(out_rows), pad: POISON };
            let (step, work) = batch(rows, out_rows);
            let name = format!("rows {rows}, {n} of {stride} features, size {size}, out_rows {out_rows}");
            let work = [Work::Fixed(n as u32 / 4), work];
            Case::new(variant, name, step, params, work, vec![x.output(GELU)])
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Dense {
    rows: usize,
    heads: usize,
    head_dim: usize,
    /// Keys before those of the batch.
    before: usize,
    /// Queries, where they are not as many as the rows.
    queries: Option<usize>,
    /// Of queries and keys.
    size: f32,
    /// Features between the parts of a row.
    gap: usize,
}

pub fn attn_dense(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let plain = Dense { rows: 1, heads: 1, head_dim: 32, before: 0, queries: None, size: 1.0, gap: 0 };
    let shapes = [
        plain,
        Dense { rows: 130, heads: 12, ..plain },
        Dense { rows: 65, heads: 2, head_dim: 64, gap: 8, ..plain },
        Dense { rows: 7, heads: 3, head_dim: 16, before: 2, ..plain },
        Dense { rows: 31, heads: 12, before: 2, queries: Some(1), gap: 4, ..plain },
        Dense { rows: 34, heads: 5, head_dim: 4, size: 6.0, ..plain },
        Dense { rows: 9, heads: 2, head_dim: 40, before: 1, queries: Some(40), size: 3.0, ..plain },
        Dense { rows: 3, heads: 1, head_dim: 20, size: 20.0, gap: 4, ..plain },
        Dense { rows: 512, heads: 1, before: 2, ..plain },
    ];
    shapes.into_iter().map(|shape| dense(variant, rng, shape)).collect()
}

fn dense(variant: &'static Variant, rng: &mut Rng, s: Dense) -> Case {
    let (width, keys, queries) = (s.heads * s.head_dim, s.before + s.rows, s.queries.unwrap_or(s.rows));
    let q_stride = width + 2 * s.gap;
    // Something else, keys, a gap, values.
    let (k_offset, v_offset) = (s.gap, 2 * s.gap + width);
    let (kv_stride, out_stride) = (v_offset + width + s.gap, width + s.gap);
    let (mut q, mut kv) = (Out::new((queries + 1) * q_stride), Out::new((keys + 1) * kv_stride));
    let mut out = Out::new((queries + 1) * out_stride);
    let sized = |rng: &mut Rng| -> Vec<f32> { floats(rng, width).iter().map(|v| v * s.size).collect() };
    for row in 0..queries {
        q.put(row * q_stride + s.gap, &sized(rng));
        out.expect(row * out_stride..row * out_stride + width);
    }
    for key in 0..keys {
        kv.put(key * kv_stride + k_offset, &sized(rng));
        kv.put(key * kv_stride + v_offset, &floats(rng, width));
    }
    let params = DenseParams {
        heads: s.heads as u32,
        head_dim: s.head_dim as u32,
        q_offset: s.gap as u32,
        q_stride: q_stride as u32,
        k_offset: k_offset as u32,
        kv_stride: kv_stride as u32,
        v_offset: v_offset as u32,
        out_stride: out_stride as u32,
        before: s.before as u32,
        out_rows: u32::from(s.queries.is_some()),
        scale: (s.head_dim as f32).sqrt().recip(),
        pad: POISON,
    };
    let step = Step { rows: s.rows as u32, out_rows: s.queries.unwrap_or(7) as u32, ..Step::default() };
    let work = [Work::Fixed(s.heads as u32), if s.queries.is_some() { Work::OutRows } else { Work::Rows }];
    // Scores err by their size: a large one, by its exponential's share of it.
    let close = if s.size > 2.0 { Compare::f32(1e-4) } else { DENSE };
    Case::new(variant, format!("{s:?}"), step, params, work, vec![q.input(), kv.input(), out.output(close)])
}
