//! Random weights in every format.

use concertina_formats::testing::Rng;
use concertina_shaders::{PanelLayout, WeightFormat};
use half::{bf16, f16};

/// A random block as a file stores it: every bit of the quants is random, scales are such that weights are about ±1.
pub fn random_block(format: WeightFormat, rng: &mut Rng) -> Vec<u8> {
    let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| rng.byte()).collect();
    let mut half = |at: usize, size: f32| {
        let value = f16::from_f32(size * (rng.float() + 0.2));
        block[at..at + 2].copy_from_slice(&value.to_le_bytes());
    };
    match format {
        WeightFormat::F32 => return (0..32).flat_map(|_| rng.float().to_le_bytes()).collect(),
        WeightFormat::F16 => return (0..32).flat_map(|_| f16::from_f32(rng.float()).to_le_bytes()).collect(),
        WeightFormat::BF16 => return (0..32).flat_map(|_| bf16::from_f32(rng.float()).to_le_bytes()).collect(),
        WeightFormat::Q4_0 => half(0, 0.15),
        WeightFormat::Q4_1 => {
            half(0, 0.15);
            half(2, 1.0);
        }
        WeightFormat::Q5_0 => half(0, 0.08),
        WeightFormat::Q5_1 => {
            half(0, 0.08);
            half(2, 1.0);
        }
        WeightFormat::Q8_0 => half(0, 0.01),
        WeightFormat::Q4_K => {
            half(0, 0.003);
            half(2, 0.02);
        }
        WeightFormat::Q5_K => {
            half(0, 0.0015);
            half(2, 0.02);
        }
        WeightFormat::Q6_K => half(208, 0.0007),
    }
    block
}

/// A matrix in `layout` with random blocks at the `(row, panel)` that `keep` takes, and NaN everywhere else.
pub fn packed(layout: &PanelLayout, rng: &mut Rng, keep: impl Fn(usize, usize) -> bool) -> Vec<u32> {
    // All ones are NaN in every format: as f32, as bf16, and as the f16 scale of a quant block.
    let mut bytes = vec![0xffu8; layout.bytes()];
    for row in 0..layout.rows {
        for panel in (0..layout.panels()).filter(|panel| keep(row, *panel)) {
            let block = random_block(layout.format, rng);
            let at = row / layout.row_block * layout.row_block_bytes() + panel * layout.region_bytes();
            layout.pack(&block, block.len(), row % layout.row_block, 1, 1, &mut bytes[at..]);
        }
    }
    bytemuck::pod_collect_to_vec(&bytes)
}
