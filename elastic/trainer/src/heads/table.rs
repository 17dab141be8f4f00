//! What prompt levels cost, by the way in which words are chosen.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::labels::Labels;
use super::prompts::Prompt;
use super::reader::{Answers, Reader};
use crate::exam::surprise_where_one_is;
use crate::random::Random;
use crate::stats::{Mean, mean};
use crate::watch::Watch;

/// What a table has.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its records.
    stage: &'static str,
    /// Prompt levels, beside 100.
    levels: &'static [u32],
    /// Ways to choose words, the score head first.
    rows: Vec<&'static str>,
    /// Parts of it: prompts with so many examples, or all.
    parts: &'static [Option<usize>],
}

impl Table {
    /// Any words may be dropped.
    pub fn of_prompts() -> Self {
        Self {
            stage: "prompts",
            levels: &[80, 60, 40, 20],
            rows: vec!["score head", "oracle", "random", "truncation", "surprisal"],
            parts: &[None, Some(0), Some(2)],
        }
    }

    /// Words of examples may be dropped; at 0 % none of them is left. `rows` are those that are wanted beside the score head's, or
    /// all if it names none.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn of_examples(rows: &[String]) -> Result<Self> {
        const ROWS: [&str; 3] = ["random", "truncation", "surprisal"];
        for row in rows {
            ensure!(ROWS.contains(&row.as_str()), "no row {row:?}: there are {}", ROWS.join(", "));
        }
        let wanted = ROWS.into_iter().filter(|row| rows.is_empty() || rows.iter().any(|r| r == row));
        let rows = std::iter::once("score head").chain(wanted).collect();
        Ok(Self { stage: "examples", levels: &[80, 60, 40, 20, 0], rows, parts: &[None] })
    }

    /// Whether it has a row.
    pub fn has(&self, row: &str) -> bool {
        self.rows.contains(&row)
    }
}

/// A prompt, and what is known of its words.
pub struct Known {
    /// The prompt.
    pub prompt: Prompt,
    /// The score head's scores.
    pub head: Vec<f32>,
    /// Other values.
    pub labels: Labels,
}

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
    /// Surprise at the right answer where one of the prompt's answers must be right, in nats: what a choice between them turns on.
    pub choice: Mean,
    /// Rise of that over the whole prompt's.
    pub choice_rise: Mean,
    /// By how much the score head's rise is less, prompt by prompt.
    pub behind_head: Mean,
    /// Mean tokens that were read, of the whole prompt's.
    pub tokens: f64,
}

/// Scores of a prompt's words by a row. Higher is kept.
fn scores(row: &str, known: &Known, seed: u64) -> Vec<f32> {
    let n = known.prompt.words.len();
    match row {
        "score head" => known.head.clone(),
        "oracle" => known.labels.effect.clone(),
        "random" => {
            let mut random = Random::new(seed);
            (0..n).map(|_| random.unit() as f32).collect()
        }
        "truncation" => (0..n).map(|i| i as f32).collect(),
        _ => known.labels.surprisal.clone(),
    }
}

/// Measure what a reader makes of them; prompts that are in the records already are taken from there. `basis` names the score head
/// and the reader.
///
/// # Errors
/// If the model refuses, or the records cannot be written.
pub fn measure(
    bench: &Bench,
    table: &Table,
    basis: &str,
    reader: &Reader<'_>,
    known: &[Known],
    watch: &mut dyn Watch,
) -> Result<Vec<Cell>> {
    let mut records =
        bench.records::<Found>(table.stage, &format!("score head {basis}, rows {}", table.rows.join(", ")))?;
    watch.begin("held-out prompts, shortened", known.len());
    for (i, known) in known.iter().enumerate().skip(records.found.len()) {
        let mut texts = vec![known.prompt.text.clone()];
        for row in &table.rows {
            let scores = scores(row, known, i as u64);
            texts.extend(table.levels.iter().map(|level| known.prompt.shortened(&scores, *level)));
        }
        records.add(Found { all: reader.answers(&known.prompt, &texts)? })?;
        watch.step(i + 1, "");
    }
    let found: Vec<(&Prompt, &Found)> = known.iter().map(|known| &known.prompt).zip(&records.found).collect();
    Ok(table.parts.iter().flat_map(|examples| cells(table, &found, *examples)).collect())
}

fn cells(table: &Table, found: &[(&Prompt, &Found)], examples: Option<usize>) -> Vec<Cell> {
    let own: Vec<_> = found.iter().filter(|(p, _)| examples.is_none_or(|n| p.examples == n)).collect();
    let rise = |prompt: &Prompt, found: &Found, at: usize| {
        found.all[at].surprise[prompt.right] - found.all[0].surprise[prompt.right]
    };
    let choice =
        |prompt: &Prompt, found: &Found, at: usize| surprise_where_one_is(&found.all[at].surprise, prompt.right);
    let cell = |row: &'static str, level: u32, at: usize, head: usize| {
        let over = |of: &dyn Fn(&Prompt, &Found) -> f64| own.iter().map(|(p, f)| of(p, f)).collect::<Vec<f64>>();
        Cell {
            row,
            level,
            examples,
            prompts: own.len(),
            accuracy: mean(&over(&|p, f| f64::from(u8::from(f.all[at].right(p))))),
            rise: mean(&over(&|p, f| rise(p, f, at))),
            choice: mean(&over(&|p, f| choice(p, f, at))),
            choice_rise: mean(&over(&|p, f| choice(p, f, at) - choice(p, f, 0))),
            behind_head: mean(&over(&|p, f| rise(p, f, at) - rise(p, f, head))),
            tokens: mean(&over(&|_, f| f.all[at].tokens as f64 / f.all[0].tokens as f64)).mean,
        }
    };
    let mut cells = vec![cell("whole", 100, 0, 0)];
    for (r, row) in table.rows.iter().enumerate() {
        for (l, level) in table.levels.iter().enumerate() {
            cells.push(cell(row, *level, 1 + r * table.levels.len() + l, 1 + l));
        }
    }
    cells
}

/// As text: for each kind of prompts, accuracy, then the rise of the surprise, then the score head's lead.
pub fn text(table: &Table, cells: &[Cell]) -> String {
    let mut out = String::new();
    for examples in table.parts {
        let own: Vec<&Cell> = cells.iter().filter(|cell| cell.examples == *examples).collect();
        let Some(whole) = own.first() else { continue };
        let kind = match examples {
            None => "all prompts".into(),
            Some(0) => "questions alone".into(),
            Some(n) => format!("questions after {n} examples"),
        };
        let percent = |m: Mean| format!("{:.1} ± {:.1}", m.mean * 100.0, m.within * 100.0);
        let nats = |m: Mean| format!("{:+.2} ± {:.2}", m.mean, m.within);
        let (right, choice) = (percent(whole.accuracy), whole.choice);
        let choice = format!("{:.2} ± {:.2} nats where one of the answers must be right", choice.mean, choice.within);
        out.push_str(&format!("{kind}: {} prompts, {right} % right at 100 %, {choice}\n\n", whole.prompts));
        let mut part = |title: &str, show: &dyn Fn(&Cell) -> String| {
            let levels = table.levels.iter().map(|l| format!("{l} %")).collect::<Vec<_>>().join(" | ");
            out.push_str(&format!("| {title} | {levels} |\n|---|{}\n", "---|".repeat(table.levels.len())));
            for row in &table.rows {
                let shown: Vec<String> = own.iter().filter(|c| c.row == *row).map(|c| show(c)).collect();
                out.push_str(&format!("| {row} | {} |\n", shown.join(" | ")));
            }
            out.push('\n');
        };
        part("right answers, %", &|c| percent(c.accuracy));
        part("rise of surprise at the right answer, nats", &|c| nats(c.rise));
        part("rise where one of the answers must be right, nats", &|c| nats(c.choice_rise));
        part("more than the score head's, nats", &|c| nats(c.behind_head));
        part("tokens read, %", &|c| format!("{:.0}", c.tokens * 100.0));
    }
    out
}
