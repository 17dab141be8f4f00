//! Questions whose choices stand on lines of their own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Choice, Question};

/// From this `doc_id` on, questions are repeated without their text.
const FIRST_UNCONDITIONED: u64 = 1_000_000;

#[derive(Debug, Deserialize)]
pub struct Request {
    request: Texts,
    doc_id: u64,
    idx: usize,
    /// The index of the right choice. Tasks that are not multiple choice have other things here.
    label: Value,
}

#[derive(Debug, Deserialize)]
struct Texts {
    context: String,
    continuation: String,
}

/// The questions seen so far, by `doc_id`.
#[derive(Debug, Default)]
pub struct Requests {
    docs: BTreeMap<u64, Doc>,
}

#[derive(Debug)]
struct Doc {
    gold: usize,
    choices: BTreeMap<usize, Choice>,
}

impl Requests {
    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }

    pub fn add(&mut self, request: Request) -> Result<()> {
        let Request { request: texts, doc_id, idx, label } = request;
        if doc_id >= FIRST_UNCONDITIONED {
            return Ok(());
        }
        let gold = label.as_u64().and_then(|label| usize::try_from(label).ok()).with_context(|| {
            let label: String = label.to_string().chars().take(40).collect();
            format!("`label` is not the index of a choice but {label}: this task is not multiple choice")
        })?;
        ensure!(!texts.continuation.is_empty(), "`continuation` is empty");
        let doc = self.docs.entry(doc_id).or_insert_with(|| Doc { gold, choices: BTreeMap::new() });
        ensure!(doc.gold == gold, "`label` is {gold}, but an earlier line of doc_id {doc_id} says {}", doc.gold);
        let choice = Choice { context: texts.context, continuation: texts.continuation };
        if doc.choices.insert(idx, choice).is_some() {
            bail!("doc_id {doc_id} has the choice {idx} twice");
        }
        Ok(())
    }

    /// The questions in the order of their `doc_id`, their choices in the order of `idx`.
    pub fn questions(self) -> Result<Vec<Question>> {
        let question = |(id, doc): (u64, Doc)| {
            let count = doc.choices.len();
            ensure!(count >= 2, "doc_id {id} has only {count} choice: this task is not multiple choice");
            ensure!(
                doc.choices.keys().copied().eq(0..count),
                "doc_id {id} lacks a choice: their `idx` must be 0, 1, 2, ..."
            );
            ensure!(doc.gold < count, "doc_id {id} has the `label` {}, but only {count} choices", doc.gold);
            Ok(Question { id, choices: doc.choices.into_values().collect(), gold: doc.gold })
        };
        self.docs.into_iter().map(question).collect()
    }
}
