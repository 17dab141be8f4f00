//! What the heads are worth on held-out questions.

use anyhow::Result;
use serde::Serialize;

use super::bench::{Bench, Order};
use super::decision::Decider;
use super::grid::{Grid, Outcome, TPOT_TARGETS, TTFT_TARGETS, answer_all};
use super::labels::{Labels, label_all};
use super::make::{decision_head, encoded, score_head, training_questions};
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
        head.push(scored.scorer.scores(encoded)?.to_vec1::<f32>()?);
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

/// A way to pick pairs.
#[derive(Debug, Clone, Serialize)]
pub struct Picks {
    /// The way.
    pub row: &'static str,
    /// Share of right answers over all targets. Questions are independent, the targets of one are not.
    pub accuracy: Mean,
    /// By how much the decision head's accuracy is higher.
    pub behind_head: Mean,
    /// Mean share of the whole prefill that it takes.
    pub ttft: f64,
    /// By target: TTFT, TPOT, accuracy.
    pub targets: Vec<(u32, u32, f64)>,
}

/// Measure decisions on `count` held-out questions.
///
/// # Errors
/// If the model, its package or MiniLM is refused, or files cannot be written.
pub fn decisions(order: &Order, count: usize, watch: &mut dyn Watch) -> Result<Vec<Picks>> {
    let bench = Bench::open(order)?;
    let minilm = MiniLm::open(&order.minilm)?;
    let scored = score_head(&bench, &minilm, order, watch)?;
    let grid = Grid::new(&bench)?;
    let (train_read, train) = training_questions(&bench, &minilm, order, &scored, watch)?;
    let (decider, _) = decision_head(&bench, &minilm, order, &grid, (&train_read, &train), watch)?;
    let decider = Decider::restored(&decider.stored()?, minilm.heads)?;
    let read = encoded(&minilm, bench.held_out(count))?;
    let outcomes = answer_all(&bench, "pairs-held-out", &scored.name, &scored.scorer, &read, watch)?;
    let mut rows: Vec<(&'static str, Vec<Vec<(f64, f64)>>)> =
        ["decision head", "best fixed pair", "heaviest pair", "any feasible pair", "oracle"]
            .map(|r| (r, vec![]))
            .into();
    for target in Grid::targets() {
        let feasible = grid.feasible(TTFT_TARGETS[target.0], TPOT_TARGETS[target.1]);
        let right = |outcome: &Outcome, pair: usize| f64::from(u8::from(outcome.right[pair]));
        // Chosen on training questions: the most right answers, and the lightest of equals.
        let score = |pair: usize| train.iter().map(|o| right(o, pair)).sum::<f64>();
        let best = feasible.iter().map(|i| score(*i)).fold(0.0, f64::max);
        let fixed = grid.lightest(feasible.iter().copied().filter(|i| score(*i) == best)).unwrap_or(0);
        let by_cost = |a: &&usize, b: &&usize| grid.ttft[**a].total_cmp(&grid.ttft[**b]);
        let heaviest = *feasible.iter().max_by(by_cost).unwrap_or(&0);
        let mut found = vec![Vec::new(); rows.len()];
        for ((_, encoded), outcome) in read.iter().zip(&outcomes) {
            let picked = decider.picks(encoded, target, &feasible)?.unwrap_or(fixed);
            let n = feasible.len().max(1) as f64;
            let any = feasible.iter().map(|i| right(outcome, *i)).sum::<f64>() / n;
            let any_cost = feasible.iter().map(|i| grid.ttft[*i]).sum::<f64>() / n;
            let oracle = grid.lightest(feasible.iter().copied().filter(|i| outcome.right[*i]));
            let of = |pair: usize| (right(outcome, pair), grid.ttft[pair]);
            found[0].push(of(picked));
            found[1].push(of(fixed));
            found[2].push(of(heaviest));
            found[3].push((any, any_cost));
            found[4].push(oracle.or_else(|| grid.lightest(feasible.iter().copied())).map_or((0.0, 0.0), of));
        }
        rows.iter_mut().zip(found).for_each(|((_, all), found)| all.push(found));
    }
    // By question: the mean over targets.
    let targets: Vec<(u32, u32)> = Grid::targets().map(|(a, b)| (TTFT_TARGETS[a], TPOT_TARGETS[b])).collect();
    let by_question = |all: &[Vec<(f64, f64)>]| -> Vec<f64> {
        (0..read.len()).map(|q| all.iter().map(|t| t[q].0).sum::<f64>() / all.len() as f64).collect()
    };
    let head = by_question(&rows[0].1);
    let picks = rows.iter().map(|(row, all)| {
        let own = by_question(all);
        let lead: Vec<f64> = head.iter().zip(&own).map(|(h, o)| h - o).collect();
        let costs: Vec<f64> = all.iter().flatten().map(|(_, cost)| *cost).collect();
        let accuracy = |t: &Vec<(f64, f64)>| t.iter().map(|(r, _)| r).sum::<f64>() / t.len().max(1) as f64;
        Picks {
            row,
            accuracy: mean(&own),
            behind_head: mean(&lead),
            ttft: mean(&costs).mean,
            targets: targets.iter().zip(all).map(|((a, b), t)| (*a, *b, accuracy(t))).collect(),
        }
    });
    Ok(picks.collect())
}

/// Decisions as text.
pub fn decisions_text(picks: &[Picks]) -> String {
    let mut out = String::from("| | right, % | the head has more, points | prefill, % |\n|---|---|---|---|\n");
    for p in picks {
        let percent = |m: Mean| format!("{:.1} ± {:.1}", m.mean * 100.0, m.within * 100.0);
        out.push_str(&format!(
            "| {} | {} | {} | {:.0} |\n",
            p.row,
            percent(p.accuracy),
            percent(p.behind_head),
            p.ttft * 100.0
        ));
    }
    out
}
