//! Lines from a person at a terminal, or from a pipe.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result};
use etcetera::BaseStrategy;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Where lines come from.
pub enum Input {
    Terminal { editor: Box<Editor<(), FileHistory>>, history: Option<PathBuf> },
    Pipe,
}

impl Input {
    /// A line editor where standard input is a terminal.
    pub fn open(no_history: bool) -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        let config = Config::builder().auto_add_history(true).build();
        let mut editor: Editor<(), FileHistory> = Editor::with_config(config).context("cannot use the terminal")?;
        let history = if no_history { None } else { history_path() };
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(e) = editor.load_history(path)
        {
            log::warn!("the lines of earlier chats in {} cannot be read: {e}", path.display());
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> Result<Line> {
        match self {
            Self::Pipe => pipe_line(std::io::stdin().lock()),
            Self::Terminal { editor, history } => match editor.readline("> ") {
                Ok(line) => {
                    // Kept at once: a chat may end in other ways than Ctrl-D.
                    if let Some(path) = history
                        && let Err(e) = keep(editor, path)
                    {
                        log::warn!("this chat's lines are not kept: {e:#}");
                        *history = None;
                    }
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(e) => Err(e).context("cannot read from the terminal"),
            },
        }
    }
}

fn keep(editor: &mut Editor<(), FileHistory>, path: &std::path::Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    editor.append_history(path).with_context(|| format!("cannot write {}", path.display()))
}

fn pipe_line(mut input: impl BufRead) -> Result<Line> {
    let mut line = String::new();
    let bytes = input.read_line(&mut line).context("cannot read standard input")?;
    let text = line.strip_suffix('\n').map_or(line.as_str(), |l| l.strip_suffix('\r').unwrap_or(l));
    Ok(if bytes == 0 { Line::End } else { Line::Text(text.to_owned()) })
}

/// `concertina/chat_history` in the platform's directory for state, or for data where it has none for state.
fn history_path() -> Option<PathBuf> {
    let base = etcetera::base_strategy::choose_native_strategy().ok()?;
    Some(base.state_dir().unwrap_or_else(|| base.data_dir()).join("concertina").join("chat_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_cut_into_lines() {
        let mut input: &[u8] = b"one\r\n\ntwo";
        let mut next = || pipe_line(&mut input).unwrap();
        assert_eq!(next(), Line::Text("one".into()));
        assert_eq!(next(), Line::Text(String::new()));
        assert_eq!(next(), Line::Text("two".into()));
        assert_eq!(next(), Line::End);
        assert!(pipe_line(&b"\xff\n"[..]).unwrap_err().to_string().contains("standard input"));
    }
}
