//! Sizes of chunks.

/// Tokens of a chunk, across all layers.
pub const CHUNK_TOKENS: usize = 16;

/// Bits of an element of stored keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Width {
    /// f16, as the forward pass writes them.
    W16 = 0,
    /// 8 bits.
    W8 = 1,
    /// 4 bits.
    W4 = 2,
    /// 2 bits.
    W2 = 3,
    /// f32, as the forward pass writes them where nothing may be rounded; not mixed with others.
    W32 = 4,
}

impl Width {
    /// All widths, by number.
    pub const ALL: [Width; 5] = [Width::W16, Width::W8, Width::W4, Width::W2, Width::W32];

    /// Bits of an element.
    pub fn bits(self) -> usize {
        match self {
            Width::W32 => 32,
            Width::W16 => 16,
            Width::W8 => 8,
            Width::W4 => 4,
            Width::W2 => 2,
        }
    }

    /// Whether elements are whole numbers with a scale and an offset a token.
    pub fn is_quantised(self) -> bool {
        self.bits() < 16
    }
}

/// A set of widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Widths(u8);

impl Widths {
    /// Whether a width is in it.
    pub fn contains(self, width: Width) -> bool {
        self.0 >> width as u32 & 1 == 1
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its widths, widest first among those below 32 bits.
    pub fn iter(self) -> impl Iterator<Item = Width> {
        Width::ALL.into_iter().filter(move |width| self.contains(*width))
    }
}

impl FromIterator<Width> for Widths {
    fn from_iter<T: IntoIterator<Item = Width>>(widths: T) -> Self {
        Self(widths.into_iter().fold(0, |set, width| set | 1 << width as u32))
    }
}

/// Shape of a model's keys and values.
///
/// One layer of a chunk is one extent, `[K|V][group]` of planes. A plane holds 16 tokens of one head in 16-byte pieces;
/// its order suits the kernel, in which keys are dealt out by token and values by dimension:
///
/// - keys: piece `i·16 + t` holds the `128 / bits` dimensions of token `t` from `i · 128 / bits` on;
/// - values: piece `(t / n)·(head_dim / 8) + o` holds dimensions `8o..8o+8` of `n = 16 / bits` tokens, one after the other
///   (f32: two pieces a token);
/// - below 16 bits, 16 words follow, one a token: scale and offset as f16, scale in the low half. An element is
///   `scale · n + offset`.
///
/// The place of a chunk is counted in units, of which every width takes a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvGeometry {
    /// Layers.
    pub layers: usize,
    /// KV groups (key and value heads).
    pub groups: usize,
    /// Dimensions of a head, a multiple of 8.
    pub head_dim: usize,
    /// Width in which the forward pass writes: f16 or f32.
    pub written: Width,
}

impl KvGeometry {
    /// 32-bit words of a plane: 16 tokens of one head.
    pub fn plane_words(&self, width: Width) -> usize {
        // A token's keys are whole pieces of four words.
        let token = (self.head_dim * width.bits()).div_ceil(128) * 4;
        CHUNK_TOKENS * token + if width.is_quantised() { CHUNK_TOKENS } else { 0 }
    }

    /// Bytes of a unit: 16 words of every plane.
    pub fn unit_bytes(&self) -> u64 {
        (2 * self.groups * 16 * 4) as u64
    }

    /// Units of one layer of a chunk.
    pub fn units(&self, width: Width) -> u32 {
        (self.plane_words(width) / 16) as u32
    }

    /// Bytes of one layer of a chunk.
    pub fn layer_bytes(&self, width: Width) -> u64 {
        u64::from(self.units(width)) * self.unit_bytes()
    }

    /// Bytes of a chunk over all layers.
    pub fn chunk_bytes(&self, width: Width) -> u64 {
        self.layer_bytes(width) * self.layers as u64
    }

    /// Chunks that `tokens` tokens fill or begin.
    pub fn chunks_for(tokens: usize) -> usize {
        tokens.div_ceil(CHUNK_TOKENS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smollm2_takes_23040_bytes_a_token() {
        let kv = KvGeometry { layers: 30, groups: 3, head_dim: 64, written: Width::W16 };
        assert_eq!(kv.chunk_bytes(Width::W16), 16 * 23_040);
        assert_eq!((KvGeometry::chunks_for(0), KvGeometry::chunks_for(16), KvGeometry::chunks_for(17)), (0, 1, 2));
        assert_eq!(Width::ALL.map(|width| kv.units(width)), [32, 17, 9, 5, 64]);
    }

    #[test]
    fn widths_are_numbered_as_kernels_know_them() {
        assert_eq!(Width::ALL.map(|width| width as u32), [0, 1, 2, 3, 4]);
    }
}
