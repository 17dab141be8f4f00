//! Kernels that work row by row.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{GatherParams, GluParams, NormParams, Step, Variant};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON};

pub fn gather_rows(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shapes = [(1, 1, 1), (9, 3, 100), (33, 7, 64), (4, 9, 65), (8, 2, 576)];
    shapes
        .into_iter()
        .map(|(rows, out_rows, dim)| {
            let (mut x, mut y, mut outs) =
                (Out::new((rows + 1) * dim), Out::new((out_rows + 1) * dim), Out::new(4 * (out_rows + 1)));
            for out in 0..=out_rows {
                let row = rng.below(rows);
                outs.words[4 * out] = row as u32;
                if out < out_rows {
                    x.put(row * dim, &floats(rng, dim));
                    y.expect(out * dim..(out + 1) * dim);
                }
            }
            let params = GatherParams { dim: dim as u32, ..GatherParams::default() };
            let step = Step { rows: rows as u32, out_rows: out_rows as u32, ..Step::default() };
            let buffers = vec![outs.input(), x.input(), y.output(Compare::Bits)];
            let name = format!("{out_rows} of {rows} rows, dim {dim}");
            Case::new(variant, name, step, params, [Work::Fixed(dim as u32), Work::OutRows], buffers)
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Norm {
    rows: usize,
    dim: usize,
    heads: usize,
    offset: f32,
    accumulate: bool,
    out_rows: bool,
    in_place: bool,
    size: f32,
    /// Vectors of y side by side, and features of y between two runs that are none of theirs.
    run: (usize, usize),
}

/// A mean of squares in f32, an inverse square root of 2 ulp.
const NORM: Compare = Compare::f32(1e-5);

pub fn rms_norm(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let plain = Norm {
        rows: 1,
        dim: 64,
        heads: 1,
        offset: 0.0,
        accumulate: false,
        out_rows: false,
        in_place: false,
        size: 1.0,
        run: (0, 0),
    };
    let shapes = [
        plain,
        Norm { rows: 5, dim: 32, heads: 6, in_place: true, run: (2, 64), ..plain },
        Norm { rows: 2, dim: 32, heads: 3, run: (1, 7), ..plain },
        Norm { rows: 2, dim: 576, offset: 1.0, ..plain },
        Norm { rows: 3, dim: 65, accumulate: true, ..plain },
        Norm { rows: 7, dim: 48, out_rows: true, ..plain },
        Norm { rows: 8, dim: 64, heads: 3, in_place: true, ..plain },
        Norm { rows: 9, dim: 256, heads: 2, in_place: true, offset: 1.0, ..plain },
        Norm { rows: 33, dim: 20, heads: 5, ..plain },
        Norm { rows: 1, dim: 1, ..plain },
        Norm { rows: 3, dim: 640, size: 3e4, accumulate: true, out_rows: true, offset: 1.0, ..plain },
        Norm { rows: 3, dim: 100, size: 1e-4, ..plain },
        Norm { rows: 2, dim: 63, heads: 2, size: 0.0, in_place: true, ..plain },
    ];
    shapes.into_iter().map(|shape| norm(variant, rng, shape)).collect()
}

fn norm(variant: &'static Variant, rng: &mut Rng, s: Norm) -> Case {
    let kept = s.dim * s.heads;
    let runs = s.heads.div_ceil(s.run.0.max(1));
    let y_offset = if s.run.0 > 0 { 9 } else { 0 };
    let (x_stride, y_stride) = (kept + 5, y_offset + kept + runs * s.run.1 + if s.in_place { 5 } else { 3 });
    let place = |head: usize| match s.run {
        (0, _) => head * s.dim,
        (run, gap) => y_offset + head / run * (run * s.dim + gap) + head % run * s.dim,
    };
    let (mut x, mut y, mut weight) =
        (Out::new((s.rows + 1) * x_stride), Out::new((s.rows + 1) * y_stride), Out::new(s.dim));
    weight.put(0, &floats(rng, s.dim));
    for row in 0..s.rows {
        let values: Vec<f32> = floats(rng, kept).iter().map(|v| v * s.size).collect();
        if !s.in_place {
            x.put(row * x_stride, &values);
        }
        for (head, values) in values.chunks(s.dim).enumerate() {
            let at = row * y_stride + place(head);
            if s.in_place {
                y.put(at, values);
            }
            if s.accumulate {
                y.put(at, &floats(rng, s.dim));
            }
            y.expect(at..at + s.dim);
        }
    }
    let params = NormParams {
        dim: s.dim as u32,
        heads: s.heads as u32,
        x_stride: x_stride as u32,
        y_stride: y_stride as u32,
        accumulate: u32::from(s.accumulate),
        out_rows: u32::from(s.out_rows),
        eps: 1e-6,
        offset: s.offset,
        in_place: u32::from(s.in_place),
        y_offset: y_offset as u32,
        run: if s.run.0 > 0 { s.run.0 } else { s.heads } as u32,
        run_step: (s.run.0 * s.dim + s.run.1) as u32,
    };
    let (rows, out_rows) = if s.out_rows { (s.rows + 4, s.rows) } else { (s.rows, 1) };
    let step = Step { rows: rows as u32, out_rows: out_rows as u32, ..Step::default() };
    let work = [Work::Fixed(s.heads as u32), if s.out_rows { Work::OutRows } else { Work::Rows }];
    let x = if s.in_place { Buffer::none() } else { x.input() };
    Case::new(variant, format!("{s:?}"), step, params, work, vec![x, weight.input(), y.output(NORM)])
}

/// An exponential and a division, or a hyperbolic tangent, of which WGSL asks no more than an absolute error of 1e-5.
const GLU: Compare = Compare::f32(2e-5);

pub fn glu(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, n, stride, size) in [
        (1, 1, 1, 1.0),
        (2, 64, 64, 3.0),
        (3, 65, 100, 10.0),
        (9, 33, 40, 1.0),
        (33, 130, 131, 60.0),
        (7, 7, 576, 0.01),
    ] {
        for gelu in [0, 1] {
            let (mut up, mut gate) = (Out::new((rows + 1) * stride), Out::new((rows + 1) * stride));
            for row in 0..rows {
                up.put(row * stride, &floats(rng, n));
                let values: Vec<f32> = floats(rng, n).iter().map(|v| v * size).collect();
                gate.put(row * stride, &values);
                gate.expect(row * stride..row * stride + n);
            }
            let params = GluParams { n: n as u32, stride: stride as u32, gelu, pad: POISON };
            let step = Step { rows: rows as u32, out_rows: 1, ..Step::default() };
            let name = format!("rows {rows}, {n} of {stride} neurons, gates of {size}, gelu {gelu}");
            let work = [Work::Fixed(n as u32), Work::Rows];
            cases.push(Case::new(variant, name, step, params, work, vec![up.input(), gate.output(GLU)]));
        }
    }
    cases
}
