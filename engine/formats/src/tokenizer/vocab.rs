//! The table of tokens: what each one is and which bytes it stands for.

use std::ops::Range;

use super::bytes;
use crate::{Error, Result};

/// Most tokens in a vocabulary (the largest known has 262,144).
pub(super) const MAX_TOKENS: usize = 1 << 22;
/// Longest text of one token in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 1 << 16;

/// What a token is, as GGUF's token types tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Normal,
    /// Stands for what cannot be spelled; without text.
    Unknown,
    /// Steers the model (`<|im_end|>`); without text.
    Control,
    /// Text that is always this token.
    UserDefined,
    /// A hole in the vocabulary; without text.
    Unused,
    /// One byte.
    Byte,
}

impl Kind {
    /// From a number of `tokenizer.ggml.token_type`.
    pub(super) fn from_gguf(number: i32) -> Option<Kind> {
        Some(match number {
            // 0 is "undefined": llama.cpp reads it as an ordinary token.
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }

    /// Whether tokens of this kind show in decoded text.
    pub(super) fn has_text(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined | Kind::Byte)
    }

    /// Whether merging characters may give such a token. A control token must not come out of plain text.
    pub(super) fn is_spelled(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined)
    }
}

/// How the vocabulary spells text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Bytes in GPT-2's alphabet.
    ByteLevel,
    /// UTF-8 with U+2581 for a space, and `<0xNN>` for bytes.
    Sentence,
    /// Words; a piece that goes on begins with `##`.
    WordPiece,
    /// UTF-8.
    Plain,
}

/// Kinds and bytes of all tokens, by id.
pub(super) struct Vocab {
    kinds: Vec<Kind>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Vocab {
    /// An empty table with room for `tokens`.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        let tokens = tokens.min(MAX_TOKENS);
        Self { kinds: Vec::with_capacity(tokens), ends: Vec::with_capacity(tokens), bytes: Vec::new() }
    }

    /// Add the next token, spelled `text`.
    pub(super) fn push(&mut self, text: &str, kind: Kind, spelling: Spelling) -> Result<()> {
        let field = || format!("token {}", self.kinds.len());
        if self.kinds.len() >= MAX_TOKENS {
            return Err(Error::malformed("tokens", format!("more than {MAX_TOKENS}")));
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Error::malformed(field(), format!("{} bytes, at most {MAX_TOKEN_BYTES}", text.len())));
        }
        match (kind, spelling) {
            (Kind::Byte, _) => {
                let byte = bytes::byte_token(text)
                    .ok_or_else(|| Error::malformed(field(), format!("byte token named {text:?}, not <0xNN>")))?;
                self.bytes.push(byte);
            }
            (Kind::Normal, Spelling::ByteLevel) => bytes::unspell(text, &mut self.bytes),
            (Kind::Normal, Spelling::Sentence) => {
                self.bytes.extend_from_slice(text.replace('\u{2581}', " ").as_bytes());
            }
            (Kind::Normal, Spelling::WordPiece) => match text.strip_prefix("##") {
                Some(rest) => self.bytes.extend_from_slice(rest.as_bytes()),
                None => {
                    self.bytes.push(b' ');
                    self.bytes.extend_from_slice(text.as_bytes());
                }
            },
            _ => self.bytes.extend_from_slice(text.as_bytes()),
        }
        let end = u32::try_from(self.bytes.len()).map_err(|_| Error::malformed("tokens", "more than 4 GiB of text"))?;
        self.kinds.push(kind);
        self.ends.push(end);
        Ok(())
    }

    /// Tokens.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// All ids.
    pub(super) fn ids(&self) -> Range<u32> {
        0..u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// Kind and bytes of a token; tokens without text have their name.
    pub(super) fn get(&self, token: u32) -> Option<(Kind, &[u8])> {
        let index = usize::try_from(token).ok()?;
        let kind = *self.kinds.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let bytes = self.bytes.get(start as usize..*self.ends.get(index)? as usize)?;
        Some((kind, bytes))
    }
}
