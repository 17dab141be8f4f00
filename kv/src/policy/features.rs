//! The policies that are compared: ours, ours without each of its parts, and the baselines of LLMS.

use crate::Width;

/// A named set of [`Features`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Policy {
    /// Drop the least recently used context and compute it anew: what a low-memory killer does.
    Lmk,
    /// Swap whole contexts.
    Swap,
    /// Swap chunks, least recently used first.
    ChunkSwap,
    /// Swap chunks of 8 bits.
    ChunkSwapInt8,
    /// Widths by tolerance, reads overlapped with recomputing, writes ahead of time, heaviest chunks out first.
    Ours,
    /// Ours with all chunks in 16 bits.
    OursNoCompression,
    /// Ours with all chunks in 4 bits, whatever attention they get.
    OursUniform4,
    /// Ours with all chunks in 2 bits.
    OursUniform2,
    /// Ours with reads alone.
    OursNoPipeline,
    /// Ours, with chunks written when they are evicted, least recently used first.
    OursNoLifecycle,
    /// Ours with chunks evicted least recently used first, but written ahead of time.
    OursLru,
}

impl Policy {
    /// All of them, baselines first.
    pub const ALL: [Self; 11] = [
        Self::Lmk,
        Self::Swap,
        Self::ChunkSwap,
        Self::ChunkSwapInt8,
        Self::Ours,
        Self::OursNoCompression,
        Self::OursUniform4,
        Self::OursUniform2,
        Self::OursNoPipeline,
        Self::OursNoLifecycle,
        Self::OursLru,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lmk => "lmk",
            Self::Swap => "swap",
            Self::ChunkSwap => "chunk-swap",
            Self::ChunkSwapInt8 => "chunk-swap-int8",
            Self::Ours => "ours",
            Self::OursNoCompression => "ours-no-compression",
            Self::OursUniform4 => "ours-uniform-4",
            Self::OursUniform2 => "ours-uniform-2",
            Self::OursNoPipeline => "ours-no-pipeline",
            Self::OursNoLifecycle => "ours-no-lifecycle",
            Self::OursLru => "ours-lru",
        }
    }

    /// What it does.
    pub fn features(self) -> Features {
        let ours = Features {
            disk: true,
            whole_contexts: false,
            compression: Compression::Tolerance,
            pipeline: true,
            ahead_of_time: true,
            heaviest_first: true,
        };
        let chunk_swap = Features {
            compression: Compression::None,
            pipeline: false,
            ahead_of_time: false,
            heaviest_first: false,
            ..ours
        };
        match self {
            Self::Lmk => Features { disk: false, whole_contexts: true, ..chunk_swap },
            Self::Swap => Features { whole_contexts: true, ..chunk_swap },
            Self::ChunkSwap => chunk_swap,
            Self::ChunkSwapInt8 => Features { compression: Compression::Uniform(Width::W8), ..chunk_swap },
            Self::Ours => ours,
            Self::OursNoCompression => Features { compression: Compression::None, ..ours },
            Self::OursUniform4 => Features { compression: Compression::Uniform(Width::W4), ..ours },
            Self::OursUniform2 => Features { compression: Compression::Uniform(Width::W2), ..ours },
            Self::OursNoPipeline => Features { pipeline: false, ..ours },
            Self::OursLru => Features { heaviest_first: false, ..ours },
            Self::OursNoLifecycle => Features { ahead_of_time: false, heaviest_first: false, ..ours },
        }
    }
}

/// How chunks are compressed when a call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// They stay as they were written.
    None,
    /// All to one width.
    Uniform(Width),
    /// By [`choose_widths`](super::choose_widths).
    Tolerance,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Evicted chunks can be read back; otherwise they are computed anew.
    pub disk: bool,
    /// Contexts are evicted whole.
    pub whole_contexts: bool,
    /// How chunks are compressed.
    pub compression: Compression,
    /// Restoring may compute some chunks while it reads others.
    pub pipeline: bool,
    /// Chunks are written when the call returns, so that dropping them is free.
    pub ahead_of_time: bool,
    /// Evict the heaviest width first, and least recently used inside a width; otherwise least recently used alone.
    pub heaviest_first: bool,
}
