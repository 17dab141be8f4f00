//! Prompts as the frozen bottom of the encoder leaves them.

use anyhow::Result;
use candle_core::{Device, Tensor};
use concertina_elastic::prompt::Word;

use super::prompts::Prompt;
use crate::minilm::MiniLm;

/// Layers of MiniLM that both heads share, frozen. A head's own layer begins as the next.
pub const BOTTOM: usize = 3;

/// A prompt's rows before the heads.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `(pieces, dim)` of each window, `[CLS]` first and `[SEP]` last.
    pub windows: Vec<Tensor>,
    /// `(words, pieces)`: the mean over each word's pieces. `[CLS]` and `[SEP]` are not among these pieces. A word without
    /// pieces has a row of zeros.
    pub means: Tensor,
    /// Words without pieces: characters that BERT's tokenizer drops.
    pub bare: Vec<usize>,
}

impl Encoded {
    /// Read a prompt.
    ///
    /// # Errors
    /// If the tokenizer or candle refuses.
    pub fn new(minilm: &MiniLm, prompt: &Prompt) -> Result<Self> {
        Self::of(minilm, &prompt.text, &prompt.words)
    }

    /// Read a text.
    ///
    /// # Errors
    /// As [`Encoded::new`].
    pub fn of(minilm: &MiniLm, text: &str, words: &[Word]) -> Result<Self> {
        let read = minilm.pieces.read(text, words)?;
        let windows: Vec<Tensor> = read.windows.iter().map(|w| minilm.rows(w, BOTTOM)).collect::<Result<_>>()?;
        let pieces: usize = read.windows.iter().map(|window| window.len() - 2).sum();
        let mut means = vec![0f32; read.words.len() * pieces];
        for (row, range) in means.chunks_mut(pieces.max(1)).zip(&read.words) {
            row[range.clone()].fill(1.0 / range.len().max(1) as f32);
        }
        let bare = (0..read.words.len()).filter(|i| read.words[*i].is_empty()).collect();
        Ok(Self { windows, bare, means: Tensor::from_vec(means, (read.words.len(), pieces), &Device::Cpu)? })
    }

    /// Many prompts.
    ///
    /// # Errors
    /// As [`Encoded::new`].
    pub fn all(minilm: &MiniLm, prompts: &[Prompt]) -> Result<Vec<Self>> {
        prompts.iter().map(|prompt| Self::new(minilm, prompt)).collect()
    }
}
