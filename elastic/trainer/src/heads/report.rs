//! What prompt levels and the score head are worth on held-out prompts.

use anyhow::Result;
use concertina_elastic::heads::Heads;
use serde::Serialize;

use super::bench::{Bench, Order};
use super::encode::stored_scorer;
use super::grid::level;
use super::labels::{Labels, first_order, label_all};
use super::make::{encoded, score_head};
use super::prompts::Kind;
use super::reader::Reader;
use super::table::{Cell, Known, Table, measure};
use crate::minilm::MiniLm;
use crate::recover::package::restored;
use crate::stats::{Mean, mean, rank_correlation};
use crate::watch::Watch;

/// Prompt levels, and how well other values of words agree with the labels.
#[derive(Debug, Clone, Serialize)]
pub struct PromptReport {
    /// The table.
    pub cells: Vec<Cell>,
    /// Mean rank correlation with the effect of leaving a word out, over the words of a question that may be dropped.
    pub agreement: Vec<(&'static str, Mean)>,
}

/// Measure prompt levels on `count` held-out prompts.
///
/// # Errors
/// If the model or MiniLM is refused, or files cannot be written.
pub fn prompt_levels(order: &Order, count: usize, watch: &mut dyn Watch) -> Result<PromptReport> {
    let bench = Bench::open(order)?;
    let minilm = MiniLm::open(&order.minilm)?;
    let scored = score_head(&bench, &minilm, order, watch)?;
    let prompts = bench.held_out(count, Kind::Mixed);
    let labels = label_all(&bench, "labels-held-out", &prompts, 1, watch)?;
    let read = encoded(&minilm, prompts)?.into_iter().zip(labels);
    let known = |((prompt, encoded), labels)| Ok(Known { prompt, head: scored.scorer.ranking(&encoded)?, labels });
    let known = read.map(known).collect::<Result<Vec<Known>>>()?;
    let full = bench.net.full();
    let reader = Reader::new(&bench.net, &bench.model.tokenizer, &full, None)?;
    let cells = measure(&bench, &Table::of_prompts(), &scored.name, &reader, &known, watch)?;
    let agreement = |of: &dyn Fn(&Known) -> Vec<f32>| -> Mean {
        let one = |known: &Known| {
            let prompt = &known.prompt;
            let words: Vec<usize> = (prompt.question..prompt.words.len()).filter(|w| !prompt.keep[*w]).collect();
            let take = |values: &[f32]| words.iter().map(|w| values[*w]).collect::<Vec<f32>>();
            rank_correlation(&take(&known.labels.effect), &take(&of(known)))
        };
        mean(&known.iter().map(one).collect::<Vec<f64>>())
    };
    let agreement = vec![
        ("score head", agreement(&|known| known.head.clone())),
        ("gradient", agreement(&|known| known.labels.gradient.clone())),
        ("size of the gradient", agreement(&|known| known.labels.gradient.iter().map(|g| g.abs()).collect())),
        ("surprisal", agreement(&|known| known.labels.surprisal.clone())),
        ("place", agreement(&|known| (0..known.labels.effect.len()).map(|i| i as f32).collect())),
    ];
    Ok(PromptReport { cells, agreement })
}

/// Who reads what.
#[derive(Debug)]
pub struct Behind<'a> {
    /// The score head.
    pub heads: &'a Heads,
    /// Examples before each question, and which words may be dropped.
    pub kind: Kind,
    /// Held-out questions.
    pub count: usize,
    /// Level of the sub-model that answers.
    pub level: u32,
}

/// Measure prompt levels on held-out questions behind examples, with the score head of a heads file and a level of the model.
///
/// # Errors
/// As [`prompt_levels`], or if the heads are of another encoder or the package has no such level.
pub fn example_levels(order: &Order, what: &Behind<'_>, table: &Table, watch: &mut dyn Watch) -> Result<Vec<Cell>> {
    let bench = Bench::open(order)?;
    let minilm = MiniLm::open(&order.minilm)?;
    let scorer = stored_scorer(&minilm, what.heads)?;
    let (full, tokenizer) = (bench.net.full(), &bench.model.tokenizer);
    let reader = Reader::new(&bench.net, tokenizer, &full, None)?;
    let prompts = bench.held_out(what.count, what.kind);
    watch.begin("words of prompts", prompts.len());
    let mut known = Vec::with_capacity(prompts.len());
    for (prompt, encoded) in encoded(&minilm, prompts)? {
        let (gradient, surprisal) = match table.has("surprisal") {
            true => first_order(&reader, &bench.net, &prompt)?,
            false => (Vec::new(), Vec::new()),
        };
        let labels = Labels { effect: Vec::new(), gradient, surprisal, whole: 0.0 };
        known.push(Known { head: scorer.ranking(&encoded)?, prompt, labels });
        watch.step(known.len(), "");
    }
    let basis = format!("stored, {:?}, level {}", what.kind, what.level);
    if what.level == 100 {
        return measure(&bench, table, &basis, &reader, &known, watch);
    }
    let units = level(&bench, what.level)?;
    let stored = bench.package.adapters(what.level);
    let adapters = stored.map(|stored| restored(stored, full.len())).transpose()?;
    let reader = Reader::new(&bench.net, tokenizer, &units.layers, adapters.as_ref())?;
    measure(&bench, table, &basis, &reader, &known, watch)
}
