//! Training adapters by distillation from the whole model.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::Var;
use concertina_elastic::LayerUnits;

use crate::net::{Adapters, Asked, Net, Pass};
use crate::ops::head::{Mix, Target, loss};
use crate::ops::to_vec;
use crate::optimise::{Optimiser, schedule};
use crate::random::Random;
use crate::teacher::Lesson;

/// How adapters are trained.
#[derive(Debug, Clone, Copy)]
pub struct Training {
    /// Steps in all, each of one lesson or of some questions.
    pub steps: usize,
    /// Size of a step, relative to the root mean square of the numbers it changes.
    pub rate: f32,
    /// Shares of the divergence from the whole model and of the surprise at the text.
    pub mix: Mix,
    /// Share of the rows whose predictions are compared in a step.
    pub rows: f64,
    /// Share of the steps that ask questions, where there are some.
    pub asking: f64,
    /// Weight of their loss. Its gradient is some seven times as long as that of text; unweighted, Adam's mean square would be
    /// its alone, and steps by text next to nothing.
    pub choices: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self { steps: 80, rate: 0.02, mix: Mix { kl: 0.7, ce: 0.3 }, rows: 0.5, asking: 0.5, choices: 0.15, seed: 1 }
    }
}

/// What adapters are trained on.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Text, and what the whole model says of it.
    pub lessons: &'a [Lesson],
    /// Questions with their choices; none: text alone.
    pub questions: &'a [Asked],
}

/// Losses of late, in nats.
#[derive(Debug, Clone, Copy, Default)]
pub struct Late {
    /// On text, as [`Training::mix`] has it.
    pub text: Option<f32>,
    /// At the right choice of questions.
    pub choices: Option<f32>,
}

impl Late {
    fn add(late: &mut Option<f32>, value: f32) {
        *late = Some(late.map_or(value, |late| 0.9 * late + 0.1 * value));
    }
}

impl std::fmt::Display for Late {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [("loss", self.text), ("at right choices", self.choices)];
        let parts: Vec<String> =
            parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {:.4}", value?))).collect();
        out.write_str(&parts.join(", "))
    }
}

/// Steps between checkpoints.
const KEEP: usize = 10;
/// Rows of a step that asks questions, unless one question alone has more.
const ASKED_ROWS: usize = 448;
/// The adapters of one level on their way.
pub struct Trainee {
    adapters: Adapters,
    optimiser: Optimiser,
}

impl Trainee {
    /// From fitted adapters.
    pub fn new(adapters: Adapters) -> Self {
        Self { optimiser: Optimiser::new(adapters.vars()), adapters }
    }

    /// The adapters as they are now.
    pub fn adapters(&self) -> &Adapters {
        &self.adapters
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.optimiser.step
    }

    /// Seconds that fitting and training took.
    pub fn seconds(&self) -> f32 {
        self.optimiser.seconds
    }

    /// Add the seconds that fitting took.
    pub fn took(&mut self, seconds: f32) {
        self.optimiser.seconds += seconds;
    }

    /// Train until `training.steps` steps are done. How it stands is written to `kept` every few steps. `progress` hears
    /// of steps done, in all, and the losses of late.
    ///
    /// # Errors
    /// Where candle refuses, or the checkpoint cannot be written.
    pub fn train(
        &mut self,
        net: &Net,
        units: &[LayerUnits],
        reading: Reading<'_>,
        training: Training,
        kept: &Path,
        progress: &mut dyn FnMut(usize, usize, Late),
    ) -> Result<()> {
        let Reading { lessons, questions } = reading;
        let mut late = Late::default();
        let mut begun = Instant::now();
        while self.optimiser.step < training.steps {
            let mut random =
                Random::new(training.seed.wrapping_mul(1_000_003).wrapping_add(self.optimiser.step as u64));
            let lesson = &lessons[(self.optimiser.step + random.below(lessons.len())) % lessons.len()];
            let rows = rows(lesson, training.rows, &mut random);
            let pass = Pass::new(net, units, Some(&self.adapters))?;
            let asks = !questions.is_empty() && asks(self.optimiser.step, training.asking);
            let loss = match asks {
                true => pass.choice_loss(&asked(questions, &mut random))?,
                false => loss(&pass.hidden(&lesson.batch)?, &net.head, rows, training.mix)?,
            };
            let weighted = if asks { (&loss * f64::from(training.choices))? } else { loss.clone() };
            let grads = weighted.backward()?;
            if log::log_enabled!(log::Level::Debug) {
                let squares = |var: &Var| -> Result<f64> {
                    let values = grads.get(var.as_tensor()).map(to_vec).transpose()?;
                    Ok(values.iter().flatten().map(|g| f64::from(*g).powi(2)).sum())
                };
                let all: f64 = self.adapters.vars().iter().map(squares).sum::<Result<f64>>()?;
                log::debug!("{}: gradient of {:.4}", if asks { "questions" } else { "text" }, all.sqrt());
            }
            Late::add(if asks { &mut late.choices } else { &mut late.text }, loss.to_scalar::<f32>()?);
            let next = self.optimiser.step + 1;
            self.optimiser.step(&grads, training.rate * schedule(next, training.steps))?;
            self.optimiser.seconds += begun.elapsed().as_secs_f32();
            begun = Instant::now();
            if self.optimiser.step.is_multiple_of(KEEP) || self.optimiser.step == training.steps {
                self.save(kept)?;
            }
            progress(self.optimiser.step, training.steps, late);
        }
        Ok(())
    }

    /// Write all that training goes on from.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.optimiser.save(path)
    }

    /// Take up what [`Trainee::save`] wrote, of adapters of the same shapes.
    ///
    /// # Errors
    /// If it cannot be read, or is of others.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.optimiser.load(path)
    }
}

/// Whether a step asks questions: those that do lie evenly among the others.
fn asks(step: usize, share: f64) -> bool {
    ((step + 1) as f64 * share).floor() > (step as f64 * share).floor()
}

/// Questions drawn for a step.
fn asked(questions: &[Asked], random: &mut Random) -> Vec<Asked> {
    let (mut drawn, mut rows) = (Vec::new(), 0);
    loop {
        let question = &questions[random.below(questions.len())];
        rows += question.tree.rows();
        if rows > ASKED_ROWS && !drawn.is_empty() {
            return drawn;
        }
        drawn.push(question.clone());
    }
}

/// Some of the rows that have a next token.
fn rows(lesson: &Lesson, share: f64, random: &mut Random) -> Vec<(usize, Target)> {
    let tokens = lesson.batch.tokens;
    let known = lesson.targets.iter().enumerate().filter(|(i, _)| (i + 1) % tokens != 0);
    known.filter(|_| random.unit() < share).map(|(i, target)| (i, target.clone())).collect()
}
