//! Decoding, one token at a time.

use super::vocab::Kind;
use super::{Spaces, Tokenizer, outside};
use crate::Result;

/// Incremental decoder, see [`Tokenizer::stream`].
///
/// The texts that it gives out, joined, are the [`Tokenizer::decode`] of the same tokens.
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    state: StreamState,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, state: StreamState::new(tokenizer) }
    }

    /// Add a token; returns the text that became whole (often empty inside a multi-byte character).
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] for a token outside the vocabulary; the stream stays as it was.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.state.push(self.tokenizer, token)
    }

    /// What is left at the end, with U+FFFD for an incomplete character.
    ///
    /// # Errors
    /// None today.
    pub fn finish(self) -> Result<String> {
        Ok(self.state.finish())
    }
}

/// Where a [`TokenStream`] stands, for callers that cannot hold on to the tokenizer.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// The beginning of a character: at most 3 bytes between calls.
    pending: Vec<u8>,
    /// The next token's leading space is the encoder's own.
    drop_space: bool,
}

impl StreamState {
    /// The beginning of a text.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { pending: Vec::new(), drop_space: tokenizer.spaces != Spaces::Keep }
    }

    /// As [`TokenStream::push`].
    ///
    /// # Errors
    /// As [`TokenStream::push`].
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String> {
        let vocab = &tokenizer.vocab;
        let (kind, bytes) = vocab.get(token).ok_or_else(|| outside(token, vocab.len()))?;
        let bytes = match bytes.split_first() {
            Some((b' ', rest)) if self.drop_space && kind == Kind::Normal => rest,
            _ => bytes,
        };
        match kind {
            Kind::Normal | Kind::Byte => self.drop_space = false,
            Kind::Control | Kind::UserDefined | Kind::Unknown => match tokenizer.spaces {
                Spaces::DropAfterTokens => self.drop_space = true,
                Spaces::DropFirst if kind == Kind::UserDefined => self.drop_space = false,
                Spaces::DropFirst | Spaces::Keep => {}
            },
            Kind::Unused => {}
        }
        if !kind.has_text() {
            return Ok(String::new());
        }
        self.pending.extend_from_slice(bytes);
        Ok(take_whole(&mut self.pending))
    }

    /// As [`TokenStream::finish`].
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Take the characters that are whole, with U+FFFD for what can never become one; leaves the beginning of a character.
fn take_whole(pending: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(pending.len());
    let mut done = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let at_end = done + chunk.invalid().len() == pending.len();
        if chunk.invalid().is_empty() || (at_end && may_go_on(chunk.invalid())) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        done += chunk.invalid().len();
    }
    pending.drain(..done);
    text
}

/// Whether more bytes could make a character of these.
fn may_go_on(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_any_bytes_gives_the_lossy_text() {
        let samples: [&[u8]; 6] = [
            "aé漢🙂\u{200d}".as_bytes(),
            b"\xF0\x9F\x99",
            b"\xE2\x28\xA1x\xC3",
            b"\xFF\xFE\xED\xA0\x80\xF4\x90\x80\x80",
            b"\xF0\x9F\xF0\x9F\x99\x82\x80",
            b"",
        ];
        for sample in samples {
            for size in 1..5 {
                let mut pending = Vec::new();
                let mut text = String::new();
                for piece in sample.chunks(size) {
                    pending.extend_from_slice(piece);
                    text.push_str(&take_whole(&mut pending));
                    assert!(pending.len() < 4);
                }
                text.push_str(&String::from_utf8_lossy(&pending));
                assert_eq!(text, String::from_utf8_lossy(sample), "{sample:?} by {size}");
            }
        }
    }
}
