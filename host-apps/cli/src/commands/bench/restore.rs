//! `concertina bench restore`.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use concertina::kv::CHUNK_TOKENS;
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
  concertina bench restore
  concertina bench restore --tokens 512,2048 --runs 9 --json";

/// Measure how long a context takes to come back from disk, and how many bytes it has there.
///
/// Warm: the files are in the system's cache. Cold (on Linux): they were dropped from it before. The time ends when the
/// context is ready to prefill; the time to a first token after one new token of prompt is told beside it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// Tokens of the contexts, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "512,1024,2048",
        value_parser = clap::value_parser!(u32).range(32..))]
    pub tokens: Vec<u32>,
    /// Measured runs of each; the median is reported
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Average bits of keys and values
    #[arg(long, value_name = "BITS", default_value_t = 4.0)]
    pub average_bits: f64,
    /// One JSON object a context, each on a line, instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &RestoreArgs) -> Result<()> {
    let longest = args.tokens.iter().copied().max().unwrap_or(0) as usize;
    let how = ServiceOptions { average_bits: args.average_bits, ..ServiceOptions::default() };
    let session = Session::open(global, |model, options| {
        let most = model.spec.context_len;
        ensure!(longest + 64 < most, "contexts of up to {longest} tokens, and this model reads {most}");
        how.prepare(options);
        options.context_tokens = longest + 64;
        options.kv_budget_bytes = 2 * options.bytes_of(&model.spec, longest + 17 * CHUNK_TOKENS);
        Ok(())
    })?;
    let (model, adapter) = (session.model_name(), session.engine.adapter());
    let text = prompt(session.engine.tokenizer(), longest)?;
    let folder = tempfile::tempdir()?;
    let store = Store::open(Arc::new(Directory::open(folder.path())?), &StoreOptions::new([9; 32], [1; 32]))?;
    let mut service = block_on(Service::open(session.engine, store, how))?;
    for tokens in args.tokens.iter().map(|n| *n as usize) {
        let bar = crate::session::bar(tokens as u64, "computing {bar:30} {pos} of {len} tokens");
        let id = block_on(service.create(APP, None))?;
        for piece in text[..tokens].chunks(256) {
            block_on(service.append(APP, id, piece, 100))?;
            bar.inc(piece.len() as u64);
        }
        bar.finish_and_clear();
        block_on(service.flush())?;
        let bytes = block_on(service.usage(APP, id))?.disk_bytes;
        let (mut warm, mut cold, mut first) = (Vec::new(), Vec::new(), Vec::new());
        // The first time everything is made ready.
        for run in 0..=args.runs {
            let one = once(&mut service, id, None)?;
            let other = once(&mut service, id, Some(folder.path()))?;
            let token = first_token(&mut service, id, text[0])?;
            if run > 0 {
                warm.extend(one);
                cold.extend(other);
                first.push(token);
            }
        }
        let [warm_ms, first_ms] = [&warm, &first].map(|runs| median(runs).unwrap_or(0.0));
        let cold_ms = median(&cold);
        if args.json {
            let report = json!({"kind": "restore", "model": model, "adapter": adapter, "tokens": tokens,
                "average_bits": args.average_bits, "disk_bytes": bytes, "warm_ms": warm_ms, "cold_ms": cold_ms,
                "first_token_ms": first_ms, "warm_runs": warm, "cold_runs": cold});
            say(&report.to_string())?;
        } else {
            let cold = cold_ms.map_or("not measured".into(), |ms| format!("{ms:.1} ms"));
            let mb = bytes as f64 * 1e-6;
            say(&format!(
                "{tokens} tokens: {mb:.1} MB on disk, back in {warm_ms:.1} ms warm, {cold} cold; first token {first_ms:.0} ms"
            ))?;
        }
    }
    Ok(())
}

/// Milliseconds of a return with nothing in memory; with a folder, its files dropped from the cache. `None` where that
/// cannot be done.
fn once(service: &mut Service, id: ContextId, cold: Option<&Path>) -> Result<Option<f64>> {
    evict(service)?;
    if let Some(folder) = cold
        && !drop_cache(folder)?
    {
        return Ok(None);
    }
    let switch = block_on(service.prewarm(APP, id, 100))?;
    ensure!(
        switch.recomputed == 0,
        "{} chunks were computed anew: the plan did not find reading faster",
        switch.recomputed
    );
    Ok(Some(switch.ready_ms))
}

/// Milliseconds to a first token, from disk; the context stays as it is.
fn first_token(service: &mut Service, id: ContextId, token: u32) -> Result<f64> {
    let fork = block_on(service.fork(APP, id, None))?;
    evict(service)?;
    let options = GenerateOptions { max_tokens: 1, sampling: Sampling::greedy(), ..GenerateOptions::default() };
    let served = block_on(service.generate(APP, fork, &[token], &options, |_| ControlFlow::Continue(())))?;
    block_on(service.delete(APP, fork))?;
    Ok(served.answer.ttft_ms)
}

fn evict(service: &mut Service) -> Result<()> {
    block_on(service.idle())?;
    block_on(service.set_memory_budget(0))?;
    Ok(block_on(service.set_memory_budget(u64::MAX))?)
}

#[cfg(target_os = "linux")]
fn drop_cache(folder: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let file = std::fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn drop_cache(_: &Path) -> Result<bool> {
    Ok(false)
}
