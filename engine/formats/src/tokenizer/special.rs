//! Finding the tokens that are matched in the text before it is cut into words.

use aho_corasick::{AhoCorasick, MatchKind};

use super::vocab::{Kind, Vocab};
use crate::{Error, Result};

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Text to be encoded.
    Text(&'t str),
    /// A token that was found in the text.
    Token(u32),
}

/// Matchers for user-defined tokens (always matched) and for these with control tokens (matched on request).
pub(super) struct Specials {
    always: Matcher,
    on_request: Matcher,
}

struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Specials {
    /// The matchers of a vocabulary.
    pub(super) fn new(vocab: &Vocab) -> Result<Self> {
        let always = Matcher::new(vocab, |kind| kind == Kind::UserDefined)?;
        let on_request = Matcher::new(vocab, |kind| matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown))?;
        Ok(Self { always, on_request })
    }

    /// Cut `text` at the tokens in it: leftmost first, the longest of those that begin there. Linear in the text.
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Part<'t>> {
        if parse_special { self.on_request.split(text) } else { self.always.split(text) }
    }
}

impl Matcher {
    fn new(vocab: &Vocab, wanted: impl Fn(Kind) -> bool) -> Result<Self> {
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for id in vocab.ids() {
            if let Some((kind, bytes)) = vocab.get(id)
                && wanted(kind)
                && !bytes.is_empty()
            {
                ids.push(id);
                texts.push(bytes);
            }
        }
        if ids.is_empty() {
            return Ok(Self { automaton: None, ids });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| Error::Tokenizer(format!("matcher of special tokens: {error}")))?;
        Ok(Self { automaton: Some(automaton), ids })
    }

    fn split<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut done = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            // Both texts are UTF-8, so matches begin and end between characters.
            let (Some(before), Some(id)) = (text.get(done..found.start()), self.ids.get(found.pattern().as_usize()))
            else {
                continue;
            };
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Token(*id));
            done = found.end();
        }
        match text.get(done..) {
            Some(rest) if !rest.is_empty() => parts.push(Part::Text(rest)),
            _ => {}
        }
        parts
    }
}
