//! Decoding one quant block to f32, by GGUF's definitions.

use half::{bf16, f16};

use crate::WeightFormat;

fn f16_at(b: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([b[i], b[i + 1]]).to_f32()
}

/// Decode the stored block `b` (`block_bytes`) into `out` (`panel_cols` elements).
pub fn decode_block(format: WeightFormat, b: &[u8], out: &mut [f32]) {
    match format {
        WeightFormat::F32 => {
            for (o, c) in out.iter_mut().zip(b.chunks_exact(4)) {
                *o = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            }
        }
        WeightFormat::F16 => {
            for (o, c) in out.iter_mut().zip(b.chunks_exact(2)) {
                *o = f16::from_le_bytes([c[0], c[1]]).to_f32();
            }
        }
        WeightFormat::BF16 => {
            for (o, c) in out.iter_mut().zip(b.chunks_exact(2)) {
                *o = bf16::from_le_bytes([c[0], c[1]]).to_f32();
            }
        }
        WeightFormat::Q4_0 => nibbles(out, &b[2..18], None, f16_at(b, 0), -8.0 * f16_at(b, 0)),
        WeightFormat::Q4_1 => nibbles(out, &b[4..20], None, f16_at(b, 0), f16_at(b, 2)),
        WeightFormat::Q5_0 => nibbles(out, &b[6..22], Some(&b[2..6]), f16_at(b, 0), -16.0 * f16_at(b, 0)),
        WeightFormat::Q5_1 => nibbles(out, &b[8..24], Some(&b[4..8]), f16_at(b, 0), f16_at(b, 2)),
        WeightFormat::Q8_0 => {
            for (o, q) in out.iter_mut().zip(&b[2..34]) {
                *o = f16_at(b, 0) * f32::from(*q as i8);
            }
        }
        WeightFormat::Q4_K => {
            for sub in 0..8 {
                let (d, m) = scale_min(b, sub);
                for l in 0..32 {
                    let q = b[16 + sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15;
                    out[sub * 32 + l] = d * f32::from(q) - m;
                }
            }
        }
        WeightFormat::Q5_K => {
            for sub in 0..8 {
                let (d, m) = scale_min(b, sub);
                for l in 0..32 {
                    let q = b[48 + sub / 2 * 32 + l] >> (4 * (sub % 2)) & 15;
                    let high = b[16 + l] >> sub & 1;
                    out[sub * 32 + l] = d * f32::from(q | high << 4) - m;
                }
            }
        }
        WeightFormat::Q6_K => {
            let d = f16_at(b, 208);
            for (i, o) in out.iter_mut().enumerate() {
                let (part, quarter, l) = (i / 128, i / 32 % 4, i % 32);
                let low = b[part * 64 + quarter % 2 * 32 + l] >> (4 * (quarter / 2)) & 15;
                let high = b[128 + part * 32 + l] >> (2 * quarter) & 3;
                let scale = b[192 + i / 16] as i8;
                *o = d * f32::from(scale) * f32::from(i16::from(low | high << 4) - 32);
            }
        }
    }
}

/// `out = scale · q + offset` over 32 nibbles: low nibbles first, then high ones; `fifth` holds a fifth bit each.
fn nibbles(out: &mut [f32], q: &[u8], fifth: Option<&[u8]>, scale: f32, offset: f32) {
    for i in 0..32 {
        let low = q[i % 16] >> (4 * (i / 16)) & 15;
        let high = fifth.map_or(0, |h| h[i / 8] >> (i % 8) & 1);
        out[i] = scale * f32::from(low | high << 4) + offset;
    }
}

/// Scale and minimum of a sub-block of Q4_K and Q5_K, six bits each, packed into 12 bytes.
fn scale_min(b: &[u8], sub: usize) -> (f32, f32) {
    let s = &b[4..16];
    let (scale, min) = if sub < 4 {
        (s[sub] & 63, s[sub + 4] & 63)
    } else {
        (s[sub + 4] & 15 | s[sub - 4] >> 6 << 4, s[sub + 4] >> 4 | s[sub] >> 6 << 4)
    };
    (f16_at(b, 0) * f32::from(scale), f16_at(b, 2) * f32::from(min))
}
