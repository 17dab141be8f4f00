//! Which words stay, and the text that they make.

use super::Word;

/// The words that stay, rising, when `percent` of the words may: as many as that are, rounded up, those with the best
/// scores. Words that `keep` marks always stay, even where they alone are more. Of equal scores the later one goes first:
/// what a prompt begins with frames the rest. A score that is no number is worse than all others.
///
/// `scores` and `keep` are as many as the words; what `keep` lacks is not marked, and a word without a score has none.
///
/// ```
/// use concertina_elastic::prompt::{join, shorten, words};
/// let text = "Answer briefly: what is the capital of France?";
/// let words = words(text);
/// let scores = [0.0, 0.1, 0.9, 0.2, 0.1, 0.8, 0.3, 1.0];
/// let kept = shorten(&words, &scores, 40, &[true]);
/// assert_eq!(join(text, &words, &kept), "Answer what capital France?");
/// ```
pub fn shorten(words: &[Word], scores: &[f32], percent: u32, keep: &[bool]) -> Vec<usize> {
    let room = (words.len() * percent.min(100) as usize).div_ceil(100);
    let marked = |i: usize| keep.get(i).copied().unwrap_or(false);
    let score = |i: usize| scores.get(i).copied().filter(|s| !s.is_nan());
    let (mut kept, mut others): (Vec<usize>, Vec<usize>) = (0..words.len()).partition(|i| marked(*i));
    // None is less than any number; a stable sort keeps the order of equals.
    others.sort_by(|a, b| score(*b).partial_cmp(&score(*a)).unwrap_or(std::cmp::Ordering::Equal));
    others.truncate(room.saturating_sub(kept.len()));
    kept.extend(others);
    kept.sort_unstable();
    kept
}

/// The text of the words `kept`, rising. Neighbours stay as they were. Between two words of which some were dropped stands
/// the white space that broke most lines, so that what stood on lines of their own still does.
///
/// # Panics
/// If the words are not those of the text, or `kept` names one that is not there.
pub fn join(text: &str, words: &[Word], kept: &[usize]) -> String {
    let mut joined = String::with_capacity(text.len());
    if let [first, ..] = kept {
        // White space before the first word of all stays with it.
        joined.push_str(if *first == 0 { &text[..words[0].text.start] } else { "" });
    }
    for (i, &word) in kept.iter().enumerate() {
        joined.push_str(&text[words[word].text.clone()]);
        let next = kept.get(i + 1).copied().unwrap_or(words.len());
        let breaks = |gap: &&str| gap.matches('\n').count();
        let gaps = words[word..next].iter().map(|word| &text[word.text.end..word.whole.end]);
        // The first of equals: that of the word itself, unless a line ended later.
        let gap = gaps.rev().max_by_key(breaks).unwrap_or_default();
        joined.push_str(gap);
    }
    joined
}
