//! WordPieces of a text with the bytes that each comes from: what an encoder reads.

use std::ops::Range;

use tokenizers::Tokenizer as HfTokenizer;

use super::guard::wall;
use super::json;
use super::vocab::MAX_TOKENS;
use crate::{Error, Result};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub id: u32,
    /// Bytes of the text that it stands for.
    pub bytes: Range<usize>,
}

/// The tokenizer of an encoder.
pub struct WordPieces {
    inner: HfTokenizer,
    vocab_len: usize,
    cls: u32,
    sep: u32,
}

impl WordPieces {
    /// From a `tokenizer.json` that knows `[CLS]` and `[SEP]`. Padding and truncation are switched off, and so is all that
    /// it would add to a text.
    ///
    /// # Errors
    /// As [`crate::Tokenizer::from_json`].
    pub fn from_json(tokenizer_json: &[u8]) -> Result<Self> {
        let json = json::checked(tokenizer_json)?;
        let mut inner: HfTokenizer = wall("tokenizer.json", || Ok(serde_json::from_value(json)?))?;
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        // What a text spells of them is text.
        inner.set_encode_special_tokens(true);
        let id = |text: &str| {
            let missing = || Error::malformed("tokenizer.json", format!("there is no {text} in it"));
            inner.token_to_id(text).ok_or_else(missing)
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let last = wall("tokenizer.json", || Ok(inner.get_vocab(true).into_values().max().unwrap_or(0)))?;
        if last as usize >= MAX_TOKENS {
            return Err(Error::malformed(
                "tokenizer.json",
                format!("an id of {last}, expected less than {MAX_TOKENS}"),
            ));
        }
        Ok(Self { vocab_len: last as usize + 1, cls, sep, inner })
    }

    /// The pieces of `text`, without `[CLS]` and `[SEP]`, in the order of the text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<Piece>> {
        let encoding = wall("encoding", || self.inner.encode(text, false))?;
        let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
        let pieces: Vec<Piece> = pairs.map(|(id, (start, end))| Piece { id: *id, bytes: *start..*end }).collect();
        let wrong =
            |p: &&Piece| p.id as usize >= self.vocab_len || p.bytes.start > p.bytes.end || p.bytes.end > text.len();
        match pieces.iter().find(wrong) {
            Some(piece) => Err(Error::Tokenizer(format!("{piece:?} of a text of {} bytes", text.len()))),
            None => Ok(pieces),
        }
    }

    /// The piece that begins what an encoder reads.
    pub fn cls(&self) -> u32 {
        self.cls
    }

    /// The piece that ends it.
    pub fn sep(&self) -> u32 {
        self.sep
    }

    /// One more than the greatest id.
    pub fn vocab_len(&self) -> usize {
        self.vocab_len
    }
}
