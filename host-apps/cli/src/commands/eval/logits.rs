//! `concertina eval logits`: the raw output of a model.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  echo '{\"tokens\": [1, 2, 3], \"positions\": [0, 2]}' > tokens.json
  concertina eval logits --tokens tokens.json --out logits.npy --exact
  python3 -c \"import numpy; print(numpy.load('logits.npy').shape)\"";

/// Write the logits at chosen positions of a token sequence.
///
/// The output is a float32 array in NumPy's .npy format: a row for each position, in the order they are listed, and a
/// column for each token of the vocabulary.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct LogitsArgs {
    /// JSON: {"tokens": [ids], "positions": [indices into tokens]}
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// Where the array is written
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
}

pub fn run(_global: &GlobalArgs, _args: &LogitsArgs) -> Result<()> {
    crate::commands::needs_engine("eval logits")
}
