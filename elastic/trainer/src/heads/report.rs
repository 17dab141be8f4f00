//! What prompt levels and the score head are worth on held-out prompts.

use anyhow::Result;
use serde::Serialize;

use super::bench::{Bench, Order};
use super::labels::{Labels, label_all};
use super::make::{encoded, score_head};
use super::prompts::Prompt;
use super::table::{Cell, measure};
use crate::minilm::MiniLm;
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
    let prompts = bench.held_out(count);
    let labels = label_all(&bench, "labels-held-out", &prompts, 1, watch)?;
    let read = encoded(&minilm, prompts)?;
    let cells = measure(&bench, &scored.name, &scored.scorer, &read, &labels, watch)?;
    let mut head = Vec::new();
    for (_, encoded) in &read {
        head.push(scored.scorer.ranking(encoded)?);
    }
    let agreement = |of: &dyn Fn(usize, &Labels) -> Vec<f32>| -> Mean {
        let one = |(i, ((prompt, _), labels)): (usize, (&(Prompt, _), &Labels))| {
            let words: Vec<usize> = (prompt.question..prompt.words.len()).filter(|w| !prompt.keep[*w]).collect();
            let take = |values: &[f32]| words.iter().map(|w| values[*w]).collect::<Vec<f32>>();
            rank_correlation(&take(&labels.effect), &take(&of(i, labels)))
        };
        mean(&read.iter().zip(&labels).enumerate().map(one).collect::<Vec<f64>>())
    };
    let agreement = vec![
        ("score head", agreement(&|i, _| head[i].clone())),
        ("gradient", agreement(&|_, labels| labels.gradient.clone())),
        ("size of the gradient", agreement(&|_, labels| labels.gradient.iter().map(|g| g.abs()).collect())),
        ("surprisal", agreement(&|_, labels| labels.surprisal.clone())),
        ("place", agreement(&|_, labels| (0..labels.effect.len()).map(|i| i as f32).collect())),
    ];
    Ok(PromptReport { cells, agreement })
}
