//! Twins of the kernels that measure an adapter. `x` and `y`: (count) vectors of four words.

use half::f16;

use super::Words;
use crate::RoofParams;

/// y = x.
pub fn roof_copy(p: &RoofParams, x: Words<'_>, y: Words<'_>) {
    for i in 0..4 * p.count as usize {
        y.set_u(i, x.u(i));
    }
}

/// Two chains `a = a·x + x` that begin at x and 2x, eight steps a turn, added up. `half`: each step is rounded to f16.
pub fn roof_fma(half: bool, p: &RoofParams, x: Words<'_>, y: Words<'_>) {
    let round = |v: f32| if half { f16::from_f32(v).to_f32() } else { v };
    for i in 0..4 * p.count as usize {
        let m = round(x.f(i));
        let chain = |first: f32| (0..8 * p.turns).fold(round(m * first), |a, _| round(a.mul_add(m, m)));
        y.set_f(i, round(chain(1.0) + chain(2.0)));
    }
}

/// Two chains `a = a + (x ⊕ a) · k` of dot products of 8-bit integers that begin at 0 and 1, added up. k is words 0 and 2 of
/// the vector in turn for the first, 1 and 3 for the second.
pub fn roof_dot8(p: &RoofParams, x: Words<'_>, y: Words<'_>) {
    let dot = |a: u32, b: u32| -> i32 {
        a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(*a as i8) * i32::from(b as i8)).sum()
    };
    for i in 0..4 * p.count as usize {
        let v = x.u(i);
        let step = |a: i32, word: usize| a.wrapping_add(dot(v ^ a as u32, x.u(i / 4 * 4 + word)));
        let chain = |first: usize| (0..p.turns).fold(first as i32, |a, _| step(step(a, first), first + 2));
        y.set_u(i, chain(0).wrapping_add(chain(1)) as u32);
    }
}
