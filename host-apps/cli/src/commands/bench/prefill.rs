//! `concertina bench prefill`.

use anyhow::Result;
use clap::Args;

use super::RunsArgs;
use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina bench prefill
  concertina bench prefill --tokens 16,128,1024 --runs 5
  concertina bench prefill -m qwen-0.5b --json";

/// Measure how fast a prompt is read.
///
/// Reported for each length: tokens a second, median, fastest and slowest run.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PrefillArgs {
    /// Prompt lengths in tokens, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128,512",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Vec<u32>,
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub fn run(_global: &GlobalArgs, _args: &PrefillArgs) -> Result<()> {
    crate::commands::needs_engine("bench prefill")
}
