//! Recovery adapters, alone and inside a product: prefixes of inputs, edges of the batch, ranks.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{AdapterParams, MatmulParams, PanelLayout, Step, Variant};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON, packed};

/// Sums of signed bytes times f32, in another order than the twin's.
const ADAPTER: Compare = Compare::f32(2e-5);

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shapes = [
        (1, 4, 4, 0),
        (1, 192, 576, 1),
        (2, 1536, 576, 1),
        (2, 36, 20, 0),
        (3, 64, 132, 0),
        (4, 68, 128, 0),
        (7, 576, 64, 0),
        (9, 352, 576, 0),
    ];
    shapes
        .into_iter()
        .map(|(rows, inputs, outputs, few)| {
            let (x_stride, y_stride) = (inputs + 4, outputs + 8);
            let (mut x, mut y) = (Out::new((rows + 1) * x_stride), Out::new((rows + 1) * y_stride));
            for row in 0..rows {
                x.put(row * x_stride, &floats(rng, inputs));
                y.put(row * y_stride, &floats(rng, outputs));
                y.expect(row * y_stride..row * y_stride + outputs);
            }
            let codes = codes(rng, inputs, outputs);
            let scales = scales(rng, 1e-4);
            let params = AdapterParams {
                inputs: inputs as u32,
                outputs: outputs as u32,
                x_stride: x_stride as u32,
                y_stride: y_stride as u32,
                few,
                pad0: POISON,
                pad1: POISON,
                pad2: POISON,
            };
            let step = Step { rows: rows as u32, out_rows: 1, ..Step::default() };
            let name = format!("{rows} rows, {inputs} to {outputs}, few {few}");
            let buffers = vec![x.input(), Buffer::input(codes), Buffer::floats(&scales), y.output(ADAPTER)];
            Case::new(variant, name, step, params, [Work::Fixed(1), Work::Rows], buffers)
        })
        .collect()
}

/// A, B and c of random codes.
fn codes(rng: &mut Rng, inputs: usize, outputs: usize) -> Vec<u32> {
    (0..2 * (inputs + outputs) + outputs.div_ceil(4)).map(|_| rng.bits() as u32).collect()
}

/// Scales of the eight ranks, about this size, and of c.
fn scales(rng: &mut Rng, size: f32) -> Vec<f32> {
    floats(rng, 9).iter().enumerate().map(|(i, s)| s * if i < 8 { size } else { 0.01 }).collect()
}

/// One product with its adapter.
#[derive(Debug)]
struct Inside {
    rows: usize,
    outputs: usize,
    /// Panels kept, and stored.
    panels: (usize, usize),
    accumulate: bool,
    bias: bool,
}

pub fn inside(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let format = variant.format.expect("kernels over weights have a format");
    let long = if format.panel_cols() == 256 { 3 } else { 19 };
    let shapes = [
        (1, 4, (1, 1), false, false),
        (1, 576, (long - 1, long), true, false),
        (2, 100, (2, 3), true, false),
        (2, 132, (3, 3), false, true),
        (7, 36, (1, 4), true, false),
    ];
    let inside = |(rows, outputs, panels, accumulate, bias)| Inside { rows, outputs, panels, accumulate, bias };
    shapes.into_iter().map(|shape| case_inside(variant, rng, &inside(shape))).collect()
}

fn case_inside(variant: &'static Variant, rng: &mut Rng, s: &Inside) -> Case {
    let format = variant.format.expect("kernels over weights have a format");
    let layout = PanelLayout::by_cols(format, s.outputs, s.panels.1 * format.panel_cols()).expect("whole panels");
    let inputs = s.panels.0 * format.panel_cols();
    let (x_stride, y_stride) = (layout.cols, s.outputs + 8);
    let params = MatmulParams {
        n: s.outputs as u32,
        panels: s.panels.0 as u32,
        panels_stored: s.panels.1 as u32,
        row_block: layout.row_block as u32,
        x_stride: x_stride as u32,
        y_stride: y_stride as u32,
        bias: u32::from(s.bias),
        accumulate: u32::from(s.accumulate),
        ..MatmulParams::default()
    };
    let (mut x, mut y) = (Out::new((s.rows + 1) * x_stride), Out::new((s.rows + 1) * y_stride));
    for row in 0..s.rows {
        x.put(row * x_stride, &floats(rng, inputs));
        y.expect(row * y_stride..row * y_stride + s.outputs);
        if s.accumulate {
            y.put(row * y_stride, &floats(rng, s.outputs));
        }
    }
    let mut bias = Out::new(s.outputs);
    if s.bias {
        bias.put(0, &floats(rng, s.outputs));
    }
    let weights = packed(&layout, rng, |row, panel| row < s.outputs && panel < s.panels.0);
    // Both terms weigh about the same.
    let codes = codes(rng, inputs, s.outputs);
    let scales = scales(rng, 1e-4);
    let step = Step { rows: s.rows as u32, out_rows: 1, ..Step::default() };
    let buffers = vec![
        x.input(),
        Buffer::input(weights),
        Buffer::alias(1),
        bias.input(),
        Buffer::input(vec![POISON; 4]),
        y.output(ADAPTER),
        Buffer::input(codes),
        Buffer::floats(&scales),
    ];
    Case::new(variant, format!("{s:?}"), step, params, [Work::Fixed(s.outputs as u32), Work::Rows], buffers)
}
