//! What prompt levels cost, by the way in which words are chosen.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::encoded::Encoded;
use super::labels::Labels;
use super::prompts::Prompt;
use super::reader::{Answers, Reader};
use super::score::Scorer;
use crate::random::Random;
use crate::stats::{Mean, mean};
use crate::watch::Watch;

/// Prompt levels of the table, beside 100.
pub const LEVELS: [u32; 4] = [80, 60, 40, 20];
/// Ways to choose words.
pub const ROWS: [&str; 5] = ["score head", "oracle", "random", "truncation", "surprisal"];

/// Answers after the whole prompt, then by row and level.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Found {
    all: Vec<Answers>,
}

/// A cell.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Way in which words were chosen; `whole` is no choice.
    pub row: &'static str,
    /// Prompt level.
    pub level: u32,
    /// Examples before the question; none: both kinds of prompts together.
    pub examples: Option<usize>,
    /// Prompts.
    pub prompts: usize,
    /// Share of right answers.
    pub accuracy: Mean,
    /// Rise of the surprise at the right answer over the whole prompt's, in nats.
    pub rise: Mean,
    /// By how much the score head's rise is less, prompt by prompt.
    pub behind_head: Mean,
    /// Mean tokens that were read, of the whole prompt's.
    pub tokens: f64,
}

/// Scores of a prompt's words by a row. Higher is kept.
fn scores(row: &str, prompt: &Prompt, labels: &Labels, head: &[f32], seed: u64) -> Vec<f32> {
    let n = prompt.words.len();
    match row {
        "score head" => head.to_vec(),
        "oracle" => labels.effect.clone(),
        "random" => {
            let mut random = Random::new(seed);
            (0..n).map(|_| random.unit() as f32).collect()
        }
        "truncation" => (0..n).map(|i| i as f32).collect(),
        _ => labels.surprisal.clone(),
    }
}

/// Measure; prompts that are in the records already are taken from there.
///
/// # Errors
/// If the model refuses, or the records cannot be written.
pub fn measure(
    bench: &Bench,
    head: &str,
    scorer: &Scorer,
    read: &[(Prompt, Encoded)],
    labels: &[Labels],
    watch: &mut dyn Watch,
) -> Result<Vec<Cell>> {
    let mut records = bench.records::<Found>("prompts", &format!("score head {head}"))?;
    let full = bench.net.full();
    let reader = Reader::new(&bench.net, &bench.model.tokenizer, &full, None)?;
    watch.begin("held-out prompts, shortened", read.len());
    for (i, ((prompt, encoded), labels)) in read.iter().zip(labels).enumerate().skip(records.found.len()) {
        let head = scorer.ranking(encoded)?;
        let mut texts = vec![prompt.text.clone()];
        for row in ROWS {
            let scores = scores(row, prompt, labels, &head, i as u64);
            texts.extend(LEVELS.map(|level| prompt.shortened(&scores, level)));
        }
        records.add(Found { all: reader.answers(prompt, &texts)? })?;
        watch.step(i + 1, "");
    }
    let found: Vec<(&Prompt, &Found)> = read.iter().map(|(prompt, _)| prompt).zip(&records.found).collect();
    Ok([None, Some(0), Some(2)].into_iter().flat_map(|examples| cells(&found, examples)).collect())
}

fn cells(found: &[(&Prompt, &Found)], examples: Option<usize>) -> Vec<Cell> {
    let own: Vec<_> = found.iter().filter(|(p, _)| examples.is_none_or(|n| p.examples == n)).collect();
    let rise = |prompt: &Prompt, found: &Found, at: usize| {
        found.all[at].surprise[prompt.right] - found.all[0].surprise[prompt.right]
    };
    let cell = |row: &'static str, level: u32, at: usize, head: usize| {
        let over = |of: &dyn Fn(&Prompt, &Found) -> f64| own.iter().map(|(p, f)| of(p, f)).collect::<Vec<f64>>();
        Cell {
            row,
            level,
            examples,
            prompts: own.len(),
            accuracy: mean(&over(&|p, f| f64::from(u8::from(f.all[at].right(p))))),
            rise: mean(&over(&|p, f| rise(p, f, at))),
            behind_head: mean(&over(&|p, f| rise(p, f, at) - rise(p, f, head))),
            tokens: mean(&over(&|_, f| f.all[at].tokens as f64 / f.all[0].tokens as f64)).mean,
        }
    };
    let mut cells = vec![cell("whole", 100, 0, 0)];
    for (r, row) in ROWS.into_iter().enumerate() {
        for (l, level) in LEVELS.into_iter().enumerate() {
            cells.push(cell(row, level, 1 + r * LEVELS.len() + l, 1 + l));
        }
    }
    cells
}

/// As text: for each kind of prompts, accuracy, then the rise of the surprise, then the score head's lead.
pub fn text(cells: &[Cell]) -> String {
    let mut out = String::new();
    for examples in [None, Some(0), Some(2)] {
        let own: Vec<&Cell> = cells.iter().filter(|cell| cell.examples == examples).collect();
        let Some(whole) = own.first() else { continue };
        let kind = match examples {
            None => "all prompts".into(),
            Some(0) => "questions alone".into(),
            Some(n) => format!("questions after {n} examples"),
        };
        let percent = |m: Mean| format!("{:.1} ± {:.1}", m.mean * 100.0, m.within * 100.0);
        let nats = |m: Mean| format!("{:+.2} ± {:.2}", m.mean, m.within);
        out.push_str(&format!("{kind}: {} prompts, {} % right at 100 %\n\n", whole.prompts, percent(whole.accuracy)));
        let mut table = |title: &str, show: &dyn Fn(&Cell) -> String| {
            let levels = LEVELS.map(|l| format!("{l} %")).join(" | ");
            out.push_str(&format!("| {title} | {levels} |\n|---|{}\n", "---|".repeat(LEVELS.len())));
            for row in ROWS {
                let shown: Vec<String> = own.iter().filter(|c| c.row == row).map(|c| show(c)).collect();
                out.push_str(&format!("| {row} | {} |\n", shown.join(" | ")));
            }
            out.push('\n');
        };
        table("right answers, %", &|c| percent(c.accuracy));
        table("rise of surprise at the right answer, nats", &|c| nats(c.rise));
        table("more than the score head's, nats", &|c| nats(c.behind_head));
        table("tokens read, %", &|c| format!("{:.0}", c.tokens * 100.0));
    }
    out
}
