//! `concertina elastic`: what a model's levels are, cost and give.

mod apply;
mod cap;
mod plot;
mod show;

use anyhow::Result;
use clap::Subcommand;

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina elastic apply smollm2                       write the elastic model with the built-in package
  concertina elastic show -m smollm2.elastic.gguf
  concertina elastic show -m smollm2.elastic.gguf --text book.txt --svg levels.svg
  concertina elastic cap -m smollm2.elastic.gguf --apps arc_easy.jsonl.gz --svg cap.svg";

/// Write an elastic model, and see what its levels cost and give.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum ElasticCommand {
    Apply(apply::ApplyArgs),
    Show(show::ShowArgs),
    Cap(cap::CapArgs),
}

pub fn run(global: &GlobalArgs, command: &ElasticCommand) -> Result<()> {
    match command {
        ElasticCommand::Apply(args) => apply::run(global, args),
        ElasticCommand::Show(args) => show::run(global, args),
        ElasticCommand::Cap(args) => cap::run(global, args),
    }
}
