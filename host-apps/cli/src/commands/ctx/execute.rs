//! One command on contexts, whichever way they are open.

use std::io::{Read, Write};

use anyhow::Result;
use serde_json::json;

use super::args::{CommonArgs, ContextCommand, ListArgs, ShowArgs};
use super::ask::{append, ask, switch_json, text_or_input, way_back};
use super::contexts::{Contexts, now_ms};
use super::id::show_id;
use super::usage::{usage_json, usage_table};
use crate::cli::GlobalArgs;
use crate::commands::chat::interrupt::Interrupt;
use crate::pull::human_binary_bytes;
use crate::session::LEVEL;

/// What commands share.
pub struct Desk<'a> {
    pub global: &'a GlobalArgs,
    pub interrupt: &'a Interrupt,
    /// Where `-` reads from; `None` where standard input is taken.
    pub input: Option<&'a mut dyn Read>,
}

impl Desk<'_> {
    pub fn execute(
        &mut self,
        contexts: &mut Contexts,
        app: &str,
        common: &CommonArgs,
        command: &ContextCommand,
    ) -> Result<()> {
        let mut out = std::io::stdout();
        match command {
            ContextCommand::New(args) => {
                let service = contexts.service()?;
                let id = pollster::block_on(service.create(app, args.system.as_deref()))?;
                made(common, &show_id(id))?;
            }
            ContextCommand::Ask(args) => {
                let message = text_or_input(&args.message, self.input.take())?;
                ask(contexts.service()?, app, common, args, &message, self.interrupt)?;
            }
            ContextCommand::Append(args) => {
                let text = text_or_input(&args.text, self.input.take())?;
                let served = append(contexts.service()?, app, args, &text)?;
                let tokens = served.answer.context_tokens;
                if common.json {
                    writeln!(out, "{}", json!({"context_tokens": tokens, "switch": switch_json(&served.switch)}))?;
                } else {
                    eprintln!("[{tokens} tokens in context; {}]", way_back(&served.switch));
                }
            }
            ContextCommand::List(args) => list(contexts, app, common, *args)?,
            ContextCommand::Show(args) => self.show(contexts, app, common, *args)?,
            ContextCommand::Fork(args) => {
                let id = contexts.fork(app, args.id.id, args.keep)?;
                made(common, &show_id(id))?;
            }
            ContextCommand::Prewarm(args) => {
                let switch = pollster::block_on(contexts.service()?.prewarm(app, args.id, LEVEL))?;
                if common.json {
                    writeln!(out, "{}", switch_json(&switch))?;
                } else {
                    eprintln!("[{}]", way_back(&switch));
                }
            }
            ContextCommand::Measure(args) => {
                let text = text_or_input(&args.text, self.input.take())?;
                measured(common, contexts.service()?.measure(&text)?)?;
            }
            ContextCommand::Pin(args) => contexts.pin(app, args.id, true)?,
            ContextCommand::Unpin(args) => contexts.pin(app, args.id, false)?,
            ContextCommand::Compact(args) => {
                let service = contexts.service()?;
                let gone = pollster::block_on(service.compact(app, args.id.id, args.keep, args.to))?;
                let left = contexts.usage(app, args.id.id)?.tokens;
                if common.json {
                    writeln!(out, "{}", json!({"dropped_tokens": gone, "context_tokens": left}))?;
                } else {
                    eprintln!("[{gone} tokens dropped; {left} tokens in context]");
                }
            }
            ContextCommand::Delete(args) => contexts.delete(app, args.id)?,
        }
        Ok(())
    }

    fn show(&mut self, contexts: &mut Contexts, app: &str, common: &CommonArgs, args: ShowArgs) -> Result<()> {
        let id = args.id.id;
        let usage = contexts.usage(app, id)?;
        let tokens = contexts.tokens(app, id)?;
        let text = if args.tokens { None } else { Some(contexts.text(self.global, app, id, &tokens)?) };
        let mut out = std::io::stdout().lock();
        if common.json {
            let mut value = usage_json(&usage);
            match text {
                Some(text) => value["text"] = text.into(),
                None => value["token_ids"] = tokens.into(),
            }
            writeln!(out, "{value}")?;
            return Ok(());
        }
        write!(out, "{}", usage_table(&[usage], now_ms()))?;
        match text {
            Some(text) => writeln!(out, "\n{text}")?,
            None => writeln!(out, "\n{}", tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))?,
        }
        Ok(())
    }
}

fn list(contexts: &mut Contexts, app: &str, common: &CommonArgs, args: ListArgs) -> Result<()> {
    let apps = if args.all_apps { contexts.apps()? } else { vec![app.to_owned()] };
    let mut found = Vec::new();
    for app in apps {
        found.extend(contexts.list(&app)?);
    }
    found.sort_by_key(|usage| std::cmp::Reverse(usage.used_ms));
    let mut out = std::io::stdout().lock();
    if common.json {
        writeln!(out, "{}", serde_json::Value::from(found.iter().map(usage_json).collect::<Vec<_>>()))?;
        return Ok(());
    }
    write!(out, "{}", usage_table(&found, now_ms()))?;
    if let Contexts::Live(service) = contexts {
        let (used, _, limit) = service.memory();
        writeln!(out, "{} of {} of memory in use", human_binary_bytes(used), human_binary_bytes(limit))?;
    }
    Ok(())
}

/// The list where no store was ever made.
pub fn list_nothing(common: &CommonArgs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(if common.json { writeln!(out, "[]")? } else { write!(out, "{}", usage_table(&[], 0))? })
}

pub fn measured(common: &CommonArgs, tokens: usize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(if common.json { writeln!(out, "{}", json!({"tokens": tokens}))? } else { writeln!(out, "{tokens}")? })
}

fn made(common: &CommonArgs, id: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(if common.json { writeln!(out, "{}", json!({"id": id}))? } else { writeln!(out, "{id}")? })
}
