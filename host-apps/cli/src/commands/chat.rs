//! `concertina chat`: a conversation in the terminal.

use anyhow::Result;
use clap::Args;

use super::sampling::SamplingArgs;
use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina chat
  concertina chat -m qwen-0.5b --system \"You answer in one sentence.\"
  concertina chat --greedy --max-tokens 200

While chatting: Ctrl-C stops the answer, Ctrl-D ends the chat, the arrow keys bring back earlier lines.";

/// Talk to a model in the terminal.
///
/// The answer appears as it is made. Lines you typed are kept for the next chat unless --no-history is given.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArgs {
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Tokens after which an answer is cut off
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Neither read nor keep the lines of earlier chats
    #[arg(long)]
    pub no_history: bool,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(_global: &GlobalArgs, _args: &ChatArgs) -> Result<()> {
    super::needs_engine("chat")
}
