//! CPU dequantisation: the reference for GPU kernels, and what tests compare with.
//!
//! The meaning of each block is ggml's (`ggml/src/ggml-common.h` states the layouts). Scales are f16, little-endian.

use crate::{DType, Error, Result};
use half::{bf16, f16};

/// Elements of the small blocks (`Q4_0` and its like).
const SMALL: usize = 32;

/// Write the values of one row (or of any whole number of blocks) into `out`: `out.len()` elements.
///
/// # Errors
/// [`Error::Malformed`] when `out` is not a whole number of blocks of `dtype` or `bytes` is not exactly their size.
///
/// ```
/// # use concertina_formats::{DType, dequant::dequantize_row};
/// let mut out = [0.0; 2];
/// dequantize_row(DType::F16, &[0x00, 0x3c, 0x00, 0xc0], &mut out).unwrap();
/// assert_eq!(out, [1.0, -2.0]);
/// ```
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let (elements, block_bytes) = dtype.block();
    let blocks = out.len() / elements;
    if !out.len().is_multiple_of(elements) || Some(bytes.len()) != blocks.checked_mul(block_bytes) {
        return Err(Error::malformed(
            format!("row of {dtype:?}"),
            format!(
                "{} bytes for {} elements; blocks are {elements} elements in {block_bytes} bytes",
                bytes.len(),
                out.len()
            ),
        ));
    }
    let decode: fn(&[u8], &mut [f32]) = match dtype {
        DType::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        DType::F16 => |b, out| out[0] = half_at(b, 0),
        DType::BF16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        DType::Q4_0 => q4_0,
        DType::Q4_1 => q4_1,
        DType::Q5_0 => q5_0,
        DType::Q5_1 => q5_1,
        DType::Q8_0 => q8_0,
        DType::Q4_K => q4_k,
        DType::Q5_K => q5_k,
        DType::Q6_K => q6_k,
    };
    for (block, values) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(elements)) {
        decode(block, values);
    }
    Ok(())
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The 32 quants of a small block of 4 bits: low nibbles are the first half, high nibbles the second.
fn nibble(qs: &[u8], i: usize) -> u8 {
    if i < SMALL / 2 { qs[i] & 15 } else { qs[i - SMALL / 2] >> 4 }
}

/// Fifth bits of a small block, bit `i` for element `i`, moved to their place.
fn fifth(qh: &[u8], i: usize) -> u8 {
    (qh[i / 8] >> (i % 8) & 1) << 4
}

/// f16 scale, 16 bytes of nibbles: `d * (q - 8)`.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, x) in out.iter_mut().enumerate() {
        *x = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

/// f16 scale, f16 minimum, 16 bytes of nibbles: `d * q + m`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, x) in out.iter_mut().enumerate() {
        *x = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// f16 scale, 4 bytes of fifth bits, 16 bytes of nibbles: `d * (q - 16)`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, x) in out.iter_mut().enumerate() {
        let q = nibble(&block[6..], i) | fifth(&block[2..], i);
        *x = d * (f32::from(q) - 16.0);
    }
}

/// f16 scale, f16 minimum, 4 bytes of fifth bits, 16 bytes of nibbles: `d * q + m`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, x) in out.iter_mut().enumerate() {
        let q = nibble(&block[8..], i) | fifth(&block[4..], i);
        *x = d * f32::from(q) + m;
    }
}

/// f16 scale, 32 signed bytes: `d * q`.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (x, &q) in out.iter_mut().zip(&block[2..]) {
        *x = d * f32::from(q as i8);
    }
}

/// 6-bit scale and minimum of sub-block `j` (of 8) of `Q4_K` and `Q5_K`: 12 bytes hold the low six bits of the first four
/// of each, and the last four in nibbles with their top bits in what those left free.
fn scale_min(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        let low = scales[j + 4];
        (low & 15 | scales[j - 4] >> 6 << 4, low >> 4 | scales[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// f16 scale and f16 minimum of the 256, 12 bytes of scales, 128 bytes of nibbles: each 32 bytes hold two sub-blocks, the
/// first in low nibbles.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, qs) = (&block[4..16], &block[16..]);
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (d, m) = (d * scale, dmin * min);
        for (x, &q) in values.iter_mut().zip(&qs[j / 2 * 32..]) {
            *x = d * f32::from(q >> (j % 2 * 4) & 15) - m;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits before the nibbles: bit `j` of byte `l` belongs to element `l` of sub-block `j`.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (scales, qh, qs) = (&block[4..16], &block[16..48], &block[48..]);
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (d, m) = (d * scale, dmin * min);
        for (l, x) in values.iter_mut().enumerate() {
            let q = qs[j / 2 * 32 + l] >> (j % 2 * 4) & 15 | (qh[l] >> j & 1) << 4;
            *x = d * f32::from(q) - m;
        }
    }
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 scale of the 256: `d * scale * (q - 32)`.
/// Each half of 128 elements has 64 bytes of nibbles and 32 of bit pairs; of its four runs of 32, runs 0 and 1 are the low
/// nibbles of bytes 0..32 and 32..64, runs 2 and 3 the high ones, and run `r`'s high bits are pair `r` of each byte.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 208);
    for (i, x) in out.iter_mut().enumerate() {
        let (half, run, l) = (i / 128, i % 128 / 32, i % 32);
        let low = block[half * 64 + run % 2 * 32 + l] >> (run / 2 * 4) & 15;
        let high = block[128 + half * 32 + l] >> (run * 2) & 3;
        let scale = f32::from(block[192 + i / 16] as i8);
        *x = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pack_scales;

    /// Little-endian f16.
    fn h(x: f32) -> [u8; 2] {
        f16::from_f32(x).to_le_bytes()
    }

    fn row(dtype: DType, bytes: &[u8], elements: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; elements];
        dequantize_row(dtype, bytes, &mut out).unwrap();
        out
    }

    #[test]
    fn floats() {
        assert_eq!(row(DType::F32, &1.5f32.to_le_bytes(), 1), [1.5]);
        assert_eq!(row(DType::F16, &[0x01, 0x00], 1), [2f32.powi(-24)]); // the least subnormal
        assert_eq!(row(DType::BF16, &[0x80, 0xbf, 0xc0, 0x3f], 2), [-1.0, 1.5]);
    }

    #[test]
    fn q4_0_and_q4_1_by_hand() {
        let mut block = h(0.5).to_vec();
        block.extend((0..16).map(|i| i | (15 - i) << 4));
        let expected: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| 0.5 * (q as f32 - 8.0)).collect();
        assert_eq!(row(DType::Q4_0, &block, 32), expected);
        block.splice(2..2, h(-3.0));
        let expected: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| 0.5 * q as f32 - 3.0).collect();
        assert_eq!(row(DType::Q4_1, &block, 32), expected);
    }

    #[test]
    fn q5_by_hand() {
        // Element i has quant i: the low half has its fifth bit clear, the high half has it set.
        let quants: Vec<u8> = (0..16).map(|i| i | i << 4).collect();
        let high = 0xffff_0000u32.to_le_bytes();
        let block = [&h(2.0)[..], &high, &quants].concat();
        let expected: Vec<f32> = (0..32).map(|q| 2.0 * (q as f32 - 16.0)).collect();
        assert_eq!(row(DType::Q5_0, &block, 32), expected);
        let block = [&h(2.0)[..], &h(0.25), &high, &quants].concat();
        let expected: Vec<f32> = (0..32).map(|q| 2.0 * q as f32 + 0.25).collect();
        assert_eq!(row(DType::Q5_1, &block, 32), expected);
        // One fifth bit in the middle of a byte: element 13 only.
        let block = [&h(1.0)[..], &(1u32 << 13).to_le_bytes(), &[0; 16]].concat();
        let out = row(DType::Q5_0, &block, 32);
        assert!(out.iter().enumerate().all(|(i, &x)| x == if i == 13 { 0.0 } else { -16.0 }));
    }

    #[test]
    fn q8_0_by_hand() {
        let mut block = h(0.125).to_vec();
        block.extend((0..32).map(|i| (i * 8 - 128) as i8 as u8));
        let expected: Vec<f32> = (0..32).map(|i| i as f32 - 16.0).collect();
        assert_eq!(row(DType::Q8_0, &block, 32), expected);
    }

    const SCALES: [u8; 8] = [1, 63, 5, 40, 33, 62, 16, 47];
    const MINS: [u8; 8] = [0, 7, 63, 32, 21, 48, 15, 61];

    /// Quant of element `i`, different in every sub-block.
    fn quant(i: usize, max: usize) -> usize {
        (i * 7 + i / 32) % (max + 1)
    }

    fn k_expected(max: usize) -> Vec<f32> {
        let value = |i: usize| {
            let (scale, min) = (f32::from(SCALES[i / 32]), f32::from(MINS[i / 32]));
            0.25 * scale * quant(i, max) as f32 - 0.5 * min
        };
        (0..256).map(value).collect()
    }

    fn k_nibbles(max: usize) -> [u8; 128] {
        std::array::from_fn(|at| {
            let (pair, l) = (at / 32, at % 32);
            let low = quant(pair * 64 + l, max) & 15;
            let high = quant(pair * 64 + 32 + l, max) & 15;
            (low | high << 4) as u8
        })
    }

    #[test]
    fn q4_k_by_hand() {
        let block = [&h(0.25)[..], &h(0.5), &pack_scales(SCALES, MINS), &k_nibbles(15)].concat();
        assert_eq!(row(DType::Q4_K, &block, 256), k_expected(15));
    }

    #[test]
    fn q5_k_by_hand() {
        let mut high = [0u8; 32];
        for i in 0..256 {
            high[i % 32] |= ((quant(i, 31) >> 4) as u8) << (i / 32);
        }
        let block = [&h(0.25)[..], &h(0.5), &pack_scales(SCALES, MINS), &high, &k_nibbles(31)].concat();
        assert_eq!(row(DType::Q5_K, &block, 256), k_expected(31));
    }

    #[test]
    fn q6_k_by_hand() {
        let scale = |i: usize| (i as i32 / 16 * 17 - 120) as i8;
        let (mut low, mut high, mut scales) = ([0u8; 128], [0u8; 64], [0u8; 16]);
        for half in 0..2 {
            for l in 0..32 {
                let q: [u8; 4] = std::array::from_fn(|run| quant(half * 128 + run * 32 + l, 63) as u8);
                low[half * 64 + l] = q[0] & 15 | q[2] << 4;
                low[half * 64 + 32 + l] = q[1] & 15 | q[3] << 4;
                high[half * 32 + l] = q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6;
            }
        }
        for (j, s) in scales.iter_mut().enumerate() {
            *s = scale(j * 16) as u8;
        }
        let block = [&low[..], &high, &scales, &h(0.5)].concat();
        let expected: Vec<f32> = (0..256).map(|i| 0.5 * f32::from(scale(i)) * (quant(i, 63) as f32 - 32.0)).collect();
        assert_eq!(row(DType::Q6_K, &block, 256), expected);
    }

    /// Checksums of one block of pseudo-random bytes, from the `gguf` Python package 0.19's numpy dequantisers.
    #[test]
    fn agrees_with_ggml() {
        for (dtype, scales, rising, falling, first, last) in [
            (DType::Q4_0, &[0][..], 13.5, 535.8125, 0.75, 1.75),
            (DType::Q4_1, &[0, 2], 1340.5, 3946.0625, 2.5, 4.25),
            (DType::Q5_0, &[0], -23.75, 2792.3125, 3.5, -1.5),
            (DType::Q5_1, &[0, 2], 2540.0, 12841.8125, 2.5, 6.25),
            (DType::Q8_0, &[0], 3969.75, 217_303.187_5, -29.25, 18.5),
            (DType::Q4_K, &[0, 2], 1_308_578.5, 232_925_707.875, 38.0, 36.0),
            (DType::Q5_K, &[0, 2], 3_047_011.75, 994_459_656.062_5, 198.0, 156.25),
            (DType::Q6_K, &[208], -1_016_306.75, 3_393_594_074.625, 425.25, 196.0),
        ] {
            let (elements, bytes) = dtype.block();
            let mut state = 12345u32;
            let mut block: Vec<u8> = (0..bytes)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            for &at in scales {
                block[at..at + 2].copy_from_slice(&h(if at == 2 { 0.5 } else { 0.25 }));
            }
            let out = row(dtype, &block, elements);
            let sum = |weigh: &dyn Fn(usize, f64) -> f64| -> f64 {
                out.iter().enumerate().map(|(i, &x)| weigh(i, f64::from(x))).sum()
            };
            assert_eq!(sum(&|i, x| (i + 1) as f64 * x), rising, "{dtype:?}");
            assert_eq!(sum(&|i, x| (elements - i) as f64 * x * x), falling, "{dtype:?}");
            assert_eq!((out[0], out[elements - 1]), (first, last), "{dtype:?}");
        }
    }

    #[test]
    fn several_blocks_and_wrong_sizes() {
        let two = [&h(1.0)[..], &[1; 32], &h(2.0), &[1; 32]].concat();
        let out = row(DType::Q8_0, &two, 64);
        assert_eq!((out[31], out[32]), (1.0, 2.0));
        let mut out = [0.0; 64];
        assert!(dequantize_row(DType::Q8_0, &two[1..], &mut out).is_err());
        assert!(dequantize_row(DType::Q8_0, &two, &mut out[..63]).is_err());
        assert!(dequantize_row(DType::Q8_0, &two, &mut out[..32]).is_err());
        assert!(dequantize_row(DType::Q6_K, &[], &mut []).is_ok());
    }
}
