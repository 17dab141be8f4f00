//! `concertina bench impact`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use concertina::kv::store::{Options as StoreOptions, Store};
use concertina::native::Directory;
use concertina::service::{ContextId, Service, ServiceOptions};
use concertina::{GenerateOptions, Sampling};
use pollster::block_on;
use serde_json::json;

use super::report::{prompt, say};
use crate::cli::GlobalArgs;
use crate::data::stats::median;
use crate::session::Session;

const APP: &str = "bench";

const EXAMPLES: &str = "\
Examples:
  concertina bench impact
  concertina bench impact --tokens 1024 --answer 32 --json";

/// Measure how much a call that needs no restore is slowed by what goes on behind its back.
///
/// Two contexts: one takes in much text and returns, which leaves its chunks to be sealed and written; then, at once, the
/// other is called, whose chunks are all in memory. The same call once all is written is its measure; they take turns.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImpactArgs {
    /// Tokens that the first context takes in before each call
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=2048))]
    pub tokens: u32,
    /// Tokens of the answer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub answer: u32,
    /// Pairs of calls
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &ImpactArgs) -> Result<()> {
    let how = ServiceOptions::default();
    let (tokens, answer) = (args.tokens as usize, args.answer as usize);
    let longest = 256 + (answer + 16) * 2 * (args.runs as usize + 2);
    let session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(longest.max(tokens) < most, "so many runs need {longest} tokens, and this model reads {most}");
        how.prepare(options);
        options.context_tokens = longest.max(tokens) + 16;
        options.kv_budget_bytes = options.bytes_of(&model.spec, 3 * (longest + tokens));
        Ok(())
    })?;
    let adapter = session.engine.adapter();
    let text = prompt(session.engine.tokenizer(), tokens.max(256))?;
    let folder = tempfile::tempdir()?;
    let store = Store::open(Arc::new(Directory::open(folder.path())?), &StoreOptions::new([9; 32], [1; 32]))?;
    let mut service = block_on(Service::open(session.engine, store, how))?;
    let called = block_on(service.create(APP, None))?;
    block_on(service.append(APP, called, &text[..256], 100))?;
    let bar = crate::session::bar(u64::from(args.runs), "{bar:30} pair {pos} of {len} {eta}");
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    for run in 0..=args.runs {
        let mut after = |wait: bool| -> Result<f64> {
            let other = block_on(service.create(APP, None))?;
            block_on(service.append(APP, other, &text[..tokens], 100))?;
            if wait {
                block_on(service.idle())?;
            }
            let ms = call(&mut service, called, &text[..16], answer)?;
            block_on(service.idle())?;
            block_on(service.delete(APP, other))?;
            Ok(ms)
        };
        let (alone, beside) = (after(true)?, after(false)?);
        // The first time everything is made ready.
        if run > 0 {
            idle.push(alone);
            busy.push(beside);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let ratios: Vec<f64> = busy.iter().zip(&idle).map(|(busy, idle)| busy / idle).collect();
    let [idle_ms, busy_ms, ratio] = [&idle, &busy, &ratios].map(|values| median(values).unwrap_or(0.0));
    if args.json {
        let report = json!({"kind": "impact", "adapter": adapter, "written_tokens": tokens, "answer": answer,
            "idle_ms": idle_ms, "busy_ms": busy_ms, "ratio": ratio, "ratios": ratios});
        say(&report.to_string())
    } else {
        say(&format!("alone {idle_ms:.0} ms, beside the writing of {tokens} tokens {busy_ms:.0} ms: {ratio:.3} times"))
    }
}

/// Milliseconds of a call.
fn call(service: &mut Service, id: ContextId, tokens: &[u32], answer: usize) -> Result<f64> {
    let options = GenerateOptions {
        max_tokens: answer,
        sampling: Sampling::greedy(),
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let start = Instant::now();
    let served = block_on(service.generate(APP, id, tokens, &options, |_| ControlFlow::Continue(())))?;
    ensure!(served.switch.read + served.switch.recomputed == 0, "the context had to be restored: raise the memory");
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
