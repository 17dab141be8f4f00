//! `ctx shell`: many commands on one service, so that contexts stay in memory between them.

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};

use super::args::{CommonArgs, ContextCommand};
use super::contexts::{Contexts, say_which};
use super::execute::Desk;
use crate::commands::chat::input::{Input, Line};

const HELP: &str = "\
Examples:
  new --system \"You are brief.\"
  ask ID \"Name three rivers.\"
  list --all-apps
  help ask
  quit";

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(name = "ctx", no_binary_name = true, about = "Commands on contexts", after_help = HELP)]
struct ShellLine {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: ShellCommand,
}

#[derive(Debug, Subcommand)]
enum ShellCommand {
    #[command(flatten)]
    Context(Box<ContextCommand>),
    /// Leave; Ctrl-D does too
    #[command(alias = "exit")]
    Quit,
}

/// Read lines until there are no more. `common` is what lines leave out.
pub fn read_lines(desk: &mut Desk<'_>, contexts: &mut Contexts, common: &CommonArgs, input: &mut Input) -> Result<()> {
    let interactive = input.is_terminal();
    if interactive {
        eprintln!("Commands on contexts, without `concertina ctx` before them. `help` lists them, `quit` leaves.");
    }
    loop {
        let line = match input.line()? {
            Line::End => return Ok(()),
            Line::Interrupted => {
                eprintln!("(Ctrl-D or `quit` leaves)");
                continue;
            }
            Line::Text(line) => line,
        };
        let done = match parse(&line) {
            Ok(None) => continue,
            Ok(Some(ShellLine { command: ShellCommand::Quit, .. })) => return Ok(()),
            Ok(Some(ShellLine { common: own, command: ShellCommand::Context(command) })) => {
                let app = own.app.as_ref().or(common.app.as_ref()).map_or(super::DEFAULT_APP, String::as_str);
                let how = CommonArgs { app: None, json: own.json || common.json };
                let done = desk.execute(contexts, app, &how, &command);
                done.map_err(|e| say_which(e, app, command.id()))
            }
            Err(e) => Err(e),
        };
        match done {
            // Somebody who sits there can go on; a script must learn of it.
            Err(e) if interactive && !crate::is_broken_pipe(&e) => eprintln!("concertina: {e:#}"),
            other => other.with_context(|| format!("`{}`", beginning(&line)))?,
        }
    }
}

/// Enough of a line to know it by.
fn beginning(line: &str) -> String {
    let line = line.trim();
    let short: String = line.chars().take(60).collect();
    if short.len() < line.len() { short + "…" } else { short }
}

/// A command; `None` for lines that hold none, and where help was asked for and given.
fn parse(line: &str) -> Result<Option<ShellLine>> {
    let words = shlex::split(line).ok_or_else(|| anyhow!("a quotation mark is not closed"))?;
    if words.is_empty() {
        return Ok(None);
    }
    match ShellLine::try_parse_from(words) {
        Ok(line) => Ok(Some(line)),
        Err(e) if !e.use_stderr() => {
            e.print()?;
            Ok(None)
        }
        Err(e) => Err(anyhow!("{}", e.to_string().trim_start_matches("error: ").trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_as_a_shell_does() {
        let id = "0123456789abcdef";
        let line = parse(&format!("ask {id} \"two words\" --greedy --app mail --json")).unwrap().unwrap();
        assert_eq!((line.common.app.as_deref(), line.common.json), (Some("mail"), true));
        let ShellCommand::Context(command) = line.command else { panic!("no command") };
        assert!(matches!(*command, ContextCommand::Ask(args) if args.message == "two words" && args.sampling.greedy));
        assert!(matches!(parse("exit").unwrap().unwrap().command, ShellCommand::Quit));
        for nothing in ["", "  ", "# a remark"] {
            assert!(parse(nothing).unwrap().is_none(), "{nothing}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let error = |line| parse(line).unwrap_err().to_string();
        assert!(error("ask \"").contains("quotation"));
        assert!(error("frobnicate").contains("unrecognized subcommand"));
        assert!(error("pin 12").contains("16 hex digits"));
        assert!(error("list --kv-memory 1MiB").contains("--kv-memory"), "what the service is opened with stays");
    }
}
