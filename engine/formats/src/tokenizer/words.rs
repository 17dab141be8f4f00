//! Byte-level BPE: words from the pre-tokenizer, spelled in GPT-2's alphabet, merged by the `tokenizers` crate.

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab as BpeVocab};

use super::bytes;
use super::guard::wall;
use super::pretok::PreTokenizer;
use crate::{Error, Result};

/// Pre-tokenizer and merges.
pub(super) struct Words {
    words: PreTokenizer,
    merges: BPE,
}

impl Words {
    /// From the ids of all texts that merging may give, and the merges in order of their rank, each `left right`.
    pub(super) fn new(words: PreTokenizer, ids: BpeVocab, merges: &[String], hidden: &BpeVocab) -> Result<Self> {
        let mut pairs = Vec::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let refuse = |problem: &str| {
                Error::malformed(format!("tokenizer.ggml.merges[{rank}]"), format!("{merge:?}: {problem}"))
            };
            // No spelling has a space in it.
            let (left, right) = merge.split_once(' ').ok_or_else(|| refuse("no space between two tokens"))?;
            let joint = format!("{left}{right}");
            if [left, right, &joint].iter().any(|text| hidden.contains_key(*text)) {
                continue; // would spell a control token
            }
            if let Some(missing) = [left, right, &joint].iter().find(|text| !ids.contains_key(**text)) {
                return Err(refuse(&format!("{missing:?} is not in the vocabulary")));
            }
            pairs.push((left.to_owned(), right.to_owned()));
        }
        let whole_words = words.whole_words;
        let merges = wall("byte-level BPE", || {
            BPE::builder()
                .vocab_and_merges(ids, pairs)
                // The crate's cache would keep words of users in every thread after the tokenizer is gone.
                .cache_capacity(0)
                .ignore_merges(whole_words)
                .build()
        })?;
        Ok(Self { words, merges })
    }

    /// Append the tokens of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        wall("encoding", || {
            for word in self.words.words(text) {
                let spelled = bytes::spell(text.get(word).unwrap_or_default());
                out.extend(self.merges.tokenize(&spelled)?.iter().map(|token| token.id));
            }
            Ok(())
        })
    }
}
