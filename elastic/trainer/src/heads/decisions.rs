//! What the decision head is worth on held-out questions, against other ways to pick a pair of levels.

use anyhow::Result;
use serde::Serialize;

use super::bench::{Bench, Order};
use super::decision::{Decider, Goal};
use super::grid::{Grid, Outcome, TPOT_TARGETS, TTFT_TARGETS, answer_all};
use super::make::{Answered, decision_head, encoded, score_head, training_questions};
use super::prompts::Kind;
use crate::minilm::MiniLm;
use crate::stats::{Mean, mean};
use crate::watch::Watch;

/// A way to pick pairs, over all targets.
#[derive(Debug, Clone, Serialize)]
pub struct Picks {
    /// The way.
    pub row: &'static str,
    /// Share of right answers. Questions are independent, the targets of one are not.
    pub accuracy: Mean,
    /// By how much the decision head's is higher, question by question.
    pub behind_head: Mean,
    /// Mean share of the whole prefill that it takes.
    pub prefill: f64,
    /// By target in percent: TTFT, TPOT, accuracy.
    pub targets: Vec<(u32, u32, f64)>,
}

/// Ways to pick.
const ROWS: [&str; 6] = [
    "decision head",
    "decision head, taught the lightest",
    "best fixed pair",
    "heaviest pair",
    "any feasible pair",
    "oracle",
];

/// What a pick came to.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    right: f64,
    prefill: f64,
}

/// Measure on `count` held-out questions.
///
/// # Errors
/// If the model, its package or MiniLM is refused, or files cannot be written.
pub fn decisions(order: &Order, count: usize, watch: &mut dyn Watch) -> Result<Vec<Picks>> {
    let bench = Bench::open(order)?;
    let minilm = MiniLm::open(&order.minilm)?;
    let scored = score_head(&bench, &minilm, order, watch)?;
    let grid = Grid::new(&bench)?;
    let train = training_questions(&bench, &minilm, order, &scored, watch)?;
    let mut deciders = Vec::new();
    for goal in [Goal::Right, Goal::Lightest] {
        let (decider, _) = decision_head(&bench, &minilm, order, &grid, &train, goal, watch)?;
        deciders.push(Decider::restored(&decider.stored()?, minilm.heads)?);
    }
    let read = encoded(&minilm, bench.held_out(count, Kind::Mixed))?;
    let outcomes = answer_all(&bench, "pairs-held-out", &scored.name, &scored.scorer, &read, watch)?;
    let held_out = Answered { read, outcomes };
    let mut by_target = Vec::new();
    for target in Grid::targets() {
        by_target.push(at_target(&grid, &deciders, &train.outcomes, &held_out, target)?);
    }
    Ok(summed(&by_target, held_out.read.len()))
}

/// What every row's pick came to: question by question, for one target.
fn at_target(
    grid: &Grid,
    deciders: &[Decider],
    train: &[Outcome],
    held_out: &Answered,
    target: (usize, usize),
) -> Result<Vec<[Came; ROWS.len()]>> {
    let feasible = grid.feasible(TTFT_TARGETS[target.0], TPOT_TARGETS[target.1]);
    // Chosen on training questions: the most right answers, and the lightest of equals.
    let score = |pair: usize| train.iter().filter(|outcome| outcome.right[pair]).count();
    let best = feasible.iter().map(|i| score(*i)).max().unwrap_or(0);
    let fixed = grid.lightest(feasible.iter().copied().filter(|i| score(*i) == best));
    let heaviest = feasible.iter().copied().max_by(|a, b| grid.ttft[*a].total_cmp(&grid.ttft[*b]));
    let mut found = Vec::with_capacity(held_out.read.len());
    for ((_, encoded), outcome) in held_out.read.iter().zip(&held_out.outcomes) {
        let of = |pair: Option<usize>| {
            let came = |pair: usize| Came { right: f64::from(u8::from(outcome.right[pair])), prefill: grid.ttft[pair] };
            pair.map(came).unwrap_or_default()
        };
        let n = feasible.len().max(1) as f64;
        let sum = |part: fn(&Came) -> f64| feasible.iter().map(|i| part(&of(Some(*i)))).sum::<f64>() / n;
        let right = grid.lightest(feasible.iter().copied().filter(|i| outcome.right[*i]));
        let picked = deciders.iter().map(|decider| Ok(of(decider.picks(encoded, target, &feasible)?)));
        let picked: Vec<Came> = picked.collect::<Result<_>>()?;
        found.push([
            picked[0],
            picked[1],
            of(fixed),
            of(heaviest),
            Came { right: sum(|c| c.right), prefill: sum(|c| c.prefill) },
            of(right.or_else(|| grid.lightest(feasible.iter().copied()))),
        ]);
    }
    Ok(found)
}

/// Rows over all targets.
fn summed(by_target: &[Vec<[Came; ROWS.len()]>], questions: usize) -> Vec<Picks> {
    let targets: Vec<(u32, u32)> = Grid::targets().map(|(a, b)| (TTFT_TARGETS[a], TPOT_TARGETS[b])).collect();
    let share = |sum: f64, of: usize| sum / of.max(1) as f64;
    // By question: the mean over targets.
    let by_question = |row: usize| -> Vec<f64> {
        let of = |q: usize| share(by_target.iter().map(|t| t[q][row].right).sum(), by_target.len());
        (0..questions).map(of).collect()
    };
    let head = by_question(0);
    let picks = |(i, row): (usize, &'static str)| {
        let own = by_question(i);
        let lead: Vec<f64> = head.iter().zip(&own).map(|(h, o)| h - o).collect();
        let prefill = by_target.iter().flatten().map(|rows| rows[i].prefill).sum();
        let accuracy = |t: &Vec<[Came; ROWS.len()]>| share(t.iter().map(|rows| rows[i].right).sum(), t.len());
        Picks {
            row,
            accuracy: mean(&own),
            behind_head: mean(&lead),
            prefill: share(prefill, by_target.len() * questions),
            targets: targets.iter().zip(by_target).map(|((a, b), t)| (*a, *b, accuracy(t))).collect(),
        }
    };
    ROWS.into_iter().enumerate().map(picks).collect()
}

/// As text.
pub fn text(picks: &[Picks]) -> String {
    let mut out = String::from("| | right, % | the head has more, points | prefill, % |\n|---|---|---|---|\n");
    for p in picks {
        let percent = |m: Mean| format!("{:.1} ± {:.1}", m.mean * 100.0, m.within * 100.0);
        let (accuracy, lead) = (percent(p.accuracy), percent(p.behind_head));
        out.push_str(&format!("| {} | {accuracy} | {lead} | {:.0} |\n", p.row, p.prefill * 100.0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_questions_and_targets() {
        let came = |right: f64| Came { right, prefill: 0.5 };
        let rows = |head: f64, fixed: f64| [came(head), came(fixed), came(fixed), came(0.0), came(0.25), came(1.0)];
        let by_target = vec![vec![rows(1.0, 0.0), rows(1.0, 1.0)], vec![rows(0.0, 0.0), rows(1.0, 1.0)]];
        let found = summed(&by_target, 2);
        assert_eq!((found[0].accuracy.mean, found[1].accuracy.mean), (0.75, 0.5));
        assert_eq!((found[1].behind_head.mean, found[5].behind_head.mean), (0.25, -0.25));
        assert_eq!((found[0].prefill, found[0].targets[1].2), (0.5, 0.5));
        assert!(text(&found).contains("| oracle | 100.0 ± 0.0 |"));
    }
}
