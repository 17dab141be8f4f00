//! Sizes of chunks.

/// Tokens of a chunk, across all layers.
pub const CHUNK_TOKENS: usize = 16;

/// Bits of an element of stored keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Width {
    /// As the forward pass writes them: f16, or f32 where nothing may be rounded.
    W16 = 0,
    /// 8 bits.
    W8 = 1,
    /// 4 bits.
    W4 = 2,
    /// 2 bits.
    W2 = 3,
}

/// Shape of a model's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvGeometry {
    /// Layers.
    pub layers: usize,
    /// KV groups (key and value heads).
    pub groups: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Bytes of an element as the forward pass writes it: 2 for f16, 4 for f32.
    pub element_bytes: usize,
}

impl KvGeometry {
    /// Bytes of one layer of a chunk as it is written: `[K|V][group][token][dim]`, one extent in GPU memory.
    pub fn layer_bytes(&self) -> u64 {
        (2 * self.groups * CHUNK_TOKENS * self.head_dim * self.element_bytes) as u64
    }

    /// Bytes of a chunk over all layers.
    pub fn chunk_bytes(&self) -> u64 {
        self.layer_bytes() * self.layers as u64
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
        let kv = KvGeometry { layers: 30, groups: 3, head_dim: 64, element_bytes: 2 };
        assert_eq!(kv.chunk_bytes(), 16 * 23_040);
        assert_eq!((KvGeometry::chunks_for(0), KvGeometry::chunks_for(16), KvGeometry::chunks_for(17)), (0, 1, 2));
    }
}
