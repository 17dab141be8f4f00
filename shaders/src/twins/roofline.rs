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

/// Eight chains `a = a·x + x` that begin at x, 2x, … 8x, added up. `half`: each step is rounded to f16.
pub fn roof_fma(half: bool, p: &RoofParams, x: Words<'_>, y: Words<'_>) {
    let round = |v: f32| if half { f16::from_f32(v).to_f32() } else { v };
    for i in 0..4 * p.count as usize {
        let m = round(x.f(i));
        let chain = |first: f32| (0..p.turns).fold(round(m * first), |a, _| round(a.mul_add(m, m)));
        let [a, b, c, d, e, f, g, h] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(chain);
        let pair = |a: f32, b: f32| round(a + b);
        y.set_f(i, pair(pair(pair(a, b), pair(c, d)), pair(pair(e, f), pair(g, h))));
    }
}

/// Four chains `a = a + (x ⊕ a) · k` of dot products of 8-bit integers, k each word of the vector in turn, added up.
pub fn roof_dot8(p: &RoofParams, x: Words<'_>, y: Words<'_>) {
    let dot = |a: u32, b: u32| -> i32 {
        a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(*a as i8) * i32::from(b as i8)).sum()
    };
    for i in 0..4 * p.count as usize {
        let v = x.u(i);
        let chain = |c: usize| {
            let k = x.u(i / 4 * 4 + c);
            (0..p.turns).fold(c as i32, |a, _| a.wrapping_add(dot(v ^ a as u32, k)))
        };
        let sum = (0..4).map(chain).fold(0i32, i32::wrapping_add);
        y.set_u(i, sum as u32);
    }
}
