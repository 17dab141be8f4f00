//! A text as words.

use std::ops::Range;

/// A word of a text, in bytes of that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word itself.
    pub text: Range<usize>,
    /// The word with the white space after it; the first word's also has what stands before it. These ranges follow each
    /// other without gaps and cover the text.
    pub whole: Range<usize>,
}

/// The words of `text`; none where there is only white space.
pub fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut begin = None;
    // One place more than there are characters, as if a space followed, so that the last word ends, too.
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (begin, c.is_whitespace()) {
            (None, false) => begin = Some(at),
            (Some(from), true) => {
                words.push(Word { text: from..at, whole: from..at });
                begin = None;
            }
            _ => {}
        }
    }
    let begins: Vec<usize> = words.iter().skip(1).map(|word| word.text.start).chain([text.len()]).collect();
    for (word, end) in words.iter_mut().zip(begins) {
        word.whole.end = end;
    }
    if let Some(first) = words.first_mut() {
        first.whole.start = 0;
    }
    words
}
