//! What all stages work with: the model with its package, and questions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use concertina_elastic::package::Package;
use concertina_formats::Model;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::prompts::{Kind, Prompt, prompts};
use crate::compare::read_package;
use crate::data::{Question, Split, fetch_all, read_questions};
use crate::file;
use crate::net::Net;
use crate::records::{Records, seconds};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The model whose units lie in order, `NAME.elastic.gguf`; its package lies beside.
    pub model: PathBuf,
    /// Where results and everything on the way to them are kept.
    pub out: PathBuf,
    /// Where archives of text are kept.
    pub data: PathBuf,
    /// A folder with MiniLM's `model.safetensors`, `tokenizer.json` and `config.json`.
    pub minilm: PathBuf,
    /// Seed of all draws.
    pub seed: u64,
    /// Prompts whose words are labelled.
    pub prompts: usize,
    /// Questions that are answered at every pair of levels.
    pub questions: usize,
    /// The command line, for the report.
    pub command: String,
}

/// Prompts longer than this are left out: what labelling costs grows with the square.
const MAX_WORDS: usize = 90;
/// The same for prompts that are only measured.
const MAX_WORDS_MEASURED: usize = 240;

/// An opened model with its package, and questions.
pub struct Bench {
    /// The model.
    pub model: Model,
    /// Its weights.
    pub net: Net,
    /// What makes it elastic.
    pub package: Package,
    /// BLAKE3 of the model's file.
    pub hash: String,
    /// BLAKE3 of the package's file.
    pub package_hash: String,
    folder: PathBuf,
    seed: u64,
    train: Vec<Question>,
    held_out: Vec<Question>,
}

impl Bench {
    /// Open the model and its package, and get the questions.
    ///
    /// # Errors
    /// If a file is missing or refused, or the package is another model's.
    pub fn open(order: &Order) -> Result<Self> {
        std::fs::create_dir_all(&order.out).with_context(|| format!("cannot make {}", order.out.display()))?;
        let model = file::open_model(&order.model)?;
        let hash = file::hash(&order.model)?;
        let beside = order.model.with_extension("safetensors");
        let package = read_package(&beside)?;
        ensure!(package.model.permuted_blake3 == hash, "{} is the package of another model", beside.display());
        let net = Net::load(&model)?;
        fetch_all(&order.data)?;
        let (train, held_out) =
            (read_questions(&order.data, Split::Train)?, read_questions(&order.data, Split::HeldOut)?);
        Ok(Self {
            package_hash: file::hash(&beside)?,
            folder: order.out.clone(),
            seed: order.seed,
            model,
            net,
            package,
            hash,
            train,
            held_out,
        })
    }

    /// Where results are kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Training prompts from the `first` of them on.
    pub fn train(&self, first: usize, count: usize) -> Vec<Prompt> {
        let mut found = self.drawn(&self.train, first + count, 1, Kind::Mixed);
        found.drain(..first.min(found.len()));
        found
    }

    /// Held-out prompts, the same for every seed. Their examples are from the train split.
    pub fn held_out(&self, count: usize, kind: Kind) -> Vec<Prompt> {
        self.drawn(&self.held_out, count, 0, kind)
    }

    fn drawn(&self, questions: &[Question], count: usize, stage: u64, kind: Kind) -> Vec<Prompt> {
        let seed = if stage == 0 { 0 } else { self.seed.wrapping_mul(1000).wrapping_add(stage) };
        // A third more than is wanted, for those that are too long.
        let mut found = prompts(questions, &self.train, count + count / 3 + 8, seed, kind);
        let most = if kind == Kind::Mixed { MAX_WORDS } else { MAX_WORDS_MEASURED };
        found.retain(|prompt| prompt.words.len() <= most);
        found.truncate(count);
        found
    }

    /// Findings of a stage. `basis` is what they depend on beside the model and the seed.
    ///
    /// # Errors
    /// If the file cannot be read, or is of other work.
    pub(super) fn records<T: Serialize + DeserializeOwned>(&self, name: &str, basis: &str) -> Result<Records<T>> {
        let basis = format!("model {}, seed {}, {basis}", self.hash, self.seed);
        Records::open(&self.folder.join(format!("{name}.jsonl")), &basis)
    }

    /// Seconds that findings of some stages took.
    pub(super) fn seconds(&self, stages: &[&str]) -> f64 {
        stages.iter().map(|stage| seconds(&self.folder.join(format!("{stage}.jsonl")))).sum()
    }
}
