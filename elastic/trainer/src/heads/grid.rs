//! Pairs of a prompt level and a model level: what they cost, and whether they answer right.

use anyhow::{Context, Result, ensure};
use concertina_elastic::SubModel;
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::encoded::Encoded;
use super::prompts::Prompt;
use super::reader::Reader;
use super::score::Scorer;
use crate::levels::UnitWeights;
use crate::net::Adapters;
use crate::recover::package::restored;
use crate::watch::Watch;

/// Prompt levels of the heads file.
pub const PROMPT_LEVELS: [u32; 5] = [20, 40, 60, 80, 100];
/// TTFT targets in percent of the whole model's on the whole prompt.
pub const TTFT_TARGETS: [u32; 5] = [20, 40, 60, 80, 100];
/// TPOT targets in percent of the whole model's.
pub const TPOT_TARGETS: [u32; 6] = [50, 60, 70, 80, 90, 100];
/// Prompt levels at which questions are answered, places in [`PROMPT_LEVELS`].
pub const MEASURED_PROMPT: [usize; 3] = [0, 2, 4];
/// Model levels at which questions are answered.
pub const MEASURED_MODEL: [u32; 5] = [20, 40, 60, 80, 100];

/// What a question came to at every pair that was measured, prompt levels one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the answer was right.
    pub right: Vec<bool>,
    /// Surprise at the right answer in nats.
    pub surprise: Vec<f64>,
}

/// The pairs and their costs.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Prompt level, model level.
    pub pairs: Vec<(u32, u32)>,
    /// Share of the whole prefill: words kept times weights of all layers kept.
    pub ttft: Vec<f64>,
    /// Share of the weights that a decoded token reads: those of all layers that are kept, and the output matrix.
    pub tpot: Vec<f64>,
}

impl Grid {
    /// Of a package's levels.
    ///
    /// # Errors
    /// If it lacks one of them.
    pub fn new(bench: &Bench) -> Result<Self> {
        let weights = UnitWeights::of(&bench.net);
        let all = weights.all(&bench.net.full()) as f64;
        let output = bench.net.head.elem_count() as f64;
        let mut grid = Self { pairs: Vec::new(), ttft: Vec::new(), tpot: Vec::new() };
        for prompt in MEASURED_PROMPT.map(|i| PROMPT_LEVELS[i]) {
            for model in MEASURED_MODEL {
                let kept = weights.all(&level(bench, model)?.layers) as f64;
                grid.pairs.push((prompt, model));
                grid.ttft.push(f64::from(prompt) / 100.0 * kept / all);
                grid.tpot.push((kept + output) / (all + output));
            }
        }
        Ok(grid)
    }

    /// Pairs that meet a target in percent.
    pub fn feasible(&self, ttft: u32, tpot: u32) -> Vec<usize> {
        let within = |cost: f64, target: u32| cost * 100.0 <= f64::from(target) + 1e-9;
        (0..self.pairs.len()).filter(|i| within(self.ttft[*i], ttft) && within(self.tpot[*i], tpot)).collect()
    }

    /// The cheapest of some pairs: the least prefill, then the least decoding.
    pub fn lightest(&self, of: impl Iterator<Item = usize>) -> Option<usize> {
        of.min_by(|a, b| {
            (self.ttft[*a], self.tpot[*a])
                .partial_cmp(&(self.ttft[*b], self.tpot[*b]))
                .unwrap_or(std::cmp::Ordering::Equal)
        })
    }

    /// All targets.
    pub fn targets() -> impl Iterator<Item = (usize, usize)> {
        (0..TTFT_TARGETS.len()).flat_map(|ttft| (0..TPOT_TARGETS.len()).map(move |tpot| (ttft, tpot)))
    }
}

pub(super) fn level(bench: &Bench, level: u32) -> Result<&SubModel> {
    bench.package.level(level).with_context(|| format!("the package has no level {level}"))
}

/// Answer every prompt at every pair; those that are in the stage's records already are taken from there. Prompts are
/// shortened by `scorer`, whose name `head` the records are of.
///
/// # Errors
/// If the package lacks a level, the model refuses, or the records cannot be written.
pub fn answer_all(
    bench: &Bench,
    stage: &str,
    head: &str,
    scorer: &Scorer,
    read: &[(Prompt, Encoded)],
    watch: &mut dyn Watch,
) -> Result<Vec<Outcome>> {
    let mut records = bench.records::<Outcome>(stage, &format!("score head {head}, package {}", bench.package_hash))?;
    let units: Vec<&SubModel> = MEASURED_MODEL.iter().map(|m| level(bench, *m)).collect::<Result<_>>()?;
    let layers = bench.net.layers.len();
    let adapters: Vec<Option<Adapters>> = MEASURED_MODEL
        .iter()
        .map(|m| bench.package.adapters(*m).map(|stored| restored(stored, layers)).transpose())
        .collect::<Result<_>>()?;
    watch.begin(&format!("questions at every pair of levels ({stage})"), read.len());
    for (i, (prompt, encoded)) in read.iter().enumerate().skip(records.found.len()) {
        let scores = scorer.ranking(encoded)?;
        let texts = MEASURED_PROMPT.map(|p| prompt.shortened(&scores, PROMPT_LEVELS[p]));
        let n = texts.len() * units.len();
        let mut outcome = Outcome { right: vec![false; n], surprise: vec![0.0; n] };
        for (m, (units, adapters)) in units.iter().zip(&adapters).enumerate() {
            let reader = Reader::new(&bench.net, &bench.model.tokenizer, &units.layers, adapters.as_ref())?;
            for (p, answers) in reader.answers(prompt, &texts)?.iter().enumerate() {
                outcome.right[p * MEASURED_MODEL.len() + m] = answers.right(prompt);
                outcome.surprise[p * MEASURED_MODEL.len() + m] = answers.surprise[prompt.right];
            }
        }
        records.add(outcome)?;
        watch.step(i + 1, "");
    }
    records.found.truncate(read.len());
    let pairs = MEASURED_PROMPT.len() * MEASURED_MODEL.len();
    ensure!(records.found.iter().all(|o| o.right.len() == pairs), "the records of {stage} are of other pairs");
    Ok(records.found)
}
