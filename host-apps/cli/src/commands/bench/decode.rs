//! `concertina bench decode`.

use anyhow::Result;
use clap::Args;

use super::RunsArgs;
use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina bench decode
  concertina bench decode --tokens 64,256 --adapter nvidia --json";

/// Measure how fast an answer is written.
///
/// Reported for each length: tokens a second, median, fastest and slowest run.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DecodeArgs {
    /// Answer lengths in tokens, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Vec<u32>,
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub fn run(_global: &GlobalArgs, _args: &DecodeArgs) -> Result<()> {
    crate::commands::needs_engine("bench decode")
}
