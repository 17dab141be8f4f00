//! `concertina ctx`: contexts that outlive calls and processes.

mod args;
mod ask;
mod contexts;
mod execute;
mod id;
mod live;
mod shell;
mod usage;

use std::io::IsTerminal;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use concertina::kv::store::Store;

use super::chat::input::Input;
use super::chat::interrupt::Interrupt;
use crate::cli::GlobalArgs;
use crate::store::StoreArgs;
use args::{CommonArgs, ContextCommand, ServiceArgs};
use contexts::{Contexts, open_model, say_which, unknown};
use execute::{Desk, list_nothing, measured};
use live::open_service;

/// The app of whoever types commands.
const DEFAULT_APP: &str = "cli";

const EXAMPLES: &str = "\
Examples:
  id=$(concertina ctx new --system \"You are brief.\")
  concertina ctx ask $id \"Name three rivers.\"
  concertina ctx ask $id \"And the longest of them?\"     it knows what was said
  concertina ctx list
  concertina ctx fork $id                                another way on from here
  concertina ctx shell --kv-memory 64MiB                 many commands, with contexts in memory between them

Every call but those in a shell is a process of its own: contexts come back from disk.";

const SHELL_EXAMPLES: &str = "\
Examples:
  concertina ctx shell
  concertina ctx shell --kv-memory 32MiB --policy chunk-swap
  printf 'new\\nlist\\n' | concertina ctx shell

In the shell the same commands work without `concertina ctx` before them, and `list` shows widths, bytes in memory and
the order of eviction as they are. Ctrl-C stops an answer. A script of lines ends at the first that fails.";

/// Conversations that stay: made, continued, copied and deleted by id.
///
/// A context is a conversation or a text that the model has read. What was said is on disk, encrypted, when a command
/// returns; the model's keys and values follow, so that coming back costs little. Contexts belong to an app, and no app
/// can reach another's.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CtxArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    service: ServiceArgs,
    #[command(subcommand)]
    command: CtxCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum CtxCommand {
    #[command(flatten)]
    Context(Box<ContextCommand>),
    /// Read such commands line by line, with contexts kept in memory
    #[command(after_help = SHELL_EXAMPLES)]
    Shell,
}

pub fn run(global: &GlobalArgs, args: &CtxArgs) -> Result<()> {
    let app = args.common.app.as_deref().unwrap_or(DEFAULT_APP);
    match &args.command {
        CtxCommand::Shell => shell(global, args),
        CtxCommand::Context(command) => once(global, args, app, command).map_err(|e| say_which(e, app, command.id())),
    }
}

/// One command in a process of its own. The model is loaded only where it runs.
fn once(global: &GlobalArgs, args: &CtxArgs, app: &str, command: &ContextCommand) -> Result<()> {
    let mut stdin = std::io::stdin();
    let interrupt = Interrupt::listen(false)?;
    let mut desk = Desk { global, interrupt: &interrupt, input: Some(&mut stdin), planner: None };
    let mut contexts = match command {
        ContextCommand::Measure(measure) => {
            let text = ask::text_or_input(&measure.text, desk.input.take())?;
            return measured(&args.common, open_model(global)?.tokenizer.encode(&text, false)?.len());
        }
        ContextCommand::New(_) => Contexts::Live(Box::new(open_service(global, &args.service, args.store.open()?)?)),
        ContextCommand::List(_) => match args.store.open_existing()? {
            Some(store) => Contexts::Stored(Box::new(store)),
            None => return list_nothing(&args.common),
        },
        command if command.runs_model() => {
            let mut store = args.store.open_required()?;
            check_known(&mut store, app, command)?;
            Contexts::Live(Box::new(open_service(global, &args.service, store)?))
        }
        _ => Contexts::Stored(Box::new(args.store.open_required()?)),
    };
    let done = desk.execute(&mut contexts, app, &args.common, command);
    done.and(contexts.close())
}

/// Loading a model takes seconds: a wrong id is told before.
fn check_known(store: &mut Store, app: &str, command: &ContextCommand) -> Result<()> {
    let Some(id) = command.id() else { return Ok(()) };
    ensure!(store.list(app)?.iter().any(|info| info.id == id), unknown(app, id));
    Ok(())
}

fn shell(global: &GlobalArgs, args: &CtxArgs) -> Result<()> {
    let interrupt = Interrupt::listen(std::io::stdin().is_terminal())?;
    let service = open_service(global, &args.service, args.store.open()?)?;
    let mut input = Input::open(true)?;
    let mut contexts = Contexts::Live(Box::new(service));
    let mut desk = Desk { global, interrupt: &interrupt, input: None, planner: None };
    let done = shell::read_lines(&mut desk, &mut contexts, &args.common, &mut input);
    done.and(contexts.close())
}
