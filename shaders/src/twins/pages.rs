//! Where elements of keys and values lie, for all widths; see `KvGeometry` of the crate kv.

use super::Words;

/// Bits of an element by the number of its width in a chunk table.
const BITS: [usize; 5] = [16, 8, 4, 2, 32];

/// A plane of a chunk: 16 keys or values of one head.
#[derive(Debug, Clone, Copy)]
pub struct Plane {
    /// Bits of an element.
    pub bits: usize,
    /// First word.
    pub first: usize,
    /// Words of elements; those of meta follow.
    pub data: usize,
    dim: usize,
    value: bool,
}

impl Plane {
    /// The plane of a group's keys (or values) of the chunk that a table's `entry` names.
    pub fn of(entry: u32, value: bool, group: usize, groups: u32, head_dim: u32) -> Self {
        let bits = BITS[(entry >> 28) as usize];
        let (dim, groups) = (head_dim as usize, groups as usize);
        let data = 16 * (dim * bits).div_ceil(128) * 4;
        let words = data + if bits < 16 { 16 } else { 0 };
        let first = (entry & 0x0fff_ffff) as usize * 2 * groups * 16 + (usize::from(value) * groups + group) * words;
        Self { bits, first, data, dim, value }
    }

    /// Word and lowest bit of element `i` of token `t`.
    pub fn element(&self, t: usize, i: usize) -> (usize, usize) {
        let piece_bits = 128;
        let bit = if self.value {
            // Eight dimensions of as many tokens as fit a piece, or of one.
            let tokens = (16 / self.bits).max(1);
            let run = (t / tokens) * (self.dim / 8) + i / 8;
            (run * tokens + t % tokens) * 8 * self.bits + i % 8 * self.bits
        } else {
            let per_piece = piece_bits / self.bits;
            (i / per_piece * 16 + t) * piece_bits + i % per_piece * self.bits
        };
        (self.first + bit / 32, bit % 32)
    }

    /// The word of a token's scale and offset.
    pub fn meta(&self, t: usize) -> usize {
        self.first + self.data + t
    }

    /// Scale and offset of a token.
    pub fn scale(&self, words: Words<'_>, t: usize) -> (f32, f32) {
        if self.bits >= 16 {
            return (1.0, 0.0);
        }
        (words.h(2 * self.meta(t)), words.h(2 * self.meta(t) + 1))
    }

    /// Element `i` of token `t`.
    pub fn get(&self, words: Words<'_>, t: usize, i: usize) -> f32 {
        let (word, bit) = self.element(t, i);
        match self.bits {
            32 => words.f(word),
            16 => words.h(2 * word + bit / 16),
            bits => {
                let (scale, offset) = self.scale(words, t);
                scale * (words.u(word) >> bit & ((1 << bits) - 1)) as f32 + offset
            }
        }
    }

    /// Set element `i` of token `t`, where elements are floats.
    pub fn set(&self, words: Words<'_>, t: usize, i: usize, v: f32) {
        let (word, bit) = self.element(t, i);
        match self.bits {
            32 => words.set_f(word, v),
            _ => words.set_h(2 * word + bit / 16, v),
        }
    }

    /// Set the integer of element `i` of token `t`.
    pub fn set_integer(&self, words: Words<'_>, t: usize, i: usize, n: u32) {
        let (word, bit) = self.element(t, i);
        let mask = ((1u32 << self.bits) - 1) << bit;
        words.set_u(word, words.u(word) & !mask | n << bit);
    }
}

/// The Walsh-Hadamard transform of each block of `size` elements, divided by the root of the size; 0: nothing.
pub fn hadamard(x: &mut [f32], size: usize) {
    if size == 0 {
        return;
    }
    for block in x.chunks_exact_mut(size) {
        let mut apart = 1;
        while apart < size {
            for i in (0..size).filter(|i| i & apart == 0) {
                (block[i], block[i + apart]) = (block[i] + block[i + apart], block[i] - block[i + apart]);
            }
            apart *= 2;
        }
        let root = (size as f32).sqrt();
        block.iter_mut().for_each(|v| *v /= root);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_element_has_bits_of_its_own() {
        for (width, bits) in BITS.into_iter().enumerate() {
            for dim in [16, 64, 80, 128, 256] {
                for value in [false, true] {
                    let plane = Plane::of((width as u32) << 28 | 3, value, 1, 2, dim);
                    let mut seen = HashSet::new();
                    for t in 0..16 {
                        for i in 0..dim as usize {
                            let (word, bit) = plane.element(t, i);
                            assert!(word < plane.first + plane.data && bit + bits <= 32);
                            assert!(seen.insert((word, bit)), "{bits} bits, {dim} dimensions: two at {word}, {bit}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_transform_is_its_own_inverse() {
        let x: Vec<f32> = (0..80).map(|i| (i * i % 37) as f32).collect();
        let mut y = x.clone();
        hadamard(&mut y, 16);
        assert!(x.iter().zip(&y).any(|(a, b)| (a - b).abs() > 1.0));
        hadamard(&mut y, 16);
        assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
