//! `concertina bench decode`.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use clap::Args;
use concertina::{GenerateOptions, Sampling};

use super::RunsArgs;
use super::report::{Overhead, measure, prompt, tell};
use crate::cli::GlobalArgs;
use crate::session::{LEVEL, Session};

/// Tokens before the answer.
const PROMPT_TOKENS: usize = 16;
/// Tokens of the answer that is not counted.
const WARM_UP_TOKENS: usize = 8;

const EXAMPLES: &str = "\
Examples:
  concertina bench decode
  concertina bench decode --tokens 64,256 --adapter nvidia --json";

/// Measure how fast an answer is written.
///
/// The answer follows a prompt of 16 tokens, takes the likeliest token every time, and goes on past its end. Its first
/// token, which comes with the prompt, is not counted: N tokens are N steps. Reported for each length: tokens a second
/// of the median run, slowest and fastest run, and per token, of one more answer that is counted and not timed: dispatches,
/// submits, what is made, and bytes moved each way. A short answer goes before all else, so that compiling kernels does not
/// count.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DecodeArgs {
    /// Answer lengths in tokens, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Vec<u32>,
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub fn run(global: &GlobalArgs, args: &DecodeArgs) -> Result<()> {
    let longest = args.tokens.iter().copied().max().unwrap_or(1) as usize;
    let mut session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        let needed = PROMPT_TOKENS + longest + 1;
        ensure!(needed <= most, "--tokens {longest} needs {needed} with the prompt, and this model reads {most}");
        options.exact = args.runs.exact;
        options.fit_contexts(&model.spec, needed);
        Ok(())
    })?;
    decode_ms(&mut session, longest.min(WARM_UP_TOKENS))?;
    for count in args.tokens.iter().map(|n| *n as usize) {
        let runs = measure(&args.runs, &format!("decode of {count} tokens"), || decode_ms(&mut session, count))?;
        let overhead = overhead(&mut session, count)?;
        tell(&session, &args.runs, "decode", count, &runs, Some(&overhead))?;
    }
    Ok(())
}

/// What each of `count` steps asks of the device: an answer with them against one without.
fn overhead(session: &mut Session, count: usize) -> Result<Overhead> {
    let mut counted = |count| {
        let before = session.engine.counters();
        decode_ms(session, count)?;
        anyhow::Ok(session.engine.counters().since(&before))
    };
    Ok(Overhead::of(&counted(0)?, &counted(count)?, count))
}

/// Milliseconds of `count` steps.
fn decode_ms(session: &mut Session, count: usize) -> Result<f64> {
    let engine = &mut session.engine;
    let tokens = prompt(engine.tokenizer(), PROMPT_TOKENS)?;
    let options = GenerateOptions {
        max_tokens: count + 1,
        sampling: Sampling::greedy(),
        level: LEVEL,
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let mut context = engine.context()?;
    let go_on = |_: &str| ControlFlow::Continue(());
    let answer = pollster::block_on(engine.generate(&mut context, &tokens, &options, go_on))?;
    ensure!(answer.tokens.len() == count + 1, "the answer ended after {} tokens", answer.tokens.len());
    Ok(answer.tpot_ms * count as f64)
}
