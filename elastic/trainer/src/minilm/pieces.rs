//! A text's words as WordPieces, in windows.

use anyhow::{Context, Result, ensure};
use concertina_elastic::prompt::Word;
use concertina_formats::Tokenizer;

/// Pieces of a window, without `[CLS]` and `[SEP]`.
pub const WINDOW: usize = 510;

/// Words to pieces.
pub struct Pieces {
    tokenizer: Tokenizer,
    cls: u32,
    sep: u32,
}

/// A text as an encoder reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Pieces of each window, `[CLS]` first and `[SEP]` last. At least one window.
    pub windows: Vec<Vec<u32>>,
    /// Pieces of each word as a range over all pieces of the text, windows joined, without `[CLS]` and `[SEP]`.
    pub words: Vec<std::ops::Range<usize>>,
}

impl Pieces {
    /// From a `tokenizer.json`.
    ///
    /// # Errors
    /// If it is refused, or has no `[CLS]` and `[SEP]`.
    pub fn new(json: &[u8]) -> Result<Self> {
        let tokenizer = Tokenizer::from_json(json, None, None)?;
        let named = |text: &str| -> Result<u32> {
            let ids = tokenizer.encode(text, true)?;
            ensure!(ids.len() == 1, "the tokenizer has no {text}");
            ids.first().copied().context("no id")
        };
        Ok(Self { cls: named("[CLS]")?, sep: named("[SEP]")?, tokenizer })
    }

    /// The pieces of a text's words. Words are cut on their own: BERT's tokenizer cuts at white space first.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn read(&self, text: &str, words: &[Word]) -> Result<Read> {
        let mut pieces = Vec::new();
        let mut ranges = Vec::with_capacity(words.len());
        for word in words {
            let first = pieces.len();
            pieces.extend(self.tokenizer.encode(&text[word.text.clone()], false)?);
            ranges.push(first..pieces.len());
        }
        let window = |pieces: &[u32]| [&[self.cls], pieces, &[self.sep]].concat();
        let windows = if pieces.is_empty() { vec![window(&[])] } else { pieces.chunks(WINDOW).map(window).collect() };
        Ok(Read { windows, words: ranges })
    }
}
