//! y = x Wᵀ (+ bias) (+ y): prefixes of rows and of panels, offsets, odd sizes.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{MatmulParams, PanelLayout, Step, Variant};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, packed};

/// f32 sums of up to 1,152 products in any order.
const BOUND: Compare = Compare::f32(1e-5);

/// f16 arithmetic keeps 11 bits.
const BOUND_F16: Compare = Compare::f32(2e-3);

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
}

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shape = |rows, n, panels| Shape { rows, n, panels, ..Shape::default() };
    let long = if variant.format.is_some_and(|f| f.panel_cols() == 256) { 5 } else { 36 };
    let mut shapes = vec![
        shape(1, (37, 37), (2, 2)),
        Shape { bias: true, ..shape(2, (33, 70), (3, 3)) },
        Shape { by_cols: true, accumulate: true, ..shape(3, (1, 1), (1, 3)) },
        Shape { bias: true, accumulate: true, x_offset: 32, y_offset: 5, ..shape(7, (65, 100), (2, 3)) },
        Shape { by_cols: true, ..shape(8, (97, 97), (2, 3)) },
        Shape { bias: true, other_rows: Some(4), ..shape(9, (64, 64), (1, 1)) },
        Shape { by_cols: true, accumulate: true, y_offset: 3, ..shape(33, (40, 40), (3, 3)) },
        Shape { other_rows: Some(33), x_offset: 4, ..shape(2, (130, 131), (1, 1)) },
        shape(1, (9, 64), (long, long)),
        Shape { by_cols: true, bias: true, ..shape(3, (19, 19), (long - 1, long)) },
    ];
    for _ in 0..3 {
        let (n, panels) = (1 + rng.below(140), 1 + rng.below(4));
        shapes.push(Shape {
            rows: 1 + rng.below(20),
            other_rows: (rng.below(2) == 0).then(|| rng.below(24)),
            n: (n, n + rng.below(70)),
            panels: (panels, panels + rng.below(3)),
            by_cols: rng.below(2) == 0,
            x_offset: 4 * rng.below(12),
            y_offset: rng.below(9),
            bias: rng.below(2) == 0,
            accumulate: rng.below(2) == 0,
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
    let y_stride = s.y_offset + s.n.1 + 3;
    let params = MatmulParams {
        n: s.n.0 as u32,
        panels: s.panels.0 as u32,
        panels_stored: s.panels.1 as u32,
        row_block: layout.row_block as u32,
        x_offset: s.x_offset as u32,
        x_stride: x_stride as u32,
        y_offset: s.y_offset as u32,
        y_stride: y_stride as u32,
        bias: u32::from(s.bias),
        accumulate: u32::from(s.accumulate),
        out_rows: u32::from(s.other_rows.is_some()),
        pad: 0,
    };
    let (rows, out_rows) = s.other_rows.map_or((s.rows, 0), |other| (other, s.rows));
    let step = Step { rows: rows as u32, out_rows: out_rows as u32, ..Step::default() };
    let mut x = Out::new((s.rows + 2) * x_stride);
    let mut y = Out::new((s.rows + 2) * y_stride);
    for row in 0..s.rows {
        x.put(row * x_stride + s.x_offset, &floats(rng, k));
        let at = row * y_stride + s.y_offset;
        y.expect(at..at + s.n.0);
        if s.accumulate {
            y.put(at, &floats(rng, s.n.0));
        }
    }
    let mut bias = Out::new(y_stride);
    if s.bias {
        bias.put(s.y_offset, &floats(rng, s.n.0));
    }
    let weights = packed(&layout, rng, |row, panel| row < s.n.0 && panel < s.panels.0);
    let buffers = vec![
        x.input(),
        Buffer::input(weights),
        Buffer::alias(1),
        bias.input(),
        y.output(if variant.f16 { BOUND_F16 } else { BOUND }),
    ];
    let work = [Work::Fixed(s.n.0 as u32), if s.other_rows.is_some() { Work::OutRows } else { Work::Rows }];
    Case::new(variant, format!("{s:?}"), step, params, work, buffers)
}
