//! A text through the encoder: words, pieces, windows, and what the heads say of them.

use concertina_elastic::prompt::{Word, words};
use web_time::{Duration, Instant};

use super::{EncoderFiles, Loaded, Target};
use crate::{Backend, Result};

/// What the encoder says of a text.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its words.
    pub words: Vec<Word>,
    /// Of each word, how much it matters: the mean of its pieces' logits. Negative infinity for a word of which the encoder
    /// sees nothing, such as control characters alone.
    pub scores: Vec<f32>,
    /// Levels for the target.
    pub decision: Decision,
    /// Word pieces of the text.
    pub pieces: usize,
    /// Windows that they were read in.
    pub windows: usize,
    /// Time that all of it took.
    pub time: Duration,
}

/// Logits of levels. Of a text in several windows, the mean over them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Of each of [`concertina_elastic::heads::Heads::prompt_levels`].
    pub prompt: Vec<f32>,
    /// Of each of [`concertina_elastic::heads::Heads::model_levels`].
    pub model: Vec<f32>,
}

/// Read a text.
pub(crate) async fn read(
    encoder: &Loaded,
    backend: &mut Backend,
    files: &EncoderFiles,
    text: &str,
    target: Target,
) -> Result<Encoded> {
    let begin = Instant::now();
    let (bert, words) = (&files.bert, words(text));
    // Each piece with its word. Words are cut on their own, as the heads' training does.
    let mut pieces: Vec<(u32, usize)> = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let ids = bert.tokenizer.encode(&text[word.text.clone()], false)?;
        pieces.extend(ids.into_iter().map(|id| (id, i)));
    }
    let (ttft, tpot) = files.target(target);
    let mut sums = vec![(0f64, 0usize); words.len()];
    let mut levels = vec![0f64; files.heads.prompt_levels.len() + files.heads.model_levels.len()];
    let windows = pieces.len().div_ceil(files.window()).max(1);
    for window in 0..windows {
        let pieces = pieces.iter().skip(window * files.window()).take(files.window());
        let ids = pieces.clone().map(|(id, _)| *id);
        let ids: Vec<u32> = [bert.cls].into_iter().chain(ids).chain([bert.sep]).collect();
        let rows = files.embedding.rows(bert, &ids)?;
        let logits = encoder.run(backend, &rows, ttft, tpot).await?;
        for ((_, word), logit) in pieces.zip(&logits.score[1..]) {
            sums[*word].0 += f64::from(*logit);
            sums[*word].1 += 1;
        }
        for (sum, logit) in levels.iter_mut().zip(&logits.levels) {
            *sum += f64::from(*logit) / windows as f64;
        }
    }
    let score = |(sum, count): &(f64, usize)| if *count > 0 { sum / *count as f64 } else { f64::NEG_INFINITY };
    let scores = sums.iter().map(|sum| score(sum) as f32).collect();
    let levels: Vec<f32> = levels.into_iter().map(|logit| logit as f32).collect();
    let (prompt, model) = levels.split_at(files.heads.prompt_levels.len());
    let decision = Decision { prompt: prompt.to_vec(), model: model.to_vec() };
    Ok(Encoded { words, scores, decision, pieces: pieces.len(), windows, time: begin.elapsed() })
}
