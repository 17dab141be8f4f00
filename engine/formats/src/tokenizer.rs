//! Text to tokens and back, behind a wall that turns the `tokenizers` crate's panics into errors.

use crate::Result;

/// Text to tokens and back.
pub struct Tokenizer {}

impl Tokenizer {
    /// Stub until the tokenizer branch is merged.
    pub fn from_gguf(meta: &crate::gguf::Metadata) -> Result<Tokenizer> {
        let _ = meta;
        Ok(Tokenizer {})
    }

    /// Stub until the tokenizer branch is merged.
    pub fn from_json(
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
        generation_config: Option<&[u8]>,
    ) -> Result<Tokenizer> {
        let _ = (tokenizer_json, tokenizer_config, generation_config);
        Ok(Tokenizer {})
    }

    /// Tokens of `text`. With `parse_special`, control tokens written in the text (`<|im_start|>`) become those tokens;
    /// without, they are plain text. Adds no BOS.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let _ = (text, parse_special);
        Err(crate::Error::Unsupported("tokenizers".into()))
    }

    /// As [`Tokenizer::encode`], with the BOS in front when the model wants one and the text does not begin with it.
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        self.encode(text, parse_special)
    }

    /// Text of `tokens`; control tokens are left out, bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let _ = tokens;
        Ok(String::new())
    }

    /// A decoder that takes one token at a time and gives out text as soon as it is whole.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream { _tokenizer: self }
    }

    /// The token that begins every text, if the model wants it there.
    pub fn bos(&self) -> Option<u32> {
        None
    }

    /// Whether `token` ends an answer (end of text, end of turn).
    pub fn is_end(&self, token: u32) -> bool {
        let _ = token;
        false
    }

    /// Tokens in the vocabulary.
    pub fn vocab_len(&self) -> usize {
        0
    }
}

/// Incremental decoder, see [`Tokenizer::stream`].
pub struct TokenStream<'a> {
    _tokenizer: &'a Tokenizer,
}

impl TokenStream<'_> {
    /// Add a token; returns the text that became whole (often empty inside a multi-byte character).
    pub fn push(&mut self, token: u32) -> Result<String> {
        let _ = token;
        Ok(String::new())
    }

    /// What is left at the end, with U+FFFD for an incomplete character.
    pub fn finish(self) -> Result<String> {
        Ok(String::new())
    }
}
