//! One message, one answer; and the numbers of the last one.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Instant;

use anyhow::Result;
use concertina::formats::Model;
use concertina::{Answer, Context, Finish, GenerateOptions, Plan, Planner, Prompt, Stay, Wish};
use futures::future::{Either, select};

use super::ChatArgs;
use super::conversation::Conversation;
use super::interrupt::Interrupt;
use crate::cli::GlobalArgs;
use crate::commands::slo::Outcome;
use crate::session::{Session, sampling};

/// Tokens of a piece of prompt on a CPU.
const SOFTWARE_PIECE: usize = 32;

/// A model and a conversation with it.
pub struct Talk {
    session: Session,
    context: Context,
    conversation: Conversation,
    options: GenerateOptions,
    /// Of calls with a target.
    planner: Option<Planner>,
    wish: Wish,
    interrupt: Interrupt,
    last: Option<Figures>,
}

/// Where an answer stands between context, accuracy and performance.
#[derive(Debug, Clone)]
struct Figures {
    finish: Finish,
    context_tokens: usize,
    prefill_tokens: usize,
    answer_tokens: usize,
    dropped_messages: usize,
    level: u32,
    /// Of a call with a target.
    outcome: Option<Outcome>,
    ttft_ms: f64,
    tpot_ms: f64,
}

impl Talk {
    pub fn new(mut session: Session, global: &GlobalArgs, args: &ChatArgs, interrupt: Interrupt) -> Result<Self> {
        let options = GenerateOptions {
            max_tokens: args.max_tokens as usize,
            sampling: sampling(&args.sampling),
            level: args.slo.target.fixed_level(),
            // An answer can be stopped between two pieces of its prompt: on a CPU a long one would take too long.
            piece: if session.engine.is_software() { SOFTWARE_PIECE } else { 0 },
            ..GenerateOptions::default()
        };
        let planner = args.slo.planner(&mut session.engine, global, options.piece)?;
        args.slo.ensure_shortens(&session.engine, false)?;
        let wish = args.slo.wish();
        let context = session.engine.context()?;
        let conversation = Conversation::new(args.system.clone());
        Ok(Self { session, context, conversation, options, planner, wish, interrupt, last: None })
    }

    /// The first line at a terminal.
    pub fn greeting(&self) -> String {
        let engine = &self.session.engine;
        let file = self.session.path.file_stem().unwrap_or_default().to_string_lossy();
        let how = if engine.model().chat.is_some() { "" } else { " It has no chat template: it continues your text." };
        format!("{file} on {}, {} tokens of context.{how} /help for help.", engine.adapter(), engine.context_limit())
    }

    /// Forget what was said. Keys and values of a common beginning stay of use.
    pub fn clear(&mut self) {
        self.conversation.clear();
        self.last = None;
    }

    /// Answer a message on standard output, as it is made.
    pub fn answer(&mut self, line: &str, interactive: bool) -> Result<()> {
        // Where text is continued, its spaces are part of it.
        let message = if self.session.engine.model().chat.is_some() { line.trim() } else { line };
        self.conversation.say("user", message);
        let mut text = String::new();
        let done = self.generate(&mut text);
        if !text.is_empty() {
            println!();
        }
        // What was shown was said, even where the answer did not come to its end.
        if text.is_empty() && !matches!(&done, Ok(f) if f.finish != Finish::Cancelled) {
            self.conversation.unsay();
        } else {
            self.conversation.say("assistant", &text);
        }
        let figures = done?;
        if let Some(notice) = notice(&figures, text.is_empty()) {
            eprintln!("{notice}");
        }
        if figures.answer_tokens == 0 {
            return Ok(());
        }
        // What came of a target is told to scripts too.
        if figures.outcome.is_some() || interactive && std::io::stderr().is_terminal() {
            eprintln!("{}", self.status(&figures));
        }
        // The sampler's seed makes an answer repeatable; two answers with one seed would be alike.
        self.options.sampling.seed = self.options.sampling.seed.wrapping_add(1);
        self.last = Some(figures);
        Ok(())
    }

    fn generate(&mut self, text: &mut String) -> Result<Figures> {
        let engine = &mut self.session.engine;
        let mut prompt = self.conversation.prompt(engine.model(), engine.context_limit(), self.options.max_tokens)?;
        if prompt.dropped > 0 {
            eprintln!("(the context is full: the oldest {} messages were dropped; /clear begins anew)", prompt.dropped);
        }
        let planned = self.plan()?;
        if let Some((plan, _)) = &planned {
            self.options.level = plan.decision.pair.level;
            // What is left of the message is what was said.
            self.conversation.say_instead(&plan.text);
            prompt.tokens = self.conversation.tokens_instead(self.session.engine.model(), &plan.text)?;
        }
        let engine = &mut self.session.engine;
        let total = prompt.tokens.len();
        let kept = self.context.keep_common(&prompt.tokens);
        let answering = self.interrupt.answering();
        let begun = Instant::now();
        let (mut first_ms, mut last_ms) = (0.0, 0.0);
        let mut out = std::io::stdout();
        let mut lost_reader = None;
        let show = |piece: &str| {
            last_ms = begun.elapsed().as_secs_f64() * 1e3;
            if text.is_empty() {
                first_ms = last_ms;
            }
            text.push_str(piece);
            if let Err(e) = out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                lost_reader = Some(e);
            }
            let stop = lost_reader.is_some() || answering.is_stopped();
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let resident = self.context.resident_tokens();
        let found: Option<Answer> = {
            let generate = pin!(engine.generate(&mut self.context, &prompt.tokens[kept..], &self.options, show));
            match pollster::block_on(select(generate, pin!(answering.stopped()))) {
                Either::Left((answer, _)) => Some(answer?),
                // Dropped between two steps of the device; the context is as the last step left it.
                Either::Right(_) => None,
            }
        };
        if let Some(e) = lost_reader {
            return Err(e.into());
        }
        let mut figures = match found {
            Some(answer) => {
                if let Some(planner) = &mut self.planner {
                    planner.observe(&answer, 0.0);
                    planner.keep();
                }
                let outcome = planned.map(|(plan, ready_ms)| Outcome::new(&plan, ready_ms, &answer));
                Figures { outcome, ..Figures::of(&answer) }
            }
            None => {
                let answer_tokens = self.context.tokens().len().saturating_sub(total);
                let steps = answer_tokens.saturating_sub(1).max(1) as f64;
                Figures {
                    finish: Finish::Cancelled,
                    context_tokens: total,
                    prefill_tokens: total - resident.min(total),
                    answer_tokens,
                    dropped_messages: 0,
                    level: self.options.level,
                    outcome: None,
                    ttft_ms: first_ms,
                    tpot_ms: (last_ms - first_ms) / steps,
                }
            }
        };
        figures.dropped_messages = prompt.dropped;
        Ok(figures)
    }

    /// How much of the last message and of the model an answer gets, and the milliseconds that compiling for it took. `None`
    /// where nothing is to be planned.
    fn plan(&mut self) -> Result<Option<(Plan, f64)>> {
        let Some(planner) = &self.planner else { return Ok(None) };
        let engine = &mut self.session.engine;
        let conversation = &self.conversation;
        let Some(text) = conversation.last() else { return Ok(None) };
        // The beginning that the context holds already; the message itself is in it where it was said before.
        let without = conversation.tokens_instead(engine.model(), "")?;
        let held = self.context.tokens().iter().zip(&without).take_while(|(a, b)| a == b).count();
        let tokens = |model: &Model, text: &str| {
            let all = conversation.tokens_instead(model, text)?;
            Ok(all[held.min(all.len().saturating_sub(1))..].to_vec())
        };
        let text = text.to_owned();
        let prompt =
            Prompt { text: &text, stay: Stay::NOTHING, tokens: &tokens, context: held, stale: &[], before_ms: 0.0 };
        let plan = pollster::block_on(planner.plan(engine, &prompt, &self.wish))?;
        let (level, piece) = (plan.decision.pair.level, self.options.piece);
        let ready = engine.make_ready(&mut self.context, level, plan.tokens.len(), piece);
        let ready_ms = pollster::block_on(ready)?;
        Ok(Some((plan, ready_ms)))
    }

    /// One line after an answer.
    fn status(&self, f: &Figures) -> String {
        let rate = if f.tpot_ms > 0.0 { format!("{:.1} tokens/s, ", 1e3 / f.tpot_ms) } else { String::new() };
        if let Some(outcome) = &f.outcome {
            return outcome.line();
        }
        let Figures { answer_tokens, ttft_ms, level, .. } = f;
        let adapter = self.session.engine.adapter();
        format!("[{answer_tokens} tokens, first after {ttft_ms:.0} ms, {rate}level {level}, {adapter}]")
    }

    /// The last answer in numbers.
    pub fn stats(&self) -> String {
        let Some(f) = &self.last else { return "There is no answer yet in this conversation.".into() };
        let engine = &self.session.engine;
        let total = f.context_tokens + f.answer_tokens;
        let reused = f.context_tokens.saturating_sub(f.prefill_tokens);
        format!(
            "context      {total} of {} tokens; {} read for this answer, {reused} kept from before; {} messages dropped\n\
             accuracy     level {} (percent of the model){}\n\
             performance  first token after {:.0} ms (TTFT), {:.1} ms a token after it (TPOT), {} tokens\n\
             adapter      {}",
            engine.context_limit(),
            f.prefill_tokens,
            f.dropped_messages,
            f.level,
            if f.finish == Finish::Cancelled { "; stopped by you" } else { "" },
            f.ttft_ms,
            f.tpot_ms,
            f.answer_tokens,
            engine.adapter()
        )
    }
}

impl Figures {
    fn of(answer: &Answer) -> Self {
        Self {
            finish: answer.finish,
            context_tokens: answer.context_tokens,
            prefill_tokens: answer.prefill_tokens,
            answer_tokens: answer.tokens.len(),
            dropped_messages: 0,
            level: answer.level,
            outcome: None,
            ttft_ms: answer.ttft_ms,
            tpot_ms: answer.tpot_ms,
        }
    }
}

/// What a person should know of how the answer ended.
fn notice(figures: &Figures, empty: bool) -> Option<String> {
    Some(match figures.finish {
        Finish::ContextFull => {
            "(the context is full, so the answer was cut off; the next message drops the oldest turns, /clear begins \
             anew, and --context makes more room)"
                .into()
        }
        Finish::Length => {
            format!("(cut off after {} tokens: --max-tokens allows longer answers)", figures.answer_tokens)
        }
        Finish::Cancelled if empty => "(stopped; your message was taken back)".into(),
        Finish::Cancelled => "(stopped)".into(),
        Finish::Stop if empty => "(an empty answer)".into(),
        Finish::Stop => return None,
    })
}
