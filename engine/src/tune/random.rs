//! Weights and activations that look like real ones: any bit of the quants, scales that keep sums small.

use concertina_shaders::{PanelLayout, WeightFormat};

/// A small generator (splitmix64): the same numbers every time.
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `n` numbers between -1 and 1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// A block as a file stores it.
    fn block(&mut self, format: WeightFormat) -> Vec<u8> {
        let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| self.bits() as u8).collect();
        // Floats: the sign and the low bits are random, the exponent is that of 0.5 or 1. A scale: that of 2^-power.
        let mut exponent = |every: usize, keep: u8, set: u8| {
            for at in (every - 1..block.len()).step_by(every) {
                block[at] = block[at] & keep | set;
            }
        };
        match format {
            WeightFormat::F32 => exponent(4, 0x80, 0x3f),
            WeightFormat::BF16 => exponent(2, 0x80, 0x3f),
            WeightFormat::F16 => exponent(2, 0x87, 0x38),
            _ => {}
        }
        let scales: &[(usize, u8)] = match format {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::BF16 => &[],
            WeightFormat::Q4_0 | WeightFormat::Q5_0 => &[(0, 4)],
            WeightFormat::Q4_1 | WeightFormat::Q5_1 => &[(0, 4), (2, 1)],
            WeightFormat::Q8_0 => &[(0, 7)],
            WeightFormat::Q4_K | WeightFormat::Q5_K => &[(0, 9), (2, 7)],
            WeightFormat::Q6_K => &[(208, 11)],
        };
        for (at, power) in scales {
            block[at + 1] = block[at + 1] & 0x03 | (15 - power) << 2;
        }
        block
    }

    /// A packed matrix, every block of it its own.
    pub fn matrix(&mut self, layout: &PanelLayout) -> Vec<u8> {
        let mut bytes = vec![0u8; layout.bytes()];
        for row in 0..layout.rows {
            for panel in 0..layout.panels() {
                let block = self.block(layout.format);
                let at = row / layout.row_block * layout.row_block_bytes() + panel * layout.region_bytes();
                layout.pack(&block, block.len(), row % layout.row_block, 1, 1, &mut bytes[at..]);
            }
        }
        bytes
    }

    /// One region of a matrix: as good as the whole where only time counts.
    pub fn region(&mut self, layout: &PanelLayout) -> Vec<u8> {
        let one = PanelLayout { rows: layout.row_block, cols: layout.format.panel_cols(), ..*layout };
        self.matrix(&one)
    }
}
