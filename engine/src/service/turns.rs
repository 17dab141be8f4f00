//! Turns of a conversation, as tokens.

use concertina_formats::{ChatMessage, Model};

use crate::Result;

/// A message that no template treats in a special way, in whose place others are found.
const STAND_IN: &str = "ABCXYZ";

/// The tokens that continue a context with a user's message. A context keeps tokens, not messages; what a template writes
/// between one message and the next is found by rendering a stand-in, and what of it the context ends with already is left
/// out.
pub fn turn(model: &Model, context: &[u32], message: &str) -> Result<Vec<u32>> {
    let of = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let Some(chat) = &model.chat else {
        return Ok(model.tokenizer.encode_prompt(message, false)?);
    };
    if context.is_empty() {
        return Ok(model.tokenizer.encode_prompt(&chat.render(&[of("user", message)], true)?, true)?);
    }
    let before = [of("user", STAND_IN), of("assistant", STAND_IN)];
    let closed = chat.render(&before, false)?;
    let whole = chat.render(&[&before[..], &[of("user", message)]].concat(), true)?;
    // Templates that look back (at the last message, at tools) may write the beginning anew: then the turn stands alone.
    let Some(next) = whole.strip_prefix(&closed) else {
        return Ok(model.tokenizer.encode_prompt(&chat.render(&[of("user", message)], true)?, true)?);
    };
    let close = closed.rfind(STAND_IN).map_or("", |at| &closed[at + STAND_IN.len()..]);
    let close = model.tokenizer.encode(close, true)?;
    let have = (0..=close.len()).rev().find(|n| context.ends_with(&close[..*n])).unwrap_or(0);
    let mut tokens = close[have..].to_vec();
    tokens.extend(model.tokenizer.encode(next, true)?);
    Ok(tokens)
}

/// Where to cut: the first `keep` tokens stay, and those from the second number on, such that at most `most` remain where
/// that can be. Turns end after tokens that end an answer; where there are none, anywhere.
pub fn cut(tokens: &[u32], keep: usize, most: usize, is_end: impl Fn(u32) -> bool) -> (usize, usize) {
    let keep = keep.min(tokens.len());
    let surplus = tokens.len().saturating_sub(most.max(keep));
    if surplus == 0 {
        return (keep, keep);
    }
    let least = keep + surplus;
    let ends = (least..tokens.len()).find(|at| is_end(tokens[at - 1]));
    (keep, ends.unwrap_or(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_turns_go_and_the_beginning_stays() {
        let end = |t: u32| t == 0;
        let tokens = [9, 9, 0, 1, 1, 0, 2, 2, 0, 3, 3];
        assert_eq!(cut(&tokens, 3, 8, end), (3, 6));
        assert_eq!(cut(&tokens, 3, 7, end), (3, 9));
        assert_eq!(cut(&tokens, 3, 11, end), (3, 3));
        assert_eq!(cut(&tokens, 3, 3, end), (3, 11), "no turn is left");
        assert_eq!(cut(&[1; 20], 2, 10, end), (2, 12), "where nothing ends, anywhere");
        assert_eq!(cut(&[], 5, 0, end), (0, 0));
    }
}
