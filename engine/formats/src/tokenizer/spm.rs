//! SentencePiece's merging by scores.
//!
//! Two neighbouring symbols whose joint text is in the vocabulary may merge; the pair with the highest score of that
//! text goes first, the leftmost on ties. This is not the rule of the `tokenizers` crate, whose merges have distinct
//! ranks: many scores of real vocabularies are equal, and two ways to split one piece always tie. So the few lines are
//! here, and they need no list of merges, which for Gemma would be half a million pairs.
//!
//! Method: Kudo and Richardson, "SentencePiece", 2018; the order of merges is checked against llama.cpp's tokens.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::bytes;
use super::vocab::{Kind, Vocab};
use crate::{Error, Result};

/// Pieces with their scores.
pub(super) struct Pieces {
    by_text: HashMap<Box<str>, (u32, f32)>,
    byte_tokens: [Option<u32>; 256],
    unknown: Option<u32>,
    longest: usize,
    /// Put a space before the text, and before text that follows a token found in it.
    pub(super) add_space_prefix: bool,
}

struct Symbol {
    start: usize,
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Pieces {
    /// Pieces from texts, kinds (in `vocab`) and scores; one of each for each token.
    pub(super) fn new(
        texts: &[String],
        scores: &[f32],
        vocab: &Vocab,
        unknown: Option<u32>,
        add_space_prefix: bool,
    ) -> Result<Self> {
        let mut by_text = HashMap::with_capacity(texts.len());
        let mut byte_tokens = [None; 256];
        let mut longest = 0;
        for ((id, text), score) in vocab.ids().zip(texts).zip(scores) {
            if !score.is_finite() {
                return Err(Error::malformed("tokenizer.ggml.scores", format!("score {score} of token {id}")));
            }
            match vocab.get(id) {
                Some((Kind::Byte, &[byte])) => byte_tokens[usize::from(byte)] = Some(id),
                Some((kind, _)) if kind.is_spelled() => {
                    longest = longest.max(text.len());
                    // Adding zero makes -0 equal to 0.
                    by_text.insert(text.as_str().into(), (id, score + 0.0));
                }
                _ => {}
            }
        }
        Ok(Self { by_text, byte_tokens, unknown, longest, add_space_prefix })
    }

    /// Append the tokens of `text`, in which U+2581 stands for spaces. Time is O(n log n).
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                prev: index.checked_sub(1),
                next: Some(index + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut queue = BinaryHeap::new();
        for right in 1..symbols.len() {
            self.consider(text, &symbols, Some(right - 1), Some(right), &mut queue);
        }
        while let Some(pair) = queue.pop() {
            let (left, right) = (&symbols[pair.left], &symbols[pair.right]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue; // one of them has merged since
            }
            let next = right.next;
            symbols[pair.right].len = 0;
            symbols[pair.left].len = pair.len;
            symbols[pair.left].next = next;
            if let Some(next) = next {
                symbols[next].prev = Some(pair.left);
            }
            self.consider(text, &symbols, symbols[pair.left].prev, Some(pair.left), &mut queue);
            self.consider(text, &symbols, Some(pair.left), next, &mut queue);
        }
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            self.emit(text.get(symbol.start..symbol.start + symbol.len).unwrap_or_default(), out)?;
        }
        Ok(())
    }

    /// Queue the pair if its text is a piece.
    fn consider(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: Option<usize>,
        right: Option<usize>,
        queue: &mut BinaryHeap<Pair>,
    ) {
        let (Some(left), Some(right)) = (left, right) else {
            return;
        };
        let (start, len) = (symbols[left].start, symbols[left].len + symbols[right].len);
        if len > self.longest {
            return;
        }
        if let Some((_, score)) = text.get(start..start + len).and_then(|piece| self.by_text.get(piece)) {
            queue.push(Pair { score: *score, left, right, len });
        }
    }

    /// The token of a piece, or those of its bytes, or the unknown token.
    fn emit(&self, piece: &str, out: &mut Vec<u32>) -> Result<()> {
        if let Some((id, _)) = self.by_text.get(piece) {
            out.push(*id);
            return Ok(());
        }
        let before = out.len();
        out.extend(piece.bytes().map_while(|byte| self.byte_tokens[usize::from(byte)]));
        if out.len() - before == piece.len() {
            return Ok(());
        }
        out.truncate(before);
        match self.unknown {
            Some(unknown) => out.push(unknown),
            None => {
                return Err(Error::Tokenizer(format!("the vocabulary cannot spell {piece:?}")));
            }
        }
        Ok(())
    }
}

/// Text with spaces as the vocabulary spells them.
pub(super) fn escape(text: &str, space_first: bool) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    if space_first {
        out.push('\u{2581}');
    }
    for c in text.chars() {
        out.push(if c == ' ' { '\u{2581}' } else { c });
    }
    out
}

/// Whether `<0xNN>` tokens are typed as bytes in files that type them as ordinary: then they are bytes all the same.
pub(super) fn kind_of(text: &str, kind: Kind) -> Kind {
    if kind == Kind::Normal && bytes::byte_token(text).is_some() { Kind::Byte } else { kind }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}
