//! The whole pipeline: labels, the score head, questions at every pair of levels, the decision head, the file.

use std::path::PathBuf;

use anyhow::{Context, Result};
use concertina_elastic::heads::{EncoderId, Heads, Report, ScoreHead};

use super::bench::{Bench, Order};
use super::decision::{Decider, DecisionTraining, Goal};
use super::encoded::{BOTTOM, Encoded};
use super::grid::{Grid, Outcome, PROMPT_LEVELS, TPOT_TARGETS, TTFT_TARGETS, answer_all};
use super::labels::label_all;
use super::prompts::Prompt;
use super::score::{Lesson, ScoreTraining, Scorer};
use crate::file;
use crate::levels::LEVELS;
use crate::minilm::MiniLm;
use crate::watch::Watch;

/// Of every so many training prompts, one has all labels, to compare them.
const ALL_OF: usize = 4;

/// A score head as it is stored.
pub struct Scored {
    /// As stored.
    pub stored: ScoreHead,
    /// As it acts.
    pub scorer: Scorer,
    /// What other findings name it by.
    pub name: String,
    /// Seconds that training took.
    seconds: f32,
}

/// Train the score head, or take it from where it was kept.
///
/// # Errors
/// If the model refuses, or files cannot be written.
pub fn score_head(bench: &Bench, minilm: &MiniLm, order: &Order, watch: &mut dyn Watch) -> Result<Scored> {
    let prompts = bench.train(0, order.prompts);
    let labels = label_all(bench, "labels-train", &prompts, ALL_OF, watch)?;
    let mut lessons = Vec::new();
    for ((prompt, labels), encoded) in prompts.iter().zip(&labels).zip(Encoded::all(minilm, &prompts)?) {
        lessons.extend(Lesson::new(&encoded, prompt, labels)?);
    }
    let training = ScoreTraining { seed: order.seed, ..ScoreTraining::for_prompts(lessons.len()) };
    let kept = bench.folder().join(format!("score-{}-{}.safetensors", order.prompts, order.seed));
    let mut scorer = Scorer::fresh(minilm, order.seed)?;
    watch.begin("training the score head", training.steps);
    let seconds = scorer.train(&lessons, training, &kept, &mut |done, loss, _| {
        watch.step(done, &format!("loss {loss:.4}"));
        Ok(())
    })?;
    let stored = scorer.stored()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stored.layer.q.weight.blocks).update(&stored.layer.down.weight.blocks);
    let name = hasher.finalize().to_hex()[..16].to_owned();
    Ok(Scored { scorer: Scorer::restored(&stored, minilm.heads)?, stored, name, seconds })
}

/// Questions with what they came to at every pair of levels.
pub struct Answered {
    /// The questions.
    pub read: Vec<(Prompt, Encoded)>,
    /// One each.
    pub outcomes: Vec<Outcome>,
}

/// The questions that the decision head learns from: none of them taught the score head.
///
/// # Errors
/// As [`answer_all`].
pub fn training_questions(
    bench: &Bench,
    minilm: &MiniLm,
    order: &Order,
    scored: &Scored,
    watch: &mut dyn Watch,
) -> Result<Answered> {
    let read = encoded(minilm, bench.train(order.prompts, order.questions))?;
    let outcomes = answer_all(bench, "pairs-train", &scored.name, &scored.scorer, &read, watch)?;
    Ok(Answered { read, outcomes })
}

/// Prompts with their rows.
///
/// # Errors
/// If the tokenizer or candle refuses.
pub fn encoded(minilm: &MiniLm, prompts: Vec<Prompt>) -> Result<Vec<(Prompt, Encoded)>> {
    let with = |prompt: Prompt| -> Result<(Prompt, Encoded)> { Ok((prompt.clone(), Encoded::new(minilm, &prompt)?)) };
    prompts.into_iter().map(with).collect()
}

/// Train the decision head, or take it from where it was kept.
///
/// # Errors
/// If candle refuses, or files cannot be written.
pub fn decision_head(
    bench: &Bench,
    minilm: &MiniLm,
    order: &Order,
    grid: &Grid,
    answered: &Answered,
    goal: Goal,
    watch: &mut dyn Watch,
) -> Result<(Decider, f32)> {
    let lessons: Vec<(&Encoded, &Outcome)> =
        answered.read.iter().map(|(_, encoded)| encoded).zip(&answered.outcomes).collect();
    let training = DecisionTraining { goal, seed: order.seed, ..DecisionTraining::default() };
    let kept = format!("decision-{}-{}-{}-{}.safetensors", goal.name(), order.prompts, order.questions, order.seed);
    let mut decider = Decider::fresh(minilm, order.seed)?;
    watch.begin(&format!("training the decision head ({})", goal.name()), training.steps);
    let seconds = decider.train(grid, &lessons, training, &bench.folder().join(kept), &mut |done, loss, _| {
        watch.step(done, &format!("loss {loss:.4}"));
        Ok(())
    })?;
    Ok((decider, seconds))
}

/// Do all of it, or what is left of it. The file, and its bytes.
///
/// # Errors
/// If the model, its package or MiniLM is refused, or files cannot be written.
pub fn heads(order: &Order, watch: &mut dyn Watch) -> Result<(PathBuf, usize)> {
    let bench = Bench::open(order)?;
    let minilm = MiniLm::open(&order.minilm)?;
    let scored = score_head(&bench, &minilm, order, watch)?;
    let answered = training_questions(&bench, &minilm, order, &scored, watch)?;
    let (decider, seconds) = decision_head(&bench, &minilm, order, &Grid::new(&bench)?, &answered, Goal::Right, watch)?;
    let heads = Heads {
        encoder: EncoderId {
            source_blake3: minilm.hash.clone(),
            bottom_layers: BOTTOM,
            dim: minilm.dim,
            heads: minilm.heads,
            ffn: minilm.ffn,
            positions: minilm.positions,
        },
        model_blake3: bench.hash.clone(),
        ttft_targets: TTFT_TARGETS.to_vec(),
        tpot_targets: TPOT_TARGETS.to_vec(),
        prompt_levels: PROMPT_LEVELS.to_vec(),
        model_levels: LEVELS.to_vec(),
        score: scored.stored,
        decision: decider.stored()?,
        report: Report {
            command: order.command.clone(),
            seed: order.seed,
            prompts: order.prompts as u64,
            questions: order.questions as u64,
            seconds: bench.seconds(&["labels-train", "pairs-train"]) + f64::from(scored.seconds + seconds),
        },
    };
    let bytes = heads.to_bytes()?;
    let stem = order.model.file_stem().context("the model has no name")?.to_string_lossy().into_owned();
    let name = stem.strip_suffix(".elastic").unwrap_or(&stem);
    let path = order.out.join(format!("{name}.encoder.safetensors"));
    file::write_whole(&path, &bytes)?;
    Ok((path, bytes.len()))
}
