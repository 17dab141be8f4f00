//! `concertina run`: one prompt, one answer.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use concertina::formats::{ChatMessage, Model};
use concertina::{GenerateOptions, Prompt};

use super::before::BeforeArgs;
use super::sampling::SamplingArgs;
use super::slo::{Outcome, SloArgs};
use crate::cli::GlobalArgs;
use crate::session::{Session, finish_name, sampling};

const EXAMPLES: &str = "\
Examples:
  concertina run \"Name three rivers.\"
  concertina run --greedy --max-tokens 32 \"2 + 2 =\"
  git diff | concertina run --system \"Summarise this change in one line.\"
  concertina run --raw \"Once upon a time\"             continue a text, without a chat template
  concertina run --json \"Hi\" | jq .tpot_ms
  concertina run --class quick --json - < mail.txt | jq .slo       level, tokens kept, what was predicted and what came
  concertina run --level 60 --prompt-level 40 - < mail.txt
  concertina run --class quick --passage mail.txt \"When do we meet?\"      the question stays whole
  concertina run --class quick --raw --examples solved.txt \"Q: 2 + 2 =\"

The prompt is read from standard input when it is `-`, or when there is none and input is piped in.";

/// Answer one prompt and end.
///
/// The answer is written to standard output as it is made. With --json there is one object at the end instead: the
/// text, the token ids, the time to the first token (`ttft_ms`), the time for each token after it (`tpot_ms`), the
/// adapter and the level. With a target (--ttft-ms, --tpot-ms, --class) the model, and with an encoder the prompt, X begins to count, and how long that took is told too.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The prompt; `-` for standard input
    pub prompt: Option<String>,
    /// Tokens after which the answer is cut off
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// What the model is told before the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub raw: bool,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub before: BeforeArgs,
    #[command(flatten)]
    pub slo: SloArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(global: &GlobalArgs, args: &RunArgs) -> Result<()> {
    let input = std::io::stdin();
    let prompt = args.before.with(prompt_text(args.prompt.as_deref(), input.is_terminal(), input.lock())?)?;
    let mut tokens = Vec::new();
    let mut session = Session::open(global, |model, options| {
        options.exact = args.exact;
        tokens = prompt_tokens(model, &prompt.text, args.system.as_deref(), args.raw)?;
        ensure!(
            tokens.len() <= model.spec.context_len,
            "the prompt has {} tokens, and this model reads at most {}: shorten it",
            tokens.len(),
            model.spec.context_len
        );
        options.fit_contexts(&model.spec, tokens.len().saturating_add(args.max_tokens as usize));
        Ok(())
    })?;
    let model = session.model_name();
    let engine = &mut session.engine;
    let mut planned = None;
    let mut context = engine.context()?;
    let mut options = GenerateOptions {
        max_tokens: args.max_tokens as usize,
        sampling: sampling(&args.sampling),
        level: args.slo.target.fixed_level(),
        ..GenerateOptions::default()
    };
    if args.slo.plans() {
        // Measuring takes a context of its own.
        drop(context);
        let planner = args.slo.planner(engine, global, options.piece)?;
        args.slo.ensure_shortens(engine, prompt.has_before())?;
        context = engine.context()?;
        if let Some(planner) = planner {
            let of = |model: &Model, text: &str| prompt_parts(model, text, args.system.as_deref(), args.raw);
            let plan = prompt.stay(|stay| {
                let text = &prompt.text;
                let stands_alone = Prompt { text, stay, tokens: &of, context: 0, stale: &[], before_ms: 0.0 };
                pollster::block_on(planner.plan(engine, &stands_alone, &args.slo.wish()))
            })?;
            tokens.clone_from(&plan.tokens);
            options.level = plan.decision.pair.level;
            let ready = engine.make_ready(&mut context, options.level, tokens.len(), options.piece);
            planned = Some((plan, pollster::block_on(ready)?, planner));
        }
    }
    let mut out = std::io::stdout();
    // Text goes out as it is made; where nobody reads any more, the answer ends.
    let show = |text: &str| {
        let written = args.json || out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
        if written { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let answer = pollster::block_on(engine.generate(&mut context, &tokens, &options, show))?;
    let outcome = planned.map(|(plan, ready_ms, mut planner)| {
        planner.observe(&answer, 0.0);
        planner.keep();
        Outcome::new(&plan, ready_ms, &answer)
    });
    if args.json {
        let report = serde_json::json!({
            "slo": outcome.as_ref().map(Outcome::json),
            "model": model,
            "adapter": engine.adapter(),
            "text": answer.text,
            "prompt_tokens": tokens,
            "tokens": answer.tokens,
            "finish": finish_name(answer.finish),
            "context_tokens": answer.context_tokens,
            "prefill_tokens": answer.prefill_tokens,
            "level": answer.level,
            "exact": args.exact,
            "ttft_ms": answer.ttft_ms,
            "tpot_ms": answer.tpot_ms,
        });
        println!("{report}");
    } else {
        println!();
        if let Some(outcome) = &outcome {
            eprintln!("{}", outcome.line());
        }
        log::info!(
            "{} tokens in, {} out; first token after {:.0} ms, then {:.1} ms each; level {} on {}",
            answer.context_tokens,
            answer.tokens.len(),
            answer.ttft_ms,
            answer.tpot_ms,
            answer.level,
            engine.adapter()
        );
    }
    Ok(())
}

/// Tokens of a prompt: as a user's message where the model has a chat template, else as text to continue.
fn prompt_tokens(model: &Model, prompt: &str, system: Option<&str>, raw: bool) -> Result<Vec<u32>> {
    let stray = system.is_some() && model.chat.is_none();
    ensure!(!stray, "this model has no chat template, so there is no place for --system");
    Ok(prompt_parts(model, prompt, system, raw)?)
}

fn prompt_parts(model: &Model, prompt: &str, system: Option<&str>, raw: bool) -> concertina::Result<Vec<u32>> {
    let Some(template) = model.chat.as_ref().filter(|_| !raw) else {
        return Ok(model.tokenizer.encode_prompt(prompt, false)?);
    };
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let messages: Vec<ChatMessage> =
        system.map(|text| message("system", text)).into_iter().chain([message("user", prompt)]).collect();
    Ok(model.tokenizer.encode_prompt(&template.render(&messages, true)?, true)?)
}

/// The prompt itself, or what is piped in. One line end at its end is taken off, as shells do.
pub fn prompt_text(prompt: Option<&str>, is_terminal: bool, mut input: impl Read) -> Result<String> {
    let text = match prompt {
        Some(prompt) if prompt != "-" => return not_empty(prompt.to_owned()),
        None if is_terminal => {
            bail!("there is no prompt: give one (`concertina run \"Hello\"`), pipe one in, or use `concertina chat`")
        }
        _ => {
            let mut text = String::new();
            input.read_to_string(&mut text).context("cannot read the prompt from standard input")?;
            text
        }
    };
    let text = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
    not_empty(text.to_owned())
}

fn not_empty(text: String) -> Result<String> {
    if text.is_empty() { bail!("the prompt is empty") } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_comes_from_where_it_should() {
        let text = |prompt, terminal, input: &[u8]| prompt_text(prompt, terminal, input);
        assert_eq!(text(Some("hi"), false, b"piped").unwrap(), "hi");
        assert_eq!(text(Some("-"), true, b"typed\r\n").unwrap(), "typed");
        assert_eq!(text(None, false, b"a\n\n").unwrap(), "a\n");
        assert!(text(None, true, b"").unwrap_err().to_string().contains("concertina chat"));
        assert!(text(Some(""), true, b"").unwrap_err().to_string().contains("empty"));
        assert!(text(None, false, b"").unwrap_err().to_string().contains("empty"));
        assert!(text(None, false, b"\xff").unwrap_err().to_string().contains("standard input"));
    }
}
