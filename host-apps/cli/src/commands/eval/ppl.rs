//! `concertina eval ppl`: perplexity of a text.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina eval ppl --file book.txt
  concertina eval ppl -m qwen-0.5b --file book.txt --window 512 --exact --json";

/// Perplexity of a text.
///
/// The text is cut into windows of --window tokens that do not overlap. Each is read on its own and scored from its
/// second token on. Reported are the perplexity (`ppl`), the summed negative log-likelihood in nats (`nll_sum`) and the
/// number of scored tokens (`tokens`).
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PplArgs {
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens in a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub window: u32,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(_global: &GlobalArgs, _args: &PplArgs) -> Result<()> {
    crate::commands::needs_engine("eval ppl")
}
