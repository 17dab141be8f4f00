//! `concertina eval logits`: the raw output of a model.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::cli::GlobalArgs;
use crate::commands::level::MeasuredLevel;
use crate::data::npy::NpyWriter;
use crate::data::tokens::TokensFile;
use crate::session::Session;

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
    #[command(flatten)]
    pub level: MeasuredLevel,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
}

pub fn run(global: &GlobalArgs, args: &LogitsArgs) -> Result<()> {
    let file = TokensFile::read(&args.tokens)?;
    let count = file.tokens.len();
    let mut session = Session::open(global, |model, options| {
        file.check_vocabulary(model.spec.vocab)?;
        let most = model.spec.context_len;
        ensure!(count <= most, "there are {count} tokens, and this model reads at most {most}");
        options.exact = args.exact;
        options.fit_contexts(&model.spec, count);
        Ok(())
    })?;
    let vocab = session.engine.model().spec.vocab;
    // The array is begun first: a place that cannot be written is told before the work.
    let mut array = NpyWriter::create(&args.out, file.positions.len(), vocab)?;
    let level = args.level.apply(&mut session.engine)?;
    let rows = pollster::block_on(session.engine.logits(&file.tokens, &file.positions, level, 0))?;
    for row in &rows {
        array.row(row)?;
    }
    array.finish()?;
    log::info!("{} rows of {vocab} logits by {}", rows.len(), session.engine.adapter());
    Ok(())
}
