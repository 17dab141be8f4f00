//! Text to tokens and back, behind a wall that turns the `tokenizers` crate's panics into errors.
//!
//! Three ways to encode: byte-level BPE from GGUF (words from [`pretok`], merges by the `tokenizers` crate), SentencePiece
//! scores from GGUF ([`spm`]), and anything that a `tokenizer.json` says (the crate as a whole, [`json`]). One way to
//! decode: every token is a string of bytes ([`vocab`]), so streaming and whole decoding are the same code.

mod bytes;
mod gguf;
mod guard;
mod json;
mod pretok;
mod special;
mod spm;
mod stream;
mod vocab;
mod words;

pub(crate) use guard::catch;
pub use stream::{StreamState, TokenStream};

use crate::{Error, Result};
use special::{Part, Specials};
use vocab::{Kind, Vocab};

/// Texts of control tokens that end an answer in known model families.
const END_TEXTS: [&str; 10] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endofturn|>",
    "</s>",
    "<eos>",
];

/// Text to tokens and back.
pub struct Tokenizer {
    encoder: Encoder,
    vocab: Vocab,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    ends: Vec<u32>,
    spaces: Spaces,
}

enum Encoder {
    Words(Specials, Box<words::Words>),
    Pieces(Specials, Box<spm::Pieces>),
    Json(Box<json::JsonEncoder>),
}

/// Which spaces of the tokens are the encoder's own, so that decoding leaves them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spaces {
    /// None.
    Keep,
    /// One at the beginning of the text.
    DropFirst,
    /// One at the beginning and one after each control or user-defined token.
    DropAfterTokens,
}

/// Token ids with a meaning, as a file names them.
struct Roles {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    ends: Vec<u32>,
}

impl Tokenizer {
    fn assemble(encoder: Encoder, vocab: Vocab, roles: Roles, spaces: Spaces) -> Self {
        let Roles { bos, eos, add_bos, mut ends } = roles;
        ends.extend(eos);
        ends.extend(vocab.ids().filter(|id| match vocab.get(*id) {
            Some((Kind::Control, text)) => END_TEXTS.iter().any(|end| end.as_bytes() == text),
            _ => false,
        }));
        ends.sort_unstable();
        ends.dedup();
        Self { encoder, vocab, bos, eos, add_bos, ends, spaces }
    }

    /// Tokens of `text`. With `parse_special`, control tokens written in the text (`<|im_start|>`) become those tokens;
    /// without, they are plain text. Adds no BOS.
    ///
    /// User-defined tokens are matched either way. Where several begin at one place the longest is taken. Bytes that a
    /// byte-level vocabulary lacks are left out, as its peers do.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the vocabulary cannot spell the text or the tokenizer of a `tokenizer.json` fails.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut out = Vec::with_capacity(text.len() / 3 + 1);
        match &self.encoder {
            Encoder::Json(encoder) => return encoder.encode(text, parse_special, self.vocab.len()),
            Encoder::Words(specials, words) => {
                for part in specials.split(text, parse_special) {
                    match part {
                        Part::Token(id) => out.push(id),
                        Part::Text(text) => words.encode(text, &mut out)?,
                    }
                }
            }
            Encoder::Pieces(specials, pieces) => {
                let mut space_first = pieces.add_space_prefix;
                for part in specials.split(text, parse_special) {
                    match part {
                        Part::Token(id) => {
                            out.push(id);
                            space_first = pieces.add_space_prefix;
                        }
                        Part::Text(text) => {
                            pieces.encode(&spm::escape(text, space_first), &mut out)?;
                            space_first = false;
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    /// As [`Tokenizer::encode`], with the BOS in front when the model wants one and the text does not begin with it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let mut tokens = self.encode(text, parse_special)?;
        if let Some(bos) = self.bos().filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Text of `tokens`; control tokens are left out, bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let mut stream = self.stream();
        let mut text = String::with_capacity(tokens.len() * 4);
        for token in tokens {
            text.push_str(&stream.push(*token)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    /// A decoder that takes one token at a time and gives out text as soon as it is whole.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// The token that begins every text, if the model wants it there.
    pub fn bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The token that ends every text, if the file names one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Text of the BOS token for chat templates, whether or not the model wants it in front; empty when there is none.
    pub fn bos_text(&self) -> String {
        self.bos.and_then(|bos| self.token_text(bos)).unwrap_or_default()
    }

    /// Text of the EOS token for chat templates; empty when there is none.
    pub fn eos_text(&self) -> String {
        self.eos.and_then(|eos| self.token_text(eos)).unwrap_or_default()
    }

    /// A token for display: its text, the name of a control token, U+FFFD for parts of characters. `None` outside the
    /// vocabulary.
    pub fn token_text(&self, token: u32) -> Option<String> {
        self.vocab.get(token).map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether `token` ends an answer (end of text, end of turn).
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.binary_search(&token).is_ok()
    }

    /// Tokens in the vocabulary.
    pub fn vocab_len(&self) -> usize {
        self.vocab.len()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.encoder {
            Encoder::Words(..) => "byte-level BPE",
            Encoder::Pieces(..) => "SentencePiece",
            Encoder::Json(_) => "tokenizer.json",
        };
        f.debug_struct("Tokenizer")
            .field("kind", &kind)
            .field("vocab_len", &self.vocab.len())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("add_bos", &self.add_bos)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// The error of a token id that the vocabulary does not have.
fn outside(token: u32, len: usize) -> Error {
    Error::Tokenizer(format!("token {token} outside the vocabulary of {len}"))
}
