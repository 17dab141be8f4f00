//! y = act(norm(x) Wᵀ + bias) (+ y): prefixes of rows and of panels, offsets, runs, odd sizes.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{MatmulParams, PanelLayout, Step, Variant, WeightFormat, twins};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, packed, random_block};

/// f32 sums of up to 1,152 products in any order.
const BOUND: Compare = Compare::f32(1e-5);

/// f16 arithmetic keeps 11 bits: half a unit, 2.4e-4, at most for x, for W and for each of 8 sums of products.
const NORM_F16: f64 = 2e-3;

/// Activations in blocks of 32 rounded to 127ths of the greatest element, which here is up to 1.7 times their rms: off by
/// 1.7 / (127 √12), 0.4 %, in the mean. A row of W may have one sign throughout, and all rows the same x, so that the
/// errors of many outputs are one draw of luck: five sigma.
const NORM_I8: f64 = 2e-2;

/// The bound of a variant that rounds, for outputs with this rms as a rule.
fn rounding(norm: f64, usual: f64) -> Compare {
    Compare::F32 { norm, each: 10.0 * norm, usual }
}

/// Root of the mean square of random weights.
fn weight_rms(format: WeightFormat, rng: &mut Rng) -> f64 {
    let mut squares = 0.0;
    let mut values = vec![0f32; format.panel_cols()];
    for _ in 0..64 {
        twins::decode_block(format, &random_block(format, rng), &mut values);
        squares += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
    }
    (squares / 64.0).sqrt()
}

#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    rows: usize,
    /// Rows of the batch come from `out_rows`; then this is `Step::rows`.
    other_rows: Option<usize>,
    /// Output features kept, and stored.
    n: (usize, usize),
    /// Panels kept, and stored.
    panels: (usize, usize),
    by_cols: bool,
    x_offset: usize,
    y_offset: usize,
    bias: bool,
    accumulate: bool,
    /// This part of the matrix begins here.
    first: usize,
    /// Output features side by side, and the gap after them.
    run: (usize, usize),
    norm: bool,
    /// 1: SiLU, 2: GELU; then `n` is a multiple of 4.
    glu: u32,
}

impl Shape {
    /// Output features of `n` rows.
    fn outputs(&self, n: usize) -> usize {
        if self.glu > 0 { n / 2 } else { n }
    }

    /// What rounding errors grow by. Gains make the greatest elements of x greater against the others; gate and up err by
    /// the same x, and their product by the sum of both.
    fn spread(&self) -> f64 {
        (if self.norm { 1.6 } else { 1.0 }) * (if self.glu > 0 { 2.0 } else { 1.0 })
    }

    /// Where output feature `f`, of the whole matrix, lies.
    fn place(&self, f: usize) -> usize {
        let (run, gap) = self.run;
        self.y_offset + f + f.checked_div(run).map_or(0, |runs| runs * gap)
    }
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    // What is fixed when a pipeline is made comes in few combinations: software adapters take their time to compile.
    let plain = Shape::default();
    let biased = Shape { bias: true, ..plain };
    let added = Shape { accumulate: true, run: (3, 5), ..plain };
    let normed = Shape { norm: true, bias: true, run: (40, 8), ..plain };
    let silu = Shape { norm: true, glu: 1, ..plain };
    let gelu = Shape { glu: 2, bias: true, accumulate: true, ..plain };
    let size = |base: Shape, rows, n, panels| Shape { rows, n, panels, ..base };
    let long = if variant.format.is_some_and(|f| f.panel_cols() == 256) { 5 } else { 36 };
    let mut shapes = vec![
        size(plain, 1, (37, 37), (2, 2)),
        size(biased, 2, (33, 70), (3, 3)),
        Shape { by_cols: true, y_offset: 2, ..size(added, 3, (1, 1), (1, 3)) },
        Shape { x_offset: 32, y_offset: 5, first: 12, ..size(added, 7, (65, 100), (2, 3)) },
        Shape { by_cols: true, ..size(plain, 8, (97, 97), (2, 3)) },
        Shape { other_rows: Some(4), ..size(biased, 9, (64, 64), (1, 1)) },
        Shape { by_cols: true, y_offset: 3, ..size(added, 33, (40, 40), (3, 3)) },
        Shape { other_rows: Some(33), x_offset: 4, ..size(plain, 2, (130, 131), (1, 1)) },
        size(plain, 1, (9, 64), (long, long)),
        Shape { by_cols: true, ..size(biased, 3, (19, 19), (long - 1, long)) },
        size(normed, 1, (38, 64), (3, 3)),
        Shape { first: 64, ..size(normed, 9, (66, 70), (2, 2)) },
        size(normed, 70, (66, 70), (2, 2)),
        size(silu, 1, (140, 160), (2, 2)),
        Shape { x_offset: 8, ..size(gelu, 11, (36, 40), (2, 3)) },
        Shape { first: 32, other_rows: Some(1), ..size(silu, 3, (64, 64), (1, 1)) },
    ];
    if variant.inexact {
        // More columns than fit workgroup memory at once: what is left over is nearly half of them, so that sums without it
        // are off by more than what rounding may do.
        let panels = 2 * 8192 / variant.format.map_or(32, WeightFormat::panel_cols) - 1;
        shapes.push(size(normed, 1, (5, 32), (panels, panels)));
    }
    for _ in 0..4 {
        let base = [plain, biased, added, normed, silu, gelu][rng.below(6)];
        let (n, panels) = (1 + rng.below(140), 1 + rng.below(4));
        let n = if base.glu > 0 { 4 * n.div_ceil(4) } else { n };
        shapes.push(Shape {
            rows: 1 + rng.below(20),
            other_rows: (rng.below(2) == 0).then(|| rng.below(24)),
            n: (n, n + rng.below(70)),
            panels: (panels, panels + rng.below(3)),
            by_cols: rng.below(2) == 0,
            x_offset: 4 * rng.below(12),
            y_offset: rng.below(9),
            first: 4 * rng.below(9),
            ..base
        });
    }
    shapes.into_iter().map(|shape| case(variant, rng, shape)).collect()
}

fn case(variant: &'static Variant, rng: &mut Rng, s: Shape) -> Case {
    let format = variant.format.expect("kernels over weights have a format");
    let make = if s.by_cols { PanelLayout::by_cols } else { PanelLayout::by_rows };
    let layout = make(format, s.n.1, s.panels.1 * format.panel_cols()).expect("whole panels");
    let k = s.panels.0 * format.panel_cols();
    let x_stride = s.x_offset + layout.cols + 4;
    let (first, outputs) = (s.outputs(s.first), s.outputs(s.n.0));
    let y_stride = s.place(first + s.outputs(s.n.1)) + 3;
    let params = MatmulParams {
        n: s.n.0 as u32,
        panels: s.panels.0 as u32,
        panels_stored: s.panels.1 as u32,
        row_block: layout.row_block as u32,
        x_offset: s.x_offset as u32,
        x_stride: x_stride as u32,
        first: s.first as u32,
        y_offset: s.y_offset as u32,
        y_stride: y_stride as u32,
        y_run: s.run.0 as u32,
        y_step: (s.run.0 + s.run.1) as u32,
        bias: u32::from(s.bias),
        accumulate: u32::from(s.accumulate),
        out_rows: u32::from(s.other_rows.is_some()),
        norm: u32::from(s.norm),
        glu: s.glu,
        eps: 1e-3,
        gain_offset: 0.5,
        ..MatmulParams::default()
    };
    let (rows, out_rows) = s.other_rows.map_or((s.rows, 0), |other| (other, s.rows));
    let step = Step { rows: rows as u32, out_rows: out_rows as u32, ..Step::default() };
    let mut x = Out::new((s.rows + 2) * x_stride);
    let mut y = Out::new((s.rows + 2) * y_stride);
    for row in 0..s.rows {
        x.put(row * x_stride + s.x_offset, &floats(rng, k));
        for f in first..first + outputs {
            let at = row * y_stride + s.place(f);
            y.expect(at..at + 1);
            if s.accumulate {
                y.put(at, &floats(rng, 1));
            }
        }
    }
    let mut bias = Out::new(s.first + s.n.1);
    if s.bias {
        bias.put(s.first, &floats(rng, s.n.0));
    }
    let mut gain = Out::new(k);
    if s.norm {
        gain.put(0, &floats(rng, k));
    }
    let weights = packed(&layout, rng, |row, panel| row < s.n.0 && panel < s.panels.0);
    // x has an rms of about 1, and so has x after the norm and its gain; a gate halves what it lets through.
    let one = weight_rms(format, rng) * (k as f64).sqrt();
    let usual = if s.glu > 0 { one * one / 2.0 } else { one };
    let bound = match variant {
        v if v.inexact => rounding(NORM_I8 * s.spread(), usual),
        v if v.f16 => rounding(NORM_F16 * s.spread(), usual),
        _ => BOUND,
    };
    let buffers =
        vec![x.input(), Buffer::input(weights), Buffer::alias(1), bias.input(), gain.input(), y.output(bound)];
    let work = [Work::Fixed(s.n.0 as u32), if s.other_rows.is_some() { Work::OutRows } else { Work::Rows }];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers)
}
