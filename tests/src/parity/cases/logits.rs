//! Likelihood of a wanted token.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{SampleParams, Step, Variant};

use super::floats;
use crate::parity::{Case, Compare, Out, POISON};

/// `log Σ exp` of up to 49,152 terms; of logits of ±80, 24 bits keep 5e-6.
const BOUND: Compare = Compare::F32 { norm: 1e-5, each: 2e-5, usual: 0.0 };

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let shapes = [
        (1, 1, 1.0),
        (3, 100, 1.0),
        (2, 257, 60.0),
        (7, 1000, 5.0),
        (9, 333, 0.0),
        (2, 49_152, 46.0),
        (1, 49_153, 4.0),
    ];
    shapes
        .into_iter()
        .map(|(rows, vocab, size)| {
            let (mut outs, mut logits, mut nll) =
                (Out::new(4 * (rows + 1)), Out::new((rows + 1) * vocab), Out::new(rows + 1));
            for row in 0..rows {
                let wanted = rng.below(vocab);
                outs.words[4 * row + 2] = wanted as u32;
                let mut values: Vec<f32> = floats(rng, vocab).iter().map(|v| v * size).collect();
                if vocab > 1 {
                    // Not the greatest by far, so that the difference has digits.
                    values[wanted] -= 1.0;
                }
                logits.put(row * vocab, &values);
                nll.expect(row..row + 1);
            }
            let params = SampleParams { vocab: vocab as u32, recent: POISON, ..SampleParams::default() };
            let step = Step { rows: 40, out_rows: rows as u32, ..Step::default() };
            let name = format!("rows {rows}, vocab {vocab}, logits of {size}");
            let buffers = vec![outs.input(), logits.input(), nll.output(BOUND)];
            Case::new(variant, name, step, params, [Work::OutRows, Work::Fixed(1)], buffers)
        })
        .collect()
}
