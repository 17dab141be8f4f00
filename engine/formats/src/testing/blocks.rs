//! Bytes of stored tensors.

use super::Rng;
use crate::DType;
use half::{bf16, f16};

/// `values` as F32, F16 or BF16.
pub fn encode_floats(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * dtype.block().1);
    for &x in values {
        match dtype {
            DType::F32 => out.extend(x.to_le_bytes()),
            DType::F16 => out.extend(f16::from_f32(x).to_le_bytes()),
            DType::BF16 => out.extend(bf16::from_f32(x).to_le_bytes()),
            _ => panic!("{dtype:?} is not a type of floats"),
        }
    }
    out
}

/// `elements` random weights of any type, mean about 0, standard deviation about `std`. Quantised types get random
/// quants under matching scales: every bit of the layout is exercised, and no quantiser is needed.
pub fn random_blocks(dtype: DType, elements: usize, std: f32, rng: &mut Rng) -> Vec<u8> {
    let (block, _) = dtype.block();
    assert_eq!(elements % block, 0, "whole blocks of {dtype:?}");
    let mut out = Vec::new();
    for _ in 0..elements / block {
        // Scales differ from block to block.
        let std = std * (1.0 + 0.2 * rng.float());
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => {
                out.extend(encode_floats(dtype, &[std * rng.float()]));
            }
            DType::Q4_0 => small(&mut out, std / 4.6, None, 16, rng),
            DType::Q4_1 => small(&mut out, std / 4.6, Some(-7.5), 16, rng),
            DType::Q5_0 => small(&mut out, std / 9.2, None, 20, rng),
            DType::Q5_1 => small(&mut out, std / 9.2, Some(-15.5), 20, rng),
            DType::Q8_0 => small(&mut out, std / 73.9, None, 32, rng),
            DType::Q4_K => super_block(&mut out, std / (4.6 * 40.0), 7.5, 128, rng),
            DType::Q5_K => super_block(&mut out, std / (9.2 * 40.0), 15.5, 160, rng),
            DType::Q6_K => {
                random_bytes(&mut out, 192, rng);
                for _ in 0..16 {
                    let scale = 48 + rng.below(80) as i8;
                    out.push(if rng.below(2) == 0 { scale } else { -scale } as u8);
                }
                half(&mut out, std / (18.5 * 88.0));
            }
        }
    }
    out
}

fn half(out: &mut Vec<u8>, x: f32) {
    out.extend(f16::from_f32(x).to_le_bytes());
}

fn random_bytes(out: &mut Vec<u8>, n: usize, rng: &mut Rng) {
    out.extend((0..n).map(|_| rng.byte()));
}

/// A block of 32: scale, minimum of `min` scales if the type has one, `n` bytes of quants.
fn small(out: &mut Vec<u8>, d: f32, min: Option<f32>, n: usize, rng: &mut Rng) {
    half(out, d);
    if let Some(min) = min {
        half(out, min * d);
    }
    random_bytes(out, n, rng);
}

/// A block of 256 with 6-bit scales and minima, each minimum as large as its scale; `n` bytes of quants.
fn super_block(out: &mut Vec<u8>, d: f32, min: f32, n: usize, rng: &mut Rng) {
    half(out, d);
    half(out, min * d);
    let scales: [u8; 8] = std::array::from_fn(|_| 20 + rng.below(44) as u8);
    out.extend(pack_scales(scales, scales));
    random_bytes(out, n, rng);
}

/// Eight 6-bit scales and minima in the 12 bytes of `Q4_K` and `Q5_K`.
pub(crate) fn pack_scales(scales: [u8; 8], mins: [u8; 8]) -> [u8; 12] {
    let mut packed = [0u8; 12];
    for j in 0..4 {
        packed[j] = scales[j] | (scales[j + 4] >> 4) << 6;
        packed[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6;
        packed[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] & 15) << 4;
    }
    packed
}
