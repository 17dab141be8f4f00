//! `concertina bench decode`.

use std::ops::ControlFlow;

use anyhow::{Result, ensure};
use clap::Args;
use concertina::{Context, GenerateOptions, Sampling, Width};

use super::RunsArgs;
use super::report::{Case, Overhead, measure, prompt, tell};
use crate::cli::GlobalArgs;
use crate::session::Session;

/// Tokens of the answer that is not counted.
const WARM_UP_TOKENS: usize = 8;
/// Every run recomputes the prompt from the last multiple of this, so that all begin alike: narrow chunks are dropped whole.
const CHUNK: usize = 16;

const EXAMPLES: &str = "\
Examples:
  concertina bench decode
  concertina bench decode --tokens 64,256 --adapter nvidia --json
  concertina bench decode --context 128,4096 --tokens 32              does a long context slow it down?
  concertina bench decode --context 4096 --kv-bits 4                  and with narrow keys and values?
  concertina bench decode --level 20,40,60,80,100 --json              time by size of the sub-model";

/// Measure how fast an answer is written.
///
/// The answer follows a prompt (--context), takes the likeliest token every time, and goes on past its end. Its first
/// token, which comes with the prompt, is not counted: N tokens are N steps. Reported for each level, context and length:
/// tokens a second of the median run, slowest and fastest run, and per token, of one more answer that is counted and not
/// timed: dispatches, submits, what is made, and bytes moved each way. A prompt is read once; what follows it is forgotten
/// between runs. A short answer goes before each case, so that compiling kernels does not count.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DecodeArgs {
    /// Answer lengths in tokens, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Vec<u32>,
    /// Tokens in the context before the answer, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "16",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Vec<u32>,
    /// Bits of stored keys and values once a chunk of 16 tokens is full: 16, 8, 4 or 2
    #[arg(long, value_name = "BITS", value_parser = width, conflicts_with = "exact")]
    pub kv_bits: Option<Width>,
    #[command(flatten)]
    pub runs: RunsArgs,
}

fn width(text: &str) -> Result<Width, String> {
    let widths = [Width::W16, Width::W8, Width::W4, Width::W2];
    widths.into_iter().find(|width| width.bits().to_string() == text).ok_or_else(|| "16, 8, 4 or 2".into())
}

pub fn run(global: &GlobalArgs, args: &DecodeArgs) -> Result<()> {
    let most = |list: &[u32]| list.iter().copied().max().unwrap_or(1) as usize;
    let needed = most(&args.context) + most(&args.tokens) + 1;
    let mut session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(needed <= most, "--context and --tokens need {needed} tokens together, and this model reads {most}");
        options.exact = args.runs.exact;
        options.kv_width = args.kv_bits.unwrap_or(options.kv_width);
        options.fit_contexts(&model.spec, needed);
        Ok(())
    })?;
    let mut context = session.engine.context()?;
    for level in &args.runs.level {
        for before in args.context.iter().map(|n| *n as usize) {
            let prompt = prompt(session.engine.tokenizer(), before)?;
            let mut answer = Answer { context: &mut context, prompt, level: *level };
            answer.ms(&mut session, most(&args.tokens).min(WARM_UP_TOKENS))?;
            for tokens in args.tokens.iter().map(|n| *n as usize) {
                let what = format!("decode of {tokens} tokens after {before} at level {level}");
                let runs = measure(&args.runs, &what, || answer.ms(&mut session, tokens))?;
                let overhead = answer.overhead(&mut session, tokens)?;
                let case = Case { kind: "decode", tokens, context: before, level: *level, kv_width: args.kv_bits };
                tell(&mut session, &args.runs, &case, &runs, Some(&overhead))?;
            }
        }
    }
    Ok(())
}

/// Answers to a prompt, one after the other.
struct Answer<'a> {
    context: &'a mut Context,
    prompt: Vec<u32>,
    level: u32,
}

impl Answer<'_> {
    /// What each of `count` steps asks of the device: an answer with them against one without.
    fn overhead(&mut self, session: &mut Session, count: usize) -> Result<Overhead> {
        let mut counted = |count| {
            let before = session.engine.counters();
            self.ms(session, count)?;
            anyhow::Ok(session.engine.counters().since(&before))
        };
        Ok(Overhead::of(&counted(0)?, &counted(count)?, count))
    }

    /// Milliseconds of `count` steps.
    fn ms(&mut self, session: &mut Session, count: usize) -> Result<f64> {
        let options = GenerateOptions {
            max_tokens: count + 1,
            sampling: Sampling::greedy(),
            level: self.level,
            ignore_end: true,
            ..GenerateOptions::default()
        };
        let kept = (self.prompt.len() - 1) / CHUNK * CHUNK;
        let kept = self.context.keep_common(&self.prompt[..kept]);
        let go_on = |_: &str| ControlFlow::Continue(());
        let answer = session.engine.generate(self.context, &self.prompt[kept..], &options, go_on);
        let answer = pollster::block_on(answer)?;
        ensure!(answer.tokens.len() == count + 1, "the answer ended after {} tokens", answer.tokens.len());
        Ok(answer.tpot_ms * count as f64)
    }
}
