//! The kernels that measure an adapter: they too must compute what they claim.

use concertina::record::Work;
use concertina_formats::testing::Rng;
use concertina_shaders::{RoofParams, Step, Variant};

use crate::parity::{Buffer, Case, Compare, Out};

pub fn cases(variant: &'static Variant, rng: &mut Rng) -> Vec<Case> {
    let compare = match (variant.kernel, variant.f16) {
        ("roof_fma", false) => Compare::f32(1e-5),
        ("roof_fma", true) => Compare::f32(1e-2),
        _ => Compare::Bits,
    };
    [(1, 1), (63, 3), (64, 0), (129, 7)]
        .into_iter()
        .map(|(count, turns)| {
            let words = 4 * count;
            let x = match variant.kernel {
                // Chains that come to rest.
                "roof_fma" => Buffer::floats(&(0..words).map(|_| 0.4 * rng.float()).collect::<Vec<_>>()),
                _ => Buffer::input((0..words).map(|_| u32::from_le_bytes([(); 4].map(|()| rng.byte()))).collect()),
            };
            let mut y = Out::new(words);
            y.expect(0..words);
            let params = RoofParams { count: count as u32, turns, ..RoofParams::default() };
            let work = [Work::Fixed(count as u32), Work::Fixed(1)];
            let name = format!("{count} elements, {turns} turns");
            Case::new(variant, name, Step::default(), params, work, vec![x, y.output(compare)])
        })
        .collect()
}
