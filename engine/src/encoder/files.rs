//! What an encoder is made of on the host: the bottom's file and the heads, checked against each other. From these it is put
//! on a new device when one was lost.

use concertina_elastic::heads::Heads;
use concertina_formats::{Bert, ByteSource};

use super::embed::Embedding;
use crate::{Error, Result};

/// Dimensions of a head that `attn_dense` takes.
const MAX_HEAD_DIM: usize = 64;
/// Bytes that are hashed at once.
const HASHED_BYTES: usize = 1 << 20;

/// How fast a call must be, in percent of the whole model's time on the whole prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Time to the first token.
    pub ttft_percent: u32,
    /// Time of each further token.
    pub tpot_percent: u32,
}

impl Target {
    /// No hurry.
    pub const NONE: Target = Target { ttft_percent: 100, tpot_percent: 100 };
}

/// The bottom and the heads.
pub(crate) struct EncoderFiles {
    pub bert: Bert,
    pub heads: Heads,
    pub embedding: Embedding,
}

impl EncoderFiles {
    /// Check that they belong together.
    pub fn new(bert: Bert, heads: Heads) -> Result<Self> {
        let (spec, id) = (&bert.spec, &heads.encoder);
        let sizes = [(spec.dim, id.dim), (spec.heads, id.heads), (spec.ffn, id.ffn)];
        if sizes.iter().any(|(a, b)| a != b) || id.bottom_layers > spec.layers || id.positions > spec.positions {
            return Err(Error::Invalid(format!(
                "the heads are for another encoder: {id:?}, and this one has {spec:?}"
            )));
        }
        let head_dim = spec.dim / spec.heads;
        if !head_dim.is_multiple_of(4) || head_dim > MAX_HEAD_DIM {
            return Err(Error::Unsupported(format!(
                "encoder heads of {head_dim} dimensions: multiples of 4 up to {MAX_HEAD_DIM} are taken"
            )));
        }
        let found = blake3_of(bert.source.as_ref())?;
        if found != id.source_blake3 {
            return Err(Error::Invalid(format!(
                "the heads were trained on another file than this encoder's: BLAKE3 {} and not {found}",
                id.source_blake3
            )));
        }
        let embedding = Embedding::load(&bert)?;
        Ok(Self { bert, heads, embedding })
    }

    /// Pieces of a window, without `[CLS]` and `[SEP]`.
    pub fn window(&self) -> usize {
        self.heads.encoder.positions - 2
    }

    /// Numbers of the targets that a call's stand for: of those that the heads know, the loosest that is no looser; where
    /// all are, the strictest.
    pub fn target(&self, target: Target) -> (usize, usize) {
        let number = |known: &[u32], percent: u32| known.partition_point(|t| *t <= percent).saturating_sub(1);
        (number(&self.heads.ttft_targets, target.ttft_percent), number(&self.heads.tpot_targets, target.tpot_percent))
    }
}

fn blake3_of(source: &dyn ByteSource) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; HASHED_BYTES];
    let len = source.len();
    for at in (0..len).step_by(HASHED_BYTES) {
        let part = &mut buffer[..(len - at).min(HASHED_BYTES as u64) as usize];
        source.read_at(at, part).map_err(|e| Error::Format(e.into()))?;
        hasher.update(part);
    }
    source.done_with(0, len);
    Ok(hasher.finalize().to_hex().to_string())
}
