//! Windows of tokens.

use anyhow::{Context, Result, ensure};
use concertina_formats::{ChatMessage, Model};

use super::texts::{Kind, Text};
use crate::random::Random;

/// Windows of one length, with their kinds.
#[derive(Debug, Clone)]
pub struct Windows {
    /// Tokens of each.
    pub tokens: usize,
    /// In random order, kinds mixed.
    pub all: Vec<(Kind, Vec<u32>)>,
}

/// Cut `count` windows of `tokens` tokens from `texts`: documents of one kind follow each other, with an end token between.
/// Kinds are mixed as `shares` say. Of the questions, half are put as a conversation where the model has a chat template.
///
/// # Errors
/// If there is not enough text.
pub fn windows(
    model: &Model,
    texts: &[Text],
    count: usize,
    tokens: usize,
    shares: [(Kind, f64); 3],
    seed: u64,
) -> Result<Windows> {
    let mut random = Random::new(seed);
    let mut all = Vec::new();
    for ((kind, _), wanted) in shares.into_iter().zip(dealt(count, shares.map(|(_, share)| share))) {
        let mut own: Vec<&Text> = texts.iter().filter(|text| text.kind == kind).collect();
        random.shuffle(&mut own);
        let mut stream = Vec::new();
        for (i, text) in own.into_iter().enumerate() {
            // A long document fills a few windows, not all of them.
            let document = encode(model, text, i % 2 == 0)?;
            let most = document.len().min(4 * tokens);
            stream.extend_from_slice(&document[..most]);
            if stream.len() >= wanted * tokens {
                break;
            }
        }
        ensure!(
            stream.len() >= wanted * tokens,
            "{} tokens of {}, and {} are needed",
            stream.len(),
            kind.name(),
            wanted * tokens
        );
        all.extend(stream.chunks_exact(tokens).take(wanted).map(|window| (kind, window.to_vec())));
    }
    random.shuffle(&mut all);
    Ok(Windows { tokens, all })
}

/// `count` dealt out by shares: `count` in all, though each is rounded.
fn dealt(count: usize, shares: [f64; 3]) -> [usize; 3] {
    let (mut sum, mut given) = (0.0, 0);
    shares.map(|share| {
        sum += share;
        let own = (count as f64 * sum).round() as usize - given;
        given += own;
        own
    })
}

fn encode(model: &Model, text: &Text, as_chat: bool) -> Result<Vec<u32>> {
    let tokenizer = &model.tokenizer;
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let mut ids = match (&text.answer, &model.chat) {
        (Some(answer), Some(chat)) if as_chat => {
            let rendered = chat.render(&[message("user", &text.text), message("assistant", answer)], false)?;
            return tokenizer.encode(&rendered, true).context("a conversation");
        }
        (Some(answer), _) => tokenizer.encode(&format!("{} {answer}", text.text), false)?,
        (None, _) => tokenizer.encode(&text.text, false)?,
    };
    ids.extend(tokenizer.eos());
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::dealt;

    #[test]
    fn as_many_windows_as_were_asked_for() {
        let of = |count| dealt(count, [0.4, 0.2, 0.4]);
        assert_eq!([1, 2, 8, 20].map(of), [[0, 1, 0], [1, 0, 1], [3, 2, 3], [8, 4, 8]]);
        for count in 0..500 {
            assert_eq!(of(count).iter().sum::<usize>(), count);
        }
    }
}
