//! Questions as tokens, and which choice is the likeliest.

use anyhow::{Context, Result, ensure};
use concertina::Engine;
use concertina::formats::Tokenizer;
use concertina::service::ContextId;

use super::super::kept::Kept;
use crate::data::choices::Question;

/// A question as the model reads it.
#[derive(Debug)]
pub struct Asked {
    pub id: u64,
    pub gold: usize,
    choices: Vec<Tokens>,
}

/// Context and choice in one sequence.
#[derive(Debug, PartialEq, Eq)]
struct Tokens {
    all: Vec<u32>,
    /// Index of the first token of the choice.
    first: usize,
    /// Bytes of the choice as the file has it.
    bytes: usize,
}

/// What the model says of a question.
#[derive(Debug)]
pub struct Verdict {
    /// Likeliest choice.
    pub choice: usize,
    /// Likeliest choice per byte.
    pub choice_norm: usize,
    /// Of each choice, in nats.
    pub loglikelihood: Vec<f64>,
    pub tokens: Vec<usize>,
    pub bytes: Vec<usize>,
}

/// All questions as tokens; `most` is how many the model reads.
pub fn tokenise(tokenizer: &Tokenizer, questions: &[Question], most: usize) -> Result<Vec<Asked>> {
    let one = |question: &Question| {
        let mut choices = Vec::new();
        for (index, choice) in question.choices.iter().enumerate() {
            let at = || format!("question {}, choice {index}", question.id);
            let tokens = split(tokenizer, &choice.context, &choice.continuation).with_context(at)?;
            let count = tokens.all.len();
            ensure!(count <= most, "{}: {count} tokens, and this model reads at most {most}", at());
            choices.push(tokens);
        }
        Ok(Asked { id: question.id, gold: question.gold, choices })
    };
    questions.iter().map(one).collect()
}

/// Tokens of the longest choice with its context.
pub fn longest(asked: &[Asked]) -> usize {
    asked.iter().flat_map(|question| &question.choices).map(|choice| choice.all.len()).max().unwrap_or(1)
}

/// The split of lm-evaluation-harness (`_encode_pair`): spaces at the end of the context go to the continuation, and
/// the continuation's tokens are those of both after as many as the context alone has.
fn split(tokenizer: &Tokenizer, context: &str, continuation: &str) -> Result<Tokens> {
    let kept = context.trim_end();
    let all = tokenizer.encode_prompt(&format!("{context}{continuation}"), false)?;
    let alone = tokenizer.encode_prompt(kept, false)?;
    let (all, first) = if alone.is_empty() {
        let start = tokenizer.eos().context("the context is empty, and the model has no token to begin with")?;
        ([vec![start], all].concat(), 1)
    } else {
        (all, alone.len())
    };
    ensure!(first < all.len(), "the continuation adds no token of its own to the context");
    Ok(Tokens { all, first, bytes: continuation.len() })
}

/// Where choices are scored.
pub enum Place {
    /// On their own, at a level.
    Alone(Box<Engine>, u32),
    /// Behind a context that all questions share.
    Behind(Box<Kept>, ContextId),
}

impl Place {
    /// Negative log-likelihoods of each choice's tokens; what choices share is computed once.
    fn nll(&mut self, question: &Asked) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Alone(engine, level) => {
                let mut context = engine.context()?;
                let one = |c: &Tokens| Ok(pollster::block_on(engine.nll_in(&mut context, &c.all, c.first, *level))?);
                question.choices.iter().map(one).collect()
            }
            Self::Behind(kept, id) => {
                let texts: Vec<(&[u32], usize)> = question.choices.iter().map(|c| (&c.all[..], c.first)).collect();
                kept.nll_behind(*id, &texts)
            }
        }
    }
}

/// Score every choice.
pub fn verdict(place: &mut Place, question: &Asked) -> Result<Verdict> {
    let mut loglikelihood = Vec::new();
    for nll in place.nll(question)? {
        let sum = -nll.iter().map(|v| f64::from(*v)).sum::<f64>();
        ensure!(sum.is_finite(), "the model's likelihoods for question {} are not numbers", question.id);
        loglikelihood.push(sum);
    }
    let per_byte: Vec<f64> =
        loglikelihood.iter().zip(&question.choices).map(|(sum, c)| sum / c.bytes.max(1) as f64).collect();
    Ok(Verdict {
        choice: greatest(&loglikelihood),
        choice_norm: greatest(&per_byte),
        loglikelihood,
        tokens: question.choices.iter().map(|c| c.all.len() - c.first).collect(),
        bytes: question.choices.iter().map(|c| c.bytes).collect(),
    })
}

/// Index of the greatest value, the first of equal ones.
fn greatest(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use concertina::formats::{MemorySource, Model, open_gguf, testing::TinyModel};

    use super::*;

    fn model() -> Model {
        open_gguf(Box::new(MemorySource(TinyModel::new("llama").gguf()))).unwrap()
    }

    #[test]
    fn the_boundary_is_that_of_the_harness() {
        let tokenizer = model().tokenizer;
        let plain = split(&tokenizer, "x:", " the").unwrap();
        assert_eq!(tokenizer.decode(&plain.all[plain.first..]).unwrap(), " the");
        assert_eq!((plain.all.len() - plain.first, plain.bytes), (1, 4));
        // A space at the end of the context is scored with the choice: ` the` is one token.
        let moved = split(&tokenizer, "x: ", "the").unwrap();
        assert_eq!((moved.all, moved.first, moved.bytes), (plain.all, plain.first, 3));
        let empty = split(&tokenizer, "", "the").unwrap();
        assert_eq!(empty.first, 1);
        assert!(split(&tokenizer, "x", "").is_err());
    }

    #[test]
    fn the_first_of_equal_choices_is_taken() {
        assert_eq!(greatest(&[-2.0, -1.0, -1.0, -3.0]), 1);
        assert_eq!(greatest(&[-1.0]), 0);
    }
}
