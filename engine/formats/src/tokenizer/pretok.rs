//! Cutting text into words before merging, by the name in `tokenizer.ggml.pre`.
//!
//! A pre-tokenizer is a list of expressions. Each one cuts the pieces that the one before it left into matches and the
//! gaps between them. The expressions are those that the models were trained with, as their authors and llama.cpp
//! publish them.

use std::ops::Range;

use tokenizers::utils::SysRegex;

use super::guard::wall;
use crate::{Error, Result};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A list of expressions, applied in turn.
pub(super) struct PreTokenizer {
    stages: Vec<SysRegex>,
    /// A word that is a token as a whole is that token, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether such models begin texts with BOS when their file does not say.
    pub(super) add_bos: bool,
}

impl PreTokenizer {
    /// The pre-tokenizer called `name` in GGUF.
    pub(super) fn named(name: &str) -> Result<Self> {
        let (patterns, llama): (&[&str], bool) = match name {
            "gpt-2" => (&[GPT2], false),
            // llama.cpp's rule for files that name none.
            "default" => (&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false),
            "smollm" => (&[r"\p{N}", GPT2], false),
            "qwen2" => (&[QWEN2], false),
            "llama-bpe" | "llama3" | "llama-v3" => (&[LLAMA3], true),
            other => {
                return Err(Error::Unsupported(format!("pre-tokenizer {other:?} (tokenizer.ggml.pre)")));
            }
        };
        let stages = patterns.iter().map(|pattern| wall("pre-tokenizer", || SysRegex::new(pattern)));
        Ok(Self { stages: stages.collect::<Result<_>>()?, whole_words: llama, add_bos: llama })
    }

    /// The words of `text` as byte ranges that cover it.
    ///
    /// The regex engine gives up on runs of whitespace of about a million characters; the rest of such a text stays
    /// one word.
    pub(super) fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words: Vec<Range<usize>> = std::iter::once(0..text.len()).collect();
        for stage in &self.stages {
            let mut next = Vec::with_capacity(words.len());
            for word in words {
                let Some(piece) = text.get(word.clone()) else {
                    continue;
                };
                let mut done = word.start;
                for (start, end) in stage.find_iter(piece) {
                    let (start, end) = (word.start + start, word.start + end);
                    if done < start {
                        next.push(done..start);
                    }
                    if start < end {
                        next.push(start..end);
                    }
                    done = end;
                }
                if done < word.end {
                    next.push(done..word.end);
                }
            }
            words = next;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        PreTokenizer::named(name).unwrap().words(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn words_of_each_kind() {
        let text = "I'LL pay 12345 USD,\n\n  it's ok";
        assert_eq!(cut("gpt-2", text), ["I", "'", "LL", " pay", " 12345", " USD", ",", "\n\n ", " it", "'s", " ok"]);
        assert_eq!(
            cut("smollm", text),
            ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", " USD", ",", "\n\n ", " it", "'s", " ok"]
        );
        assert_eq!(
            cut("qwen2", text),
            ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " USD", ",\n\n", " ", " it", "'s", " ok"]
        );
        assert_eq!(
            cut("llama-bpe", text),
            ["I", "'LL", " pay", " ", "123", "45", " USD", ",\n\n", " ", " it", "'s", " ok"]
        );
        assert_eq!(
            cut("default", text),
            ["I", "'", "LL", " pay", " ", "123", "45", " USD", ",", "\n\n ", " it", "'", "s", " ok"]
        );
    }

    #[test]
    fn words_cover_the_text() {
        let text = " \u{a0}\u{3000}漢字 — 🙂\u{200d}\r\n\t x9½ ";
        for name in ["gpt-2", "default", "smollm", "qwen2", "llama-bpe"] {
            assert_eq!(cut(name, text).concat(), text, "{name}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        assert!(matches!(PreTokenizer::named("tekken"), Err(Error::Unsupported(_))));
    }
}
