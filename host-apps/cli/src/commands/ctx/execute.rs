//! One command on contexts, whichever way they are open.

use std::io::{Read, Write};

use anyhow::Result;
use concertina::Planner;
use concertina::service::ContextId;
use serde_json::{Value, json};

use super::args::{CommonArgs, ContextCommand, ListArgs, ShowArgs};
use super::ask::{switch_json, text_or_input, way_back};
use super::contexts::{Contexts, now_ms};
use super::id::show_id;
use super::usage::{usage_json, usage_table};
use crate::cli::GlobalArgs;
use crate::commands::chat::interrupt::Interrupt;
use crate::commands::slo::Outcome;
use crate::pull::human_binary_bytes;

/// What commands share.
pub struct Desk<'a> {
    pub global: &'a GlobalArgs,
    pub interrupt: &'a Interrupt,
    /// Where `-` reads from; `None` where standard input is taken.
    pub input: Option<&'a mut dyn Read>,
    /// Of calls with a target, from the first of them on.
    pub planner: Option<Planner>,
}

impl Desk<'_> {
    pub fn execute(
        &mut self,
        contexts: &mut Contexts,
        app: &str,
        common: &CommonArgs,
        command: &ContextCommand,
    ) -> Result<()> {
        match command {
            ContextCommand::New(args) => {
                let service = contexts.service()?;
                let id = pollster::block_on(service.create(app, args.system.as_deref()))?;
                made(common, id)?;
            }
            ContextCommand::Ask(args) => {
                let message = text_or_input(&args.message, self.input.take())?;
                self.ask(contexts.service()?, app, common, args, &message)?;
            }
            ContextCommand::Append(args) => {
                let text = text_or_input(&args.text, self.input.take())?;
                let (served, outcome) = self.append(contexts.service()?, app, args, &text)?;
                let tokens = served.answer.context_tokens;
                let kept = outcome.as_ref().map_or_else(String::new, |outcome| format!("; {}", outcome.kept()));
                let text = format!("{tokens} tokens in context{kept}; {}", way_back(&served.switch));
                let value = json!({
                    "context_tokens": tokens,
                    "level": served.answer.level,
                    "switch": switch_json(&served.switch),
                    "slo": outcome.as_ref().map(Outcome::kept_json),
                });
                remark(common, &value, &text)?;
            }
            ContextCommand::List(args) => list(contexts, app, common, *args)?,
            ContextCommand::Show(args) => self.show(contexts, app, common, *args)?,
            ContextCommand::Fork(args) => {
                let id = contexts.fork(app, args.id.id, args.keep)?;
                made(common, id)?;
            }
            ContextCommand::Prewarm(args) => {
                let switch = pollster::block_on(contexts.service()?.prewarm(app, args.id.id, args.level.level))?;
                remark(common, &switch_json(&switch), &way_back(&switch))?;
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
                remark(
                    common,
                    &json!({"dropped_tokens": gone, "context_tokens": left}),
                    &format!("{gone} tokens dropped; {left} tokens in context"),
                )?;
            }
            ContextCommand::Delete(args) => contexts.delete(app, args.id)?,
        }
        Ok(())
    }

    fn show(&mut self, contexts: &mut Contexts, app: &str, common: &CommonArgs, args: ShowArgs) -> Result<()> {
        let id = args.id.id;
        let usage = contexts.usage(app, id)?;
        let tokens = contexts.tokens(app, id)?;
        let mut value = usage_json(&usage);
        let text = if args.tokens {
            value["token_ids"] = tokens.clone().into();
            tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
        } else {
            let text = contexts.text(self.global, app, id, &tokens)?;
            value["text"] = text.clone().into();
            text
        };
        say(common, &value, &format!("{}\n{text}\n", usage_table(&[usage], now_ms())))
    }
}

fn list(contexts: &mut Contexts, app: &str, common: &CommonArgs, args: ListArgs) -> Result<()> {
    let apps = if args.all_apps { contexts.apps()? } else { vec![app.to_owned()] };
    let mut found = Vec::new();
    for app in apps {
        found.extend(contexts.list(&app)?);
    }
    found.sort_by_key(|usage| std::cmp::Reverse(usage.used_ms));
    let mut text = usage_table(&found, now_ms());
    if let Contexts::Live(service) = contexts {
        let (used, _, limit) = service.memory();
        text += &format!("{} of {} of memory in use\n", human_binary_bytes(used), human_binary_bytes(limit));
    }
    say(common, &found.iter().map(usage_json).collect(), &text)
}

/// The list where no store was ever made.
pub fn list_nothing(common: &CommonArgs) -> Result<()> {
    say(common, &json!([]), &usage_table(&[], 0))
}

pub fn measured(common: &CommonArgs, tokens: usize) -> Result<()> {
    say(common, &json!({"tokens": tokens}), &format!("{tokens}\n"))
}

fn made(common: &CommonArgs, id: ContextId) -> Result<()> {
    let id = show_id(id);
    say(common, &json!({"id": id}), &format!("{id}\n"))
}

/// One of two: a value for programs, or text for people.
fn say(common: &CommonArgs, value: &Value, text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if common.json {
        writeln!(out, "{value}")?
    } else {
        write!(out, "{text}")?
    }
    Ok(())
}

/// As [`say`]; people read it beside what they asked for.
fn remark(common: &CommonArgs, value: &Value, text: &str) -> Result<()> {
    if common.json {
        return say(common, value, text);
    }
    eprintln!("[{text}]");
    Ok(())
}
