//! The stages of the work, each kept in a file, so that a run that was stopped goes on where it was.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use concertina_elastic::{LayerOrder, LayerScores, SubModel};
use concertina_formats::Model;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::anchors::{self, LayerHarm};
use crate::data::{Kind, Question, Split, TASKS, Text, Windows, fetch_all, read_all, read_questions, windows};
use crate::exam::asked;
use crate::file;
use crate::halves::LeftOut;
use crate::importance::{self, Criterion};
use crate::levels::{LEVELS, Search, Without};
use crate::net::{Asked, Net};
use crate::random::Random;
use crate::teacher::{self, Lesson, lessons};
use crate::watch::Watch;

/// How much work to do, and from which seed.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Effort {
    /// Tokens of a window.
    pub window: usize,
    /// Windows for importance.
    pub importance: usize,
    /// Windows for the harm of removing layers.
    pub harm: usize,
    /// Windows for the search of the level table.
    pub search: usize,
    /// Measurements a level of that search, after those of its starts.
    pub search_steps: usize,
    /// Windows on which formats of `down` are compared.
    pub formats: usize,
    /// Windows on which adapters are fitted.
    pub fit: usize,
    /// Windows on which adapters are trained.
    pub train: usize,
    /// Questions with their choices that adapters are trained on; none: text alone.
    pub questions: usize,
    /// Steps of training a level, each of two windows or of some questions.
    pub train_steps: usize,
    /// Rank of adapters.
    pub rank: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            window: 256,
            importance: 48,
            harm: 8,
            search: 2,
            search_steps: 6,
            formats: 12,
            fit: 24,
            train: 400,
            questions: 4000,
            train_steps: 200,
            rank: 8,
            seed: 1,
        }
    }
}

/// Halves of layers are left out until this share of the weights is left, in percent. Below, tables that leave out more lost
/// to cuts in every layer on SmolLM2.
pub const HALVES_DOWN_TO: u32 = 70;

/// The task whose prompts are several times as long as all others', for a yes or no.
const LONG: &str = "boolq";
/// Likeliest tokens of the whole model that adapters are taught.
const TAUGHT: usize = 64;

/// Shares of the kinds of text.
pub const SHARES: [(Kind, f64); 3] = [(Kind::Brown, 0.4), (Kind::Addresses, 0.2), (Kind::Questions, 0.4)];

/// A model being worked on.
pub struct Workshop {
    /// The model as it came.
    pub model: Model,
    /// Its file.
    pub model_path: PathBuf,
    /// Where stages and results are kept.
    pub folder: PathBuf,
    /// How much to do.
    pub effort: Effort,
    /// BLAKE3 of the model's file.
    pub source: String,
    data: PathBuf,
    texts: Vec<Text>,
    held_out: Vec<Text>,
}

/// What a stage found, how long it took, and all that it depends on.
#[derive(Serialize, Deserialize)]
struct Stage<T> {
    basis: String,
    seconds: f64,
    found: T,
}

impl Workshop {
    /// Open the model and get the text. `data` keeps the text's archives.
    ///
    /// # Errors
    /// If the model is refused, or text cannot be had.
    pub fn open(model_path: &Path, folder: &Path, data: &Path, effort: Effort) -> Result<Self> {
        fetch_all(data)?;
        let texts = [read_all(data, Split::Train)?, read_all(data, Split::HeldOut)?];
        Self::with_texts(model_path, folder, data, texts, effort)
    }

    /// The same with texts that are there: for training, and held out.
    ///
    /// # Errors
    /// If the model is refused.
    pub(crate) fn with_texts(
        model_path: &Path,
        folder: &Path,
        data: &Path,
        [texts, held_out]: [Vec<Text>; 2],
        effort: Effort,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let model = file::open_model(model_path)?;
        let source = file::hash(model_path)?;
        let (model_path, folder, data) = (model_path.into(), folder.into(), data.into());
        Ok(Self { source, model, model_path, folder, effort, data, texts, held_out })
    }

    /// Windows of training text; stages draw with seeds of their own.
    ///
    /// # Errors
    /// If there is not enough text.
    pub fn windows(&self, count: usize, stage: u64) -> Result<Windows> {
        let seed = self.effort.seed.wrapping_mul(1000).wrapping_add(stage);
        windows(&self.model, &self.texts, count, self.effort.window, SHARES, seed)
    }

    /// Windows of held-out text, the same for every seed.
    ///
    /// # Errors
    /// If there is not enough text.
    pub fn held_out(&self, count: usize) -> Result<Windows> {
        windows(&self.model, &self.held_out, count, self.effort.window, SHARES, 0)
    }

    /// What the stage found before, or what `work` finds now.
    /// `basis` is what the finding depends on beside the model.
    pub(crate) fn stage<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        basis: &[usize],
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if let Some(found) = self.known(name, basis) {
            return Ok(found);
        }
        let begun = Instant::now();
        let found = work()?;
        let stage = Stage { basis: self.basis(basis), seconds: begun.elapsed().as_secs_f64(), found };
        file::write_whole(&self.folder.join(format!("{name}.json")), &serde_json::to_vec(&stage)?)?;
        Ok(stage.found)
    }

    /// What the stage found before.
    fn known<T: DeserializeOwned>(&self, name: &str, basis: &[usize]) -> Option<T> {
        let bytes = std::fs::read(self.folder.join(format!("{name}.json"))).ok()?;
        let stage: Stage<T> = serde_json::from_slice(&bytes).ok()?;
        (stage.basis == self.basis(basis)).then_some(stage.found)
    }

    /// All that a finding depends on.
    fn basis(&self, basis: &[usize]) -> String {
        format!("{}, windows of {}, {basis:?}, seed {}", self.source, self.effort.window, self.effort.seed)
    }

    /// Seconds that the stages took in all.
    pub fn seconds(&self) -> f64 {
        #[derive(Deserialize)]
        struct Seconds {
            seconds: f64,
        }
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let json = entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        let read = |path: PathBuf| serde_json::from_slice::<Seconds>(&std::fs::read(path).ok()?).ok();
        json.filter_map(read).map(|stage| stage.seconds).sum()
    }

    /// Importance of the original model's units.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn scores(&self, net: &Net, criterion: Criterion, watch: &mut dyn Watch) -> Result<Vec<LayerScores>> {
        let name = format!("importance-{}", criterion.name());
        self.stage(&name, &[self.effort.importance], || {
            let windows = self.windows(self.effort.importance, 1)?;
            watch.begin(&format!("importance by {}", criterion.name()), windows.all.len().div_ceil(2));
            let mut progress = |done: usize, _: usize| watch.step(done, "");
            match criterion {
                Criterion::Effect => importance::outputs(net, &windows, &mut progress).map(|[_, squares]| squares),
                Criterion::Gradient => importance::gradient(net, &windows, &mut progress),
                Criterion::Magnitude => importance::magnitude(net),
                Criterion::Activation => importance::activation(net, &windows),
                Criterion::Random => Ok(importance::random(net, self.effort.seed)),
                Criterion::None => Ok(Vec::new()),
            }
        })
    }

    /// The order of the original model's units.
    ///
    /// # Errors
    /// As [`Workshop::scores`].
    pub fn order(&self, net: &Net, criterion: Criterion, watch: &mut dyn Watch) -> Result<Vec<LayerOrder>> {
        if criterion == Criterion::None {
            let spec = &net.spec;
            return Ok(vec![LayerOrder::identity(spec.n_groups, spec.n_heads, spec.ffn); net.layers.len()]);
        }
        Ok(self.scores(net, criterion, watch)?.iter().map(LayerOrder::by_importance).collect())
    }

    /// What removing each layer does.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn harm(&self, net: &Net, watch: &mut dyn Watch) -> Result<LayerHarm> {
        self.stage("harm", &[self.effort.harm], || {
            let windows = self.windows(self.effort.harm, 2)?;
            watch.begin("layers removed one by one", windows.all.len().div_ceil(2));
            anchors::measure(net, &windows, &mut |done, _| watch.step(done, ""))
        })
    }

    /// Each layer's influence on the residual stream: as [`Workshop::harm`] has found it, or one pass over the same text.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn influence(&self, net: &Net, watch: &mut dyn Watch) -> Result<Vec<f64>> {
        let known: Option<LayerHarm> = self.known("harm", &[self.effort.harm]);
        if let Some(harm) = known {
            return Ok(harm.influence);
        }
        self.stage("influence", &[self.effort.harm], || {
            watch.say("influence of layers");
            anchors::influence(net, &self.windows(self.effort.harm, 2)?)
        })
    }

    /// Halves of layers in the order in which they are best left out. `read` keeps the text that it is measured on.
    ///
    /// # Errors
    /// Where candle refuses.
    pub(crate) fn halves(
        &self,
        net: &Net,
        anchors: &[usize],
        scores: &[LayerScores],
        read: &mut Option<Vec<Lesson>>,
        watch: &mut dyn Watch,
    ) -> Result<Vec<LeftOut>> {
        self.stage("halves", &[self.effort.harm, self.effort.search], || {
            let lessons = self.searched(net, read)?;
            watch.begin("halves of layers left out one after the other: weights gone in percent", 100);
            let mut progress = |left: usize, loss: f64| watch.step(100 - left, &format!("divergence {loss:.4}"));
            Search::new(net, lessons, anchors, scores, self.effort.seed).halves(HALVES_DOWN_TO, &mut progress)
        })
    }

    /// What each layer keeps at each level, of a permuted model.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn levels(
        &self,
        net: &Net,
        harm: &LayerHarm,
        scores: &[LayerScores],
        watch: &mut dyn Watch,
    ) -> Result<Vec<SubModel>> {
        let anchors = &harm.anchors(anchor_count(net.layers.len()))[..];
        let mut read: Option<Vec<Lesson>> = None;
        let mut found: Vec<SubModel> = Vec::new();
        let halves = self.halves(net, anchors, scores, &mut read, watch)?;
        for level in LEVELS.into_iter().rev() {
            let steps = self.effort.search_steps;
            let basis = [self.effort.importance, self.effort.harm, self.effort.search, steps];
            let sub = self.stage(&format!("level-{level}"), &basis, || {
                let lessons = self.searched(net, &mut read)?;
                watch.begin(&format!("what level {level} keeps"), steps);
                let mut search = Search::new(net, lessons, anchors, scores, self.effort.seed + u64::from(level));
                let without = Without::of(level, net.layers.len() - anchors.len());
                search.leave_out(without, &harm.influence)?;
                let mut progress =
                    |done: usize, _: usize, loss: f64| watch.step(done, &format!("divergence {loss:.4}"));
                match without.layers {
                    0 => search.level(level, found.last(), &halves, steps, &mut progress),
                    // Another level's table and its halves would bring layers back.
                    _ => search.level(level, None, &[], steps, &mut progress),
                }
            })?;
            found.push(sub);
        }
        found.reverse();
        Ok(found)
    }

    /// Questions with their choices, of the train splits: [`Effort::questions`] of them, in an order of the seed's.
    ///
    /// # Errors
    /// If they cannot be read, or the tokenizer refuses.
    pub fn questions(&self) -> Result<Vec<Asked>> {
        if self.effort.questions == 0 {
            return Ok(Vec::new());
        }
        let mut all = read_questions(&self.data, Split::Train)?;
        all.retain(|question| TASKS[question.task] != LONG);
        Random::new(self.effort.seed.wrapping_mul(1000).wrapping_add(8)).shuffle(&mut all);
        all.iter().take(self.effort.questions).map(|question| asked(question, &self.model.tokenizer)).collect()
    }

    /// Questions of the train splits that nothing is trained on, those of [`Workshop::questions`]' tasks alone, mixed.
    ///
    /// # Errors
    /// As [`Workshop::questions`].
    pub fn held_out_questions(&self) -> Result<Vec<Question>> {
        let mut all = read_questions(&self.data, Split::HeldOut)?;
        all.retain(|question| TASKS[question.task] != LONG);
        // Every tenth of tasks that take turns: at first it is always the same ones' turn.
        Random::new(0).shuffle(&mut all);
        Ok(all)
    }

    /// The text that adapters are trained on, with what the whole model says of it; read once, and kept.
    ///
    /// # Errors
    /// Where candle refuses.
    pub(crate) fn lessons(&self, net: &Net, watch: &mut dyn Watch) -> Result<Vec<Lesson>> {
        let windows = self.windows(self.effort.train, 6)?;
        let path = self.folder.join("lessons.safetensors");
        if let Some(kept) = teacher::load(&path, &windows) {
            return Ok(kept);
        }
        watch.begin("the whole model reads the training text", windows.all.len().div_ceil(2));
        let lessons = lessons(net, &windows, TAUGHT, &mut |done, _| watch.step(done, ""))?;
        teacher::save(&path, &lessons)?;
        Ok(lessons)
    }

    /// The text that tables are searched on, with what the whole model says of it; read once.
    pub(crate) fn searched<'a>(&self, net: &Net, read: &'a mut Option<Vec<Lesson>>) -> Result<&'a [Lesson]> {
        Ok(match read {
            Some(lessons) => lessons,
            none => none.insert(lessons(net, &self.windows(self.effort.search, 3)?, 64, &mut |_, _| {})?),
        })
    }
}

/// About a fifth of the layers.
pub fn anchor_count(layers: usize) -> usize {
    (layers + 2) / 5
}
