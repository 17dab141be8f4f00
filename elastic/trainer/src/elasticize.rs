//! The whole pipeline: from a model's file to its elastic package.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use concertina_elastic::SubModel;
use concertina_elastic::package::{ModelId, Package, Report, Shape};
use concertina_formats::DType;
use serde::{Deserialize, Serialize};

use crate::evaluate::surprise;
use crate::file;
use crate::importance::{self, Criterion, batches};
use crate::levels::LEVELS;
use crate::net::{Adapters, Batch, Net, Pass};
use crate::recover::fit::fit;
use crate::recover::package::stored;
use crate::recover::train::{Late, Reading, Trainee, Training};
use crate::rewrite::{Rewrite, rewrite};
use crate::watch::Watch;
use crate::workshop::{Effort, HALVES_DOWN_TO, Workshop, anchor_count};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The model, a GGUF file.
    pub model: PathBuf,
    /// Where results and everything on the way to them are kept.
    pub out: PathBuf,
    /// Where archives of text are kept.
    pub data: PathBuf,
    /// Order and levels alone: no adapters.
    pub order_only: bool,
    /// Type of `down` in the new file; none: the smallest that keeps perplexity.
    pub down: Option<DType>,
    /// How much work to do.
    pub effort: Effort,
    /// The command line, for the report.
    pub command: String,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The model with its units in order.
    pub model: PathBuf,
    /// The package.
    pub package: PathBuf,
    /// Bytes of the package.
    pub package_bytes: usize,
    /// Bytes of its adapters.
    pub adapter_bytes: usize,
}

/// Perplexity may rise by this share when `down` is quantised anew.
const FORMAT_LOSS: f64 = 0.005;
/// Types of `down`, by rising size.
pub(crate) const FORMATS: [DType; 3] = [DType::Q4_1, DType::Q5_1, DType::Q8_0];

/// A type of `down` that was tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tried {
    /// Name of the type.
    pub dtype: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Perplexity on training text.
    pub perplexity: f64,
    /// Of the model as it came.
    pub source_perplexity: f64,
}

/// Do all of it, or what is left of it.
///
/// # Errors
/// If the model is refused, text cannot be had, or files cannot be written.
pub fn elasticize(order: &Order, watch: &mut dyn Watch) -> Result<Outcome> {
    let shop = Workshop::open(&order.model, &order.out, &order.data, order.effort.clone())?;
    let source = Net::load(&shop.model)?;
    watch.say(&forecast(&shop, &source, order.order_only)?);
    let scores = shop.scores(&source, Criterion::Effect, watch)?;
    let units = shop.order(&source, Criterion::Effect, watch)?;
    let harm = shop.harm(&source, watch)?;
    let anchors = harm.anchors(anchor_count(source.layers.len()));
    let (path, down) = reordered(&shop, &source, &units, order.down, watch)?;
    drop(source);
    let net = Net::load(&file::open_model(&path)?)?;
    let levels = shop.levels(&net, &harm, &scores, watch)?;
    let adapters =
        if order.order_only { Recovered::default() } else { recovered(&shop, &net, &levels, &anchors, watch)? };
    let spec = &net.spec;
    let shape = net.shapes[0];
    let effort = &order.effort;
    let tokens = |windows: usize| (windows * effort.window) as u64;
    let package = Package {
        model: ModelId {
            source_blake3: shop.source.clone(),
            permuted_blake3: file::hash(&path)?,
            down: format!("{down:?}"),
        },
        shape: Shape {
            layers: net.layers.len(),
            dim: spec.dim,
            heads: spec.n_heads,
            head_dim: spec.head_dim,
            groups: spec.n_groups,
            neurons: spec.ffn,
            group_step: shape.group_step,
            neuron_step: shape.neuron_step,
        },
        criterion: Criterion::Effect.name().into(),
        order: units,
        anchors,
        adapters: adapters.adapters.iter().map(|(level, adapters)| stored(*level, adapters)).collect::<Result<_>>()?,
        levels,
        report: Report {
            command: order.command.clone(),
            seed: effort.seed,
            calibration_tokens: tokens(effort.importance + effort.harm + effort.search + effort.fit),
            training_tokens: tokens(2 * adapters.steps),
            seconds: shop.seconds() + adapters.seconds,
        },
    };
    write(&shop, &package, path)
}

/// Write the package beside the reordered model at `model`.
pub(crate) fn write(shop: &Workshop, package: &Package, model: PathBuf) -> Result<Outcome> {
    let bytes = package.to_bytes()?;
    let to = shop.folder.join(format!("{}.elastic.safetensors", stem(&shop.model_path)));
    file::write_whole(&to, &bytes)?;
    let adapter_bytes = package.adapters.iter().flat_map(|l| &l.sites).map(|(_, _, a)| a.bytes()).sum();
    Ok(Outcome { model, package: to, package_bytes: bytes.len(), adapter_bytes })
}

pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
}

/// How long it will take, by a short measurement.
fn forecast(shop: &Workshop, net: &Net, order_only: bool) -> Result<String> {
    let windows = shop.windows(2, 0)?;
    let units = net.full();
    let pass = Pass::new(net, &units, None)?;
    let batch = batches(&windows).into_iter().next().context("no text")?;
    let begun = Instant::now();
    pass.hidden(&batch)?;
    let per_token = begun.elapsed().as_secs_f64() / batch.ids.len() as f64;
    let (effort, layers) = (&shop.effort, net.layers.len() as f64);
    let windows = |n: usize| (n * effort.window) as f64;
    // In forward passes of a token: a backward pass is two thirds more, the head is about a quarter of a pass.
    let levels = (LEVELS.len() - 1) as f64;
    let mut passes = 2.5 * windows(effort.importance) + windows(effort.harm) * (1.0 + 0.8 * layers);
    passes += windows(effort.formats) * 4.0 * 1.25;
    // Halves: each once alone, then about three for each that goes; a pass begins where it differs, half-way on the mean.
    let gone = layers * f64::from(100 - HALVES_DOWN_TO) / 100.0;
    passes += (2.0 * layers + 2.0 * gone * 3.0) * 0.5 * windows(effort.search);
    passes += levels * (18.0 + effort.search_steps as f64) * windows(effort.search);
    if !order_only {
        passes += windows(effort.train) * 1.3 + (1.0 + 1.5 * levels) * windows(effort.fit);
        passes += levels * effort.train_steps as f64 * windows(2) * 1.6;
    }
    let minutes = passes * per_token / 60.0;
    Ok(format!(
        "{:.0} tokens/s here: about {minutes:.0} minutes in all, less what an earlier run has done",
        1.0 / per_token
    ))
}

/// Write the model with its units in order: its file, and the type of `down` in it.
fn reordered(
    shop: &Workshop,
    source: &Net,
    order: &[concertina_elastic::LayerOrder],
    down: Option<DType>,
    watch: &mut dyn Watch,
) -> Result<(PathBuf, DType)> {
    let to = shop.folder.join(format!("{}.elastic.gguf", stem(&shop.model_path)));
    let energy: Vec<Vec<f32>> = shop.stage("energy", &[shop.effort.fit], || {
        watch.say("sizes of neurons");
        importance::energy(source, &shop.windows(shop.effort.fit, 4)?)
    })?;
    let bytes = file::map(&shop.model_path)?;
    let formats: Vec<DType> = down.map_or_else(|| FORMATS.to_vec(), |down| vec![down]);
    let windows = shop.windows(shop.effort.formats, 5)?;
    let basis = [shop.effort.importance, shop.effort.fit, shop.effort.formats];
    for (i, dtype) in formats.iter().enumerate() {
        rewrite(&*bytes, &shop.model, &to, Rewrite { order, energy: &energy, down: *dtype })?;
        let tried: Tried = shop.stage(&format!("down-{dtype:?}"), &basis, || {
            watch.say(&format!("down as {dtype:?}: measuring what it costs"));
            let net = Net::load(&file::open_model(&to)?)?;
            Ok(Tried {
                dtype: format!("{dtype:?}"),
                bytes: std::fs::metadata(&to)?.len(),
                perplexity: surprise(&net, &net.full(), None, &windows)?.perplexity(),
                source_perplexity: surprise(source, &source.full(), None, &windows)?.perplexity(),
            })
        })?;
        let loss = tried.perplexity / tried.source_perplexity - 1.0;
        watch.say(&format!(
            "down as {dtype:?}: {} bytes, perplexity {:.3}, {:+.2} % against the model as it came",
            tried.bytes,
            tried.perplexity,
            loss * 100.0
        ));
        if loss <= FORMAT_LOSS || i + 1 == formats.len() {
            return Ok((to, *dtype));
        }
    }
    anyhow::bail!("no format of `down` to try")
}

/// Adapters by level, and what they took.
#[derive(Default)]
struct Recovered {
    adapters: Vec<(u32, Adapters)>,
    steps: usize,
    seconds: f64,
}

/// Adapters of every level below 100, fitted and trained.
fn recovered(
    shop: &Workshop,
    net: &Net,
    levels: &[SubModel],
    anchors: &[usize],
    watch: &mut dyn Watch,
) -> Result<Recovered> {
    let effort = &shop.effort;
    let cut: Vec<&SubModel> = levels.iter().filter(|sub| sub.level < 100).collect();
    let kept = |sub: &SubModel| shop.folder.join(format!("adapters-{}.safetensors", sub.level));
    let mut text: Option<Batch> = None;
    let mut trainees = Vec::new();
    for sub in cut {
        let (path, units) = (kept(sub), &sub.layers);
        let trainee = if path.is_file() {
            let mut trainee = Trainee::new(Adapters::zeros(net, units, anchors, effort.rank)?);
            trainee.load(&path)?;
            trainee
        } else {
            watch.begin(&format!("fitting adapters of level {}", sub.level), net.layers.len());
            let text = match &mut text {
                Some(text) => text,
                none => none.insert(fitting_text(shop)?),
            };
            let begun = Instant::now();
            let fitted = fit(net, units, anchors, text, effort.rank, &mut |done, _| watch.step(done, ""))?;
            let mut trainee = Trainee::new(fitted);
            trainee.took(begun.elapsed().as_secs_f32());
            trainee.save(&path)?;
            log::info!("level {}: fitted in {:.0} s", sub.level, begun.elapsed().as_secs_f64());
            trainee
        };
        trainees.push((sub, trainee));
    }
    let training = training(effort);
    if trainees.iter().any(|(_, trainee)| trainee.step() < training.steps) {
        let (lessons, questions) = (shop.lessons(net, watch)?, shop.questions()?);
        let reading = Reading { lessons: &lessons, questions: &questions };
        for (sub, trainee) in &mut trainees {
            train(net, sub, trainee, reading, training, &kept(sub), watch)?;
        }
    }
    let steps = trainees.iter().map(|(_, trainee)| trainee.step()).sum();
    let seconds = trainees.iter().map(|(_, trainee)| f64::from(trainee.seconds())).sum();
    let adapters = trainees.into_iter().map(|(sub, trainee)| (sub.level, trainee.adapters().clone())).collect();
    Ok(Recovered { adapters, steps, seconds })
}

/// How adapters are trained.
pub(crate) fn training(effort: &Effort) -> Training {
    Training { steps: effort.train_steps, seed: effort.seed, ..Training::default() }
}

/// Train the adapters of a level.
pub(crate) fn train(
    net: &Net,
    sub: &SubModel,
    trainee: &mut Trainee,
    reading: Reading<'_>,
    training: Training,
    kept: &Path,
    watch: &mut dyn Watch,
) -> Result<()> {
    watch.begin(&format!("training adapters of level {}", sub.level), training.steps);
    let mut progress = |done: usize, _: usize, late: Late| watch.step(done, &late.to_string());
    trainee.train(net, &sub.layers, reading, training, kept, &mut progress)
}

/// The text that adapters are fitted on.
pub(crate) fn fitting_text(shop: &Workshop) -> Result<Batch> {
    let windows = shop.windows(shop.effort.fit, 7)?;
    Ok(Batch { ids: windows.all.iter().flat_map(|(_, ids)| ids).copied().collect(), tokens: windows.tokens })
}
