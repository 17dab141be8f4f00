//! From a model's name to an engine that runs it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use concertina::elastic::heads::Heads;
use concertina::elastic::package::Package;
use concertina::formats::Model;
use concertina::{Engine, Finish, Options, Sampling};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::GlobalArgs;
use crate::commands::sampling::SamplingArgs;
use crate::models::resolve::resolve_model;

/// The sub-model that runs: all of the model.
pub const LEVEL: u32 = 100;

/// Keys and values that a conversation gets without being asked.
const DEFAULT_KV_BYTES: u64 = 512 << 20;

/// A loaded model.
pub struct Session {
    pub engine: Engine,
    pub path: PathBuf,
    offline: bool,
}

impl Session {
    /// Find the model (downloading it if need be), open the adapter, load the weights with a progress bar. `prepare` sees
    /// the model before its weights are loaded: it sets what the command needs, or refuses.
    pub fn open(global: &GlobalArgs, prepare: impl FnOnce(&Model, &mut Options) -> Result<()>) -> Result<Self> {
        let path = resolve_model(global.model.as_deref(), global.offline)?;
        let model = concertina::native::open_model(&path)
            .with_context(|| format!("cannot open the model {}", path.display()))?;
        let mut options = Options { adapter: global.adapter.clone(), contexts: 1, ..Options::default() };
        options.tune_host = crate::tuning::host();
        prepare(&model, &mut options)?;
        let mut shown: Option<ProgressBar> = None;
        let mut progress = |done, total| {
            let template = "loading {bar:30} {binary_bytes}/{binary_total_bytes}";
            shown.get_or_insert_with(|| bar(total, template)).set_position(done);
        };
        let engine = pollster::block_on(Engine::load(model, options, &mut progress));
        if let Some(bar) = shown {
            bar.finish_and_clear();
        }
        let mut engine = engine?;
        if let Some(package) = package_of(&path)? {
            engine.use_package(&package)?;
        }
        if engine.is_software() && std::io::stderr().is_terminal() {
            eprintln!(
                "Note: {} is a CPU, so this is slow. With the driver of a GPU it is much faster: see `concertina doctor`.",
                engine.adapter()
            );
        }
        Ok(Self { engine, path, offline: global.offline })
    }

    /// Load the prompt's encoder, if the model has one: see [`load_encoder`].
    ///
    /// # Errors
    /// As [`load_encoder`].
    pub fn load_encoder(&mut self) -> Result<bool> {
        load_encoder(&mut self.engine, &self.path, self.offline)
    }

    /// The model as reports name it.
    pub fn model_name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Load the prompt's encoder, if the model has one: heads in `NAME.encoder.safetensors` beside `NAME.elastic.gguf`. Its bottom
/// is pulled where it is not here yet. Returns whether there is one.
///
/// # Errors
/// If the heads are damaged or for another model, or the bottom cannot be had.
pub fn load_encoder(engine: &mut Engine, model: &Path, offline: bool) -> Result<bool> {
    if engine.heads().is_some() {
        return Ok(true);
    }
    let name = model.to_string_lossy();
    let Some(stem) = name.strip_suffix(".elastic.gguf") else { return Ok(false) };
    let heads = PathBuf::from(format!("{stem}.encoder.safetensors"));
    if !heads.is_file() {
        return Ok(false);
    }
    let read = concertina::native::open_heads(&heads).with_context(|| format!("{} cannot be used", heads.display()))?;
    log::info!("the prompt's encoder: {}, labels of the model {}", heads.display(), read.model_blake3);
    if let Some(package) = read_package(model)?
        && let Some(remark) = labels_of_another(&read, &package)
    {
        log::warn!("{}: {remark}", heads.display());
    }
    let bottom = resolve_model(Some("minilm"), offline)?;
    let bottom = concertina::native::open_encoder(&bottom)
        .with_context(|| format!("cannot open the encoder {}", bottom.display()))?;
    pollster::block_on(engine.load_encoder(bottom, read))?;
    Ok(true)
}

/// Files that labels were made with, and the model that they are roundings of: BLAKE3 of both. The heads that come with the
/// program were made with an earlier rounding of `down` of the same model.
const ROUNDINGS: [(&str, &str); 1] = [(
    "4d436f21c3b6acdc6df986e82132af638b47dcabd69f7cc72bad218387998394",
    "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
)];

/// What is to be said where an encoder's labels were made with a file that is not known to be the package's model.
pub fn labels_of_another(heads: &Heads, package: &Package) -> Option<String> {
    let ids = [&package.model.permuted_blake3, &package.model.source_blake3];
    let known = ROUNDINGS.contains(&(&heads.model_blake3, &package.model.source_blake3));
    if known || ids.contains(&&heads.model_blake3) {
        return None;
    }
    let short = |hash: &str| hash.chars().take(8).collect::<String>();
    Some(format!(
        "its scores of words were learnt with another file of a model ({}…) than this one ({}…). If that was the same model, rounded \
         otherwise, they serve it as well; for another model make heads anew",
        short(&heads.model_blake3),
        short(&package.model.permuted_blake3)
    ))
}

/// The package of an elastic model: `NAME.elastic.safetensors` beside `NAME.elastic.gguf`.
pub fn package_of(model: &Path) -> Result<Option<Package>> {
    let Some(found) = read_package(model)? else { return Ok(None) };
    let hash = concertina::native::blake3_of(model).with_context(|| format!("cannot read {}", model.display()))?;
    anyhow::ensure!(
        hash == found.model.permuted_blake3,
        "{} was made for another file than {}: make both anew with `concertina elasticize`",
        model.with_extension("safetensors").display(),
        model.display()
    );
    Ok(Some(found))
}

/// The same, where the model's own file is known to be the package's.
fn read_package(model: &Path) -> Result<Option<Package>> {
    let package = model.with_extension("safetensors");
    if !model.to_string_lossy().ends_with(".elastic.gguf") || !package.is_file() {
        return Ok(None);
    }
    let shown = package.display();
    let bytes = std::fs::read(&package).with_context(|| format!("cannot read {shown}"))?;
    Ok(Some(Package::from_bytes(&bytes).with_context(|| format!("{shown} cannot be used"))?))
}

/// Tokens of a context: as many as asked for, else as many as the model reads and a fair share of memory holds.
pub fn context_tokens(model: &Model, options: &Options, asked: Option<u32>) -> Result<usize> {
    let most = model.spec.context_len;
    match asked {
        Some(tokens) if tokens as usize > most => {
            anyhow::bail!("--context {tokens} is more than the {most} tokens that this model reads")
        }
        Some(tokens) => Ok(tokens as usize),
        None => Ok(most.min(options.tokens_within(&model.spec, DEFAULT_KV_BYTES))),
    }
}

/// A bar on standard error; nothing where that is no terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // Templates are constants; a mistake in one shows as a plain bar, not as a crash.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What the flags say, over the defaults.
pub fn sampling(args: &SamplingArgs) -> Sampling {
    if args.greedy {
        let repetition_penalty = args.repetition_penalty.unwrap_or(1.0);
        return Sampling { repetition_penalty, ..Sampling::greedy() };
    }
    let default = Sampling::default();
    Sampling {
        temperature: args.temperature.unwrap_or(default.temperature),
        top_k: args.top_k.unwrap_or(default.top_k),
        // The kernel's filters are off at 1; 0 would keep the likeliest token only, which a tiny share does too.
        top_p: args.top_p.unwrap_or(default.top_p).max(f32::MIN_POSITIVE),
        min_p: args.min_p.unwrap_or(default.min_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(default.repetition_penalty),
        seed: args.seed.map_or_else(random_seed, |seed| (seed ^ (seed >> 32)) as u32),
    }
}

/// A seed that differs from run to run.
fn random_seed() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32
}

/// Why an answer ended, as JSON has it.
pub fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ContextFull => "context_full",
        Finish::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_another_model_are_told_of_and_those_that_come_with_the_program_are_not() {
        let artefact = |suffix: &str| {
            let name = format!("../../elastic/artefacts/smollm2-135m-instruct-q4_1.{suffix}.safetensors");
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
        };
        let package = Package::from_bytes(&artefact("elastic")).unwrap();
        let mut heads = Heads::from_bytes(&artefact("encoder")).unwrap();
        assert_eq!(labels_of_another(&heads, &package), None);
        heads.model_blake3 = "ab".repeat(32);
        let said = labels_of_another(&heads, &package).unwrap();
        assert!(said.contains("abababab…") && said.contains(&package.model.permuted_blake3[..8]), "{said}");
        heads.model_blake3.clone_from(&package.model.permuted_blake3);
        assert_eq!(labels_of_another(&heads, &package), None);
    }
}
