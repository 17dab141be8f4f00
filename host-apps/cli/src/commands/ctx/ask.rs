//! `ctx ask`: one turn of a conversation, shown as it is made.

use std::cell::Cell;
use std::future::pending;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::pin::pin;

use anyhow::{Result, bail};
use concertina::GenerateOptions;
use concertina::service::{Served, Service, Switch};
use futures::future::{Either, select};
use serde_json::{Value, json};

use super::args::{AppendArgs, AskArgs, CommonArgs};
use super::id::show_id;
use crate::commands::chat::interrupt::Interrupt;
use crate::commands::run::prompt_text;
use crate::commands::slo::Outcome;
use crate::session::{finish_name, sampling};

/// Tokens of a piece of prompt on a CPU, between which a call can be stopped.
const SOFTWARE_PIECE: usize = 32;

/// A text from the command line, or from standard input for `-`. The shell's standard input is the shell's.
pub fn text_or_input(text: &str, input: Option<&mut dyn Read>) -> Result<String> {
    match input {
        Some(input) => prompt_text(Some(text), false, input),
        None if text == "-" => bail!("`-` is of no use here: the shell reads its commands from standard input"),
        None => prompt_text(Some(text), false, std::io::empty()),
    }
}

pub fn ask(
    service: &mut Service,
    app: &str,
    common: &CommonArgs,
    args: &AskArgs,
    message: &str,
    interrupt: &Interrupt,
) -> Result<()> {
    let id = args.id.id;
    let tokens = pollster::block_on(service.turn(app, id, message))?;
    let mut planner = args.target.planner(service.engine_mut())?;
    let planned = match &planner {
        Some(planner) => Some(pollster::block_on(service.plan(app, id, tokens.len(), planner, &args.target.wish()))?),
        None => None,
    };
    let options = GenerateOptions {
        max_tokens: args.max_tokens as usize,
        sampling: sampling(&args.sampling),
        level: planned.as_ref().map_or(args.target.fixed_level(), |(decision, _)| decision.pair.level),
        piece: if service.engine().is_software() { SOFTWARE_PIECE } else { 0 },
        ..GenerateOptions::default()
    };
    let answering = interrupt.answering();
    let (mut out, mut lost_reader, shown) = (std::io::stdout(), None, Cell::new(false));
    let show = |text: &str| {
        shown.set(true);
        if !common.json
            && let Err(e) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        {
            lost_reader = Some(e);
        }
        let stop = lost_reader.is_some() || answering.is_stopped();
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    // What was shown was said and stays; before that the call is dropped, and the context is as it was.
    let given_up = async {
        answering.stopped().await;
        if shown.get() {
            pending::<()>().await;
        }
    };
    let served = {
        let generate = pin!(service.generate(app, id, &tokens, &options, show));
        match pollster::block_on(select(generate, pin!(given_up))) {
            Either::Left((served, _)) => Some(served?),
            Either::Right(_) => None,
        }
    };
    if let Some(e) = lost_reader {
        return Err(e.into());
    }
    let Some(served) = served else {
        eprintln!("(stopped; your message was taken back)");
        return Ok(());
    };
    if let Some(planner) = &mut planner {
        planner.observe(&served.answer, served.switch.ready_ms);
        planner.keep();
    }
    let outcome = planned.map(|(decision, target)| Outcome::of_level(decision, target, &served.answer));
    if common.json {
        let mut report = report(app, &show_id(id), &served);
        report["slo"] = outcome.as_ref().map_or(Value::Null, Outcome::json);
        println!("{report}");
    } else {
        println!();
        if let Some(outcome) = &outcome {
            eprintln!("{}", outcome.line());
        }
        eprintln!("{}", status(&served));
    }
    Ok(())
}

/// Returns the tokens that the context has now, and what it took.
pub fn append(service: &mut Service, app: &str, args: &AppendArgs, text: &str) -> Result<Served> {
    let id = args.id.id;
    let empty = pollster::block_on(service.tokens(app, id))?.is_empty();
    let tokenizer = service.engine().tokenizer();
    let tokens = if empty { tokenizer.encode_prompt(text, false)? } else { tokenizer.encode(text, false)? };
    Ok(pollster::block_on(service.append(app, id, &tokens, args.level.level))?)
}

/// One line after an answer.
fn status(Served { answer, switch }: &Served) -> String {
    let rate = if answer.tpot_ms > 0.0 { format!(", {:.1} tokens/s", 1e3 / answer.tpot_ms) } else { String::new() };
    format!(
        "[{} tokens in context; {}; first token after {:.0} ms{rate}]",
        answer.context_tokens + answer.tokens.len(),
        way_back(switch),
        answer.ttft_ms
    )
}

/// How a context came back, for people.
pub fn way_back(switch: &Switch) -> String {
    let lost = if switch.lost > 0 { format!(" ({} damaged on disk)", switch.lost) } else { String::new() };
    format!(
        "{} chunks read, {} recomputed{lost}, ready after {:.1} ms",
        switch.read, switch.recomputed, switch.ready_ms
    )
}

/// How a context came back, for programs.
pub fn switch_json(switch: &Switch) -> Value {
    json!({
        "ready_ms": switch.ready_ms,
        "planned_ms": switch.planned_ms,
        "evicted": switch.evicted,
        "written": switch.written,
        "read": switch.read,
        "read_bytes": switch.read_bytes,
        "recomputed": switch.recomputed,
        "lost": switch.lost,
        "choice": switch.choice,
    })
}

fn report(app: &str, id: &str, Served { answer, switch }: &Served) -> Value {
    json!({
        "app": app,
        "id": id,
        "text": answer.text,
        "tokens": answer.tokens,
        "finish": finish_name(answer.finish),
        "context_tokens": answer.context_tokens + answer.tokens.len(),
        "prefill_tokens": answer.prefill_tokens,
        "level": answer.level,
        "ttft_ms": answer.ttft_ms,
        "tpot_ms": answer.tpot_ms,
        "tokens_s": if answer.tpot_ms > 0.0 { Some(1e3 / answer.tpot_ms) } else { None },
        "switch": switch_json(switch),
    })
}
