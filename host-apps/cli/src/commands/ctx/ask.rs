//! `ctx ask`: one turn of a conversation, shown as it is made; and `ctx append`.

use std::cell::Cell;
use std::future::pending;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::pin::pin;

use anyhow::{Result, bail};
use concertina::service::{Appended, ContextId, Served, Service, Switch};
use concertina::{GenerateOptions, Plan};
use futures::future::{Either, select};
use pollster::block_on;
use serde_json::{Value, json};

use super::args::{AppendArgs, AskArgs, CommonArgs};
use super::execute::Desk;
use super::id::show_id;
use crate::commands::before::Behind;
use crate::commands::run::prompt_text;
use crate::commands::slo::{Outcome, SloArgs};
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

impl Desk<'_> {
    /// How much of a text and of the model a call gets that appends it; `None` where nothing is to be planned.
    fn plan(
        &mut self,
        service: &mut Service,
        app: &str,
        id: ContextId,
        (text, of): (Appended<'_>, &Behind),
        slo: &SloArgs,
    ) -> Result<Option<(Plan, f64)>> {
        if !slo.plans() {
            return Ok(None);
        }
        let piece = piece(service);
        let needs_encoder = self.planner.is_none();
        if needs_encoder {
            self.planner = slo.planner(service.engine_mut(), self.global, piece)?;
        }
        let Some(planner) = &self.planner else { return Ok(None) };
        slo.ensure_shortens(service.engine(), of.has_before())?;
        let plan = of.stay(|stay| block_on(service.plan_prompt(app, id, text, stay, planner, &slo.wish())))?;
        let ready = service.make_ready(app, id, plan.decision.pair.level, plan.tokens.len(), piece);
        let ready_ms = block_on(ready)?;
        Ok(Some((plan, ready_ms)))
    }

    /// What came of a planned call.
    fn outcome(&mut self, planned: Option<(Plan, f64)>, served: &Served) -> Option<Outcome> {
        let (plan, ready_ms) = planned?;
        if let Some(planner) = &mut self.planner {
            planner.observe(&served.answer, served.switch.ready_ms);
            planner.keep();
        }
        Some(Outcome::new(&plan, ready_ms, &served.answer))
    }

    pub fn ask(
        &mut self,
        service: &mut Service,
        app: &str,
        common: &CommonArgs,
        args: &AskArgs,
        message: &str,
    ) -> Result<()> {
        let id = args.id.id;
        let message = args.before.with(message.to_owned())?;
        let planned = self.plan(service, app, id, (Appended::Message(&message.text), &message), &args.slo)?;
        let tokens = match &planned {
            Some((plan, _)) => plan.tokens.clone(),
            None => block_on(service.turn(app, id, &message.text))?,
        };
        let options = GenerateOptions {
            max_tokens: args.max_tokens as usize,
            sampling: sampling(&args.sampling),
            level: planned.as_ref().map_or(args.slo.target.fixed_level(), |(plan, _)| plan.decision.pair.level),
            piece: piece(service),
            ..GenerateOptions::default()
        };
        let answering = self.interrupt.answering();
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
            match block_on(select(generate, pin!(given_up))) {
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
        let outcome = self.outcome(planned, &served);
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

    /// Add text as it is. Returns what it took, and what was planned.
    pub fn append(
        &mut self,
        service: &mut Service,
        app: &str,
        args: &AppendArgs,
        text: &str,
    ) -> Result<(Served, Option<Outcome>)> {
        let id = args.id.id;
        let planned =
            self.plan(service, app, id, (Appended::Text(text), &Behind::alone(text.to_owned())), &args.slo)?;
        let tokens = match &planned {
            Some((plan, _)) => plan.tokens.clone(),
            None => {
                let empty = block_on(service.tokens(app, id))?.is_empty();
                let tokenizer = service.engine().tokenizer();
                if empty { tokenizer.encode_prompt(text, false)? } else { tokenizer.encode(text, false)? }
            }
        };
        let level = planned.as_ref().map_or(args.slo.target.fixed_level(), |(plan, _)| plan.decision.pair.level);
        let served = block_on(service.append(app, id, &tokens, level))?;
        // Nothing was answered, so there are no times to learn from.
        let outcome = planned.map(|(plan, ready_ms)| Outcome::new(&plan, ready_ms, &served.answer));
        Ok((served, outcome))
    }
}

/// Tokens of prompt that a call runs at once.
fn piece(service: &Service) -> usize {
    if service.engine().is_software() { SOFTWARE_PIECE } else { 0 }
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
    let shared = if switch.shared > 0 { format!("{} chunks shared, ", switch.shared) } else { String::new() };
    format!(
        "{shared}{} chunks read, {} recomputed{lost}, ready after {:.1} ms",
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
        "shared": switch.shared,
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
