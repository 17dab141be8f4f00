//! `concertina bench prefill`.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use super::RunsArgs;
use super::report::{Case, measure, prompt, tell};
use crate::cli::GlobalArgs;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  concertina bench prefill
  concertina bench prefill --tokens 16,128,1024 --runs 5
  concertina bench prefill --tokens 128 --level 20,40,60,80,100
  concertina bench prefill -m qwen-0.5b --json";

/// Measure how fast a prompt is read.
///
/// A prompt is read into an empty context, up to the logits of its last token. Reported for each level and length:
/// tokens a second of the median run, slowest and fastest run. The first prompt of each level is read once more before its
/// other prompts, so that compiling kernels does not count.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PrefillArgs {
    /// Prompt lengths in tokens, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128,512",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Vec<u32>,
    #[command(flatten)]
    pub runs: RunsArgs,
}

pub fn run(global: &GlobalArgs, args: &PrefillArgs) -> Result<()> {
    let longest = args.tokens.iter().copied().max().unwrap_or(1) as usize;
    let mut session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(longest <= most, "--tokens {longest} is more than the {most} tokens that this model reads");
        options.exact = args.runs.exact;
        options.fit_contexts(&model.spec, longest);
        Ok(())
    })?;
    for level in &args.runs.level {
        for (index, count) in args.tokens.iter().map(|n| *n as usize).enumerate() {
            let tokens = prompt(session.engine.tokenizer(), count)?;
            let mut once = || {
                let begun = Instant::now();
                pollster::block_on(session.engine.logits(&tokens, &[count - 1], *level, 0))?;
                Ok(begun.elapsed().as_secs_f64() * 1e3)
            };
            if index == 0 {
                once()?;
            }
            let runs = measure(&args.runs, &format!("prefill of {count} tokens at level {level}"), once)?;
            let case = Case { kind: "prefill", tokens: count, context: 0, level: *level, kv_width: None };
            tell(&mut session, &args.runs, &case, &runs, None)?;
        }
    }
    Ok(())
}
