//! `concertina chat`: a conversation in the terminal.

mod conversation;
pub(super) mod input;
pub(super) mod interrupt;
mod talk;

use anyhow::{Result, ensure};
use clap::Args;

use super::sampling::SamplingArgs;
use super::slo::SloArgs;
use crate::cli::GlobalArgs;
use crate::session::{Session, context_tokens};
use input::{Input, Line};
use interrupt::Interrupt;
use talk::Talk;

const EXAMPLES: &str = "\
Examples:
  concertina chat
  concertina chat -m qwen-0.5b --system \"You answer in one sentence.\"
  concertina chat --greedy --max-tokens 200
  concertina chat --class quick                        as much of the model and of each message as its target asks for
  concertina chat --prompt-level 60                    the words of each message that matter most
  printf 'Name a river.\\nAnd another.\\n' | concertina chat      each line is a message

While chatting: Ctrl-C stops the answer, Ctrl-D ends the chat, the arrow keys bring back earlier lines, and /help lists
the commands.";

const HELP: &str = "\
/help    this list
/clear   begin a new conversation
/stats   the last answer in numbers
/quit    leave (as Ctrl-D does)
Ctrl-C stops an answer. A line that begins with a space is a message even if a / follows.";

/// Talk to a model in the terminal.
///
/// The answer appears as it is made. Lines you typed are kept for the next chat unless --no-history is given. When the
/// conversation outgrows the context, its oldest turns are dropped and you are told. A model without a chat template
/// continues your text instead of answering it. With a target or --prompt-level a message may be shortened before it is read;
/// what is left of it is what the conversation remembers. What was said before and --system are never shortened.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArgs {
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Tokens after which an answer is cut off
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Tokens that the conversation may have [default: what the model reads, as far as 512 MiB hold it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    pub context: Option<u32>,
    /// Neither read nor keep the lines of earlier chats
    #[arg(long)]
    pub no_history: bool,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    #[command(flatten)]
    pub slo: SloArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(global: &GlobalArgs, args: &ChatArgs) -> Result<()> {
    let session = Session::open(global, |model, options| {
        ensure!(
            args.system.is_none() || model.chat.is_some(),
            "this model has no chat template, so there is no place for --system"
        );
        options.exact = args.exact;
        let tokens = context_tokens(model, options, args.context)?;
        options.fit_contexts(&model.spec, tokens);
        Ok(())
    })?;
    let mut input = Input::open(args.no_history)?;
    let interactive = input.is_terminal();
    let interrupt = Interrupt::listen(interactive)?;
    let mut talk = Talk::new(session, global, args, interrupt)?;
    if interactive {
        eprintln!("{}", talk.greeting());
    }
    loop {
        match input.line()? {
            Line::End => return Ok(()),
            Line::Interrupted => eprintln!("(Ctrl-D or /quit leaves)"),
            Line::Text(line) => {
                if line.trim().is_empty() {
                    continue;
                }
                let done = match line.strip_prefix('/') {
                    Some("quit" | "exit") => return Ok(()),
                    Some(command) => {
                        slash(&mut talk, command.trim());
                        Ok(())
                    }
                    None => talk.answer(&line, interactive),
                };
                match done {
                    // Somebody who sits there can go on; a script must learn of it.
                    Err(e) if interactive && !crate::is_broken_pipe(&e) => eprintln!("concertina: {e:#}"),
                    other => other?,
                }
            }
        }
    }
}

fn slash(talk: &mut Talk, command: &str) {
    match command {
        "help" | "?" => eprintln!("{HELP}"),
        "clear" => {
            talk.clear();
            eprintln!("(a new conversation)");
        }
        "stats" => eprintln!("{}", talk.stats()),
        other => {
            eprintln!("There is no command /{other}: see /help. To send this as a message, begin it with a space.")
        }
    }
}
