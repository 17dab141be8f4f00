//! A device, as rates.

use crate::policy::{ChunkBytes, nominal_bits};
use crate::{CHUNK_TOKENS, Width};

/// How fast a device computes, reads and writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    /// Seconds that any recomputing takes.
    pub recompute_fixed_s: f64,
    /// Tokens prefilled in a second.
    pub recompute_tokens_per_s: f64,
    /// Seconds that any read takes.
    pub read_fixed_s: f64,
    /// Bytes read, opened and copied to the GPU in a second.
    pub read_bytes_per_s: f64,
    /// Bytes sealed and written in a second.
    pub write_bytes_per_s: f64,
}

impl Device {
    /// Two cores with a software adapter and a disk of 2 GB/s, of which decryption leaves about half.
    pub const LAVAPIPE: Self = Self {
        recompute_fixed_s: 0.005,
        recompute_tokens_per_s: 100.0,
        read_fixed_s: 0.0002,
        read_bytes_per_s: 1.0e9,
        write_bytes_per_s: 0.8e9,
    };

    /// The same with llama.cpp's speed on the CPU: 349 tokens a second.
    pub const CPU: Self = Self { recompute_tokens_per_s: 349.0, recompute_fixed_s: 0.001, ..Self::LAVAPIPE };

    /// With a disk that reads and writes no faster than this.
    pub fn throttled(self, bytes_per_s: f64) -> Self {
        Self {
            read_bytes_per_s: self.read_bytes_per_s.min(bytes_per_s),
            write_bytes_per_s: self.write_bytes_per_s.min(bytes_per_s),
            ..self
        }
    }

    pub(super) fn read_s(&self, bytes: u64) -> f64 {
        if bytes == 0 { 0.0 } else { self.read_fixed_s + bytes as f64 / self.read_bytes_per_s }
    }

    pub(super) fn write_s(&self, bytes: u64) -> f64 {
        bytes as f64 / self.write_bytes_per_s
    }

    pub(super) fn recompute_s(&self, tokens: usize) -> f64 {
        if tokens == 0 { 0.0 } else { self.recompute_fixed_s + tokens as f64 / self.recompute_tokens_per_s }
    }
}

/// Sizes of a model's chunks: elements in their bits, and below 16 bits a scale and an offset of two bytes each for every
/// token and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvBytes {
    /// Layers.
    pub layers: u64,
    /// KV groups.
    pub groups: u64,
    /// Dimensions of a head.
    pub head_dim: u64,
}

impl KvBytes {
    /// SmolLM2-135M.
    pub const SMOLLM2: Self = Self { layers: 30, groups: 3, head_dim: 64 };

    /// Llama-2-7B, the size that the paper kept contexts of.
    pub const LLAMA2_7B: Self = Self { layers: 32, groups: 32, head_dim: 128 };

    /// Bytes of a context in memory at 16 bits.
    pub fn context_bytes(&self, tokens: usize) -> u64 {
        tokens.div_ceil(CHUNK_TOKENS) as u64 * self.memory(Width::W16)
    }

    pub(super) fn disk_bytes(&self, width: Width) -> u64 {
        self.disk(width)
    }
}

impl ChunkBytes for KvBytes {
    fn memory(&self, width: Width) -> u64 {
        let rows = 2 * self.layers * self.groups * CHUNK_TOKENS as u64;
        let scales = if width == Width::W16 { 0 } else { 4 };
        rows * (self.head_dim * u64::from(nominal_bits(width)) / 8 + scales)
    }

    fn disk(&self, width: Width) -> u64 {
        // A tag for each layer.
        self.memory(width) + 16 * self.layers
    }
}
