//! Recovery adapters: prefixes of inputs, edges of the batch, ranks.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{AdapterParams, Step, Variant};

use super::floats;
use crate::parity::{Buffer, Case, Compare, Out, POISON};

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
            let words = 2 * (inputs + outputs) + outputs / 4;
            let codes = (0..words).map(|_| rng.bits() as u32).collect();
            let scales: Vec<f32> =
                floats(rng, 9).iter().enumerate().map(|(i, s)| s * if i < 8 { 1e-4 } else { 0.01 }).collect();
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
