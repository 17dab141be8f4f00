//! Every pair of levels on the same questions.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use concertina::Planner;
use concertina::elastic::slo::Restriction;
use pollster::block_on;

use super::ask::{Done, Outcomes, Timing, planned, run};
use super::{KEEP_EVERY, requests};
use crate::cli::GlobalArgs;
use crate::session::{Session, bar};

/// What is asked at which levels.
pub struct Grid<'a> {
    pub apps: &'a [PathBuf],
    pub requests: usize,
    pub levels: &'a [u32],
    pub prompt_levels: &'a [u32],
    pub outcomes: Option<&'a Path>,
    pub seed: u64,
}

/// How a pair's times are taken.
const TIMING: Timing = Timing { turns: 1, tokens: 8 };

/// What came of a pair: means over the questions.
#[derive(Debug, Clone)]
pub struct AtPair {
    pub prompt_level: u32,
    pub level: u32,
    pub requests: u64,
    pub right: u64,
    pub kept: f64,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

/// Model, adapter, and a line for each pair.
pub fn grid(global: &GlobalArgs, how: &Grid<'_>) -> Result<(String, String, Vec<AtPair>)> {
    let requests = requests::draw(how.apps, how.requests, 0.0, how.seed)?;
    let mut session = Session::open(global, |model, options| {
        let longest = requests::longest(&requests, &model.tokenizer)? + TIMING.tokens;
        ensure!(longest <= model.spec.context_len, "a question has {longest} tokens, more than this model reads");
        options.fit_contexts(&model.spec, longest.max(1040));
        Ok(())
    })?;
    let prompts: Vec<u32> = match session.load_encoder()? {
        true => how.prompt_levels.to_vec(),
        false => vec![100],
    };
    let mut planner = block_on(Planner::open(&mut session.engine, crate::tuning::host()))?;
    block_on(planner.measure_encoder(&mut session.engine))?;
    let mut outcomes = Outcomes::open(how.outcomes)?;
    let mut found = Vec::new();
    let pairs = prompts.len() * how.levels.len();
    let shown = bar((pairs * requests.len()) as u64, "{bar:30} {pos} of {len}, {eta} left");
    for prompt in &prompts {
        for level in how.levels {
            let of = Restriction { prompt: Some(*prompt), level: Some(*level) };
            let at = AtPair {
                prompt_level: *prompt,
                level: session.engine.level_run(*level)?,
                requests: requests.len() as u64,
                right: 0,
                kept: 0.0,
                ttft_ms: 0.0,
                tpot_ms: 0.0,
            };
            found.push((of, at));
        }
    }
    let n = requests.len() as f64;
    for request in &requests {
        let what = || format!("question {} of {}", request.question.id, request.app);
        // A question at all pairs, then the next one: a machine that slows down does so for all of them.
        for (only, at) in &mut found {
            let chosen = planned(&mut session, &planner, request, *only).with_context(what)?;
            let outcome = run(&mut session, &mut outcomes, request, &chosen, TIMING, None).with_context(what)?;
            let done = Done::of(&chosen, &outcome);
            at.right += u64::from(done.right);
            at.kept += done.kept / n;
            at.ttft_ms += done.measured.0 / n;
            at.tpot_ms += done.measured.1 / n;
            shown.inc(1);
            if shown.position().is_multiple_of(KEEP_EVERY as u64) {
                outcomes.keep()?;
            }
        }
    }
    outcomes.keep()?;
    let found = found.into_iter().map(|(_, at)| at).collect();
    shown.finish_and_clear();
    Ok((session.model_name(), session.engine.adapter(), found))
}
