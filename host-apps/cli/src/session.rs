//! From a model's name to an engine that runs it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use concertina::formats::Model;
use concertina::{Engine, Options, Sampling};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::GlobalArgs;
use crate::commands::sampling::SamplingArgs;
use crate::models::resolve::resolve_model;

/// A loaded model.
pub struct Session {
    pub engine: Engine,
    pub path: PathBuf,
}

impl Session {
    /// Find the model (downloading it if need be), open the adapter, load the weights with a progress bar.
    pub fn open(global: &GlobalArgs, change: impl FnOnce(&Model, &mut Options)) -> Result<Self> {
        let path = resolve_model(global.model.as_deref(), global.offline)?;
        let model = concertina::native::open_model(&path)
            .with_context(|| format!("cannot open the model {}", path.display()))?;
        let mut options = Options { adapter: global.adapter.clone(), ..Options::default() };
        change(&model, &mut options);
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template("loading {bar:30} {binary_bytes}/{binary_total_bytes}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let engine = pollster::block_on(Engine::load(model, options, &mut progress));
        bar.finish_and_clear();
        Ok(Self { engine: engine?, path })
    }
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

/// A callback that goes on whatever the text is.
pub fn silent(_: &str) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
