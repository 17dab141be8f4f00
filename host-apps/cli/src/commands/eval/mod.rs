//! `concertina eval`: how good the numbers are.

pub mod kept;
pub mod logits;
mod mc;
pub mod ppl;

use anyhow::Result;
use clap::Subcommand;

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina eval ppl --file book.txt
  concertina eval mc --file arc_easy.jsonl --limit 100 --json
  concertina eval logits --tokens tokens.json --out logits.npy --exact

`concertina help eval ppl`, and so on, tell more.";

/// Measure a model: perplexity, multiple choice, raw logits.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum EvalCommand {
    Ppl(ppl::PplArgs),
    Mc(mc::McArgs),
    Logits(logits::LogitsArgs),
}

pub fn run(global: &GlobalArgs, command: &EvalCommand) -> Result<()> {
    match command {
        EvalCommand::Ppl(args) => ppl::run(global, args),
        EvalCommand::Mc(args) => mc::run(global, args),
        EvalCommand::Logits(args) => logits::run(global, args),
    }
}
