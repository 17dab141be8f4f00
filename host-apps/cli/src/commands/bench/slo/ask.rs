//! One request: decide, run, score.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use concertina::elastic::prompt::words;
use concertina::elastic::slo::{Restriction, Target};
use concertina::formats::Model;
use concertina::{EncoderUse, GenerateOptions, Planner, Prompt, Sampling, Wish};
use pollster::block_on;
use serde::{Deserialize, Serialize};

use super::policy::{DROPPED, Policy};
use super::requests::Request;
use crate::session::Session;

/// Tokens that are generated for the times.
const TOKENS: usize = 3;

/// What came of a request.
#[derive(Debug, Clone)]
pub struct Done {
    pub right: bool,
    pub met: bool,
    pub prompt_level: u32,
    pub level: u32,
    pub kept: f64,
    pub target: Target,
    /// TTFT and TPOT, where they were predicted.
    pub predicted: Option<(f64, f64)>,
    pub measured: (f64, f64),
    pub feasible: bool,
    pub encoder: bool,
    /// What the encoder took, planning included.
    pub decide_ms: f64,
}

/// What the model answers at a pair of levels, which does not depend on the target.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Outcome {
    right: bool,
    ttft_ms: f64,
    tpot_ms: f64,
}

/// Outcomes by app, question, hash of the tokens, and level.
#[derive(Debug, Default)]
pub struct Outcomes {
    known: BTreeMap<String, Outcome>,
    path: Option<PathBuf>,
}

impl Outcomes {
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let known = match path.filter(|path| path.is_file()) {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_str(&text).with_context(|| format!("{} is not what was kept", path.display()))?
            }
            None => BTreeMap::new(),
        };
        Ok(Self { known, path: path.map(Path::to_owned) })
    }

    pub fn keep(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        std::fs::write(path, serde_json::to_string(&self.known)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Decide on a request and answer it.
pub fn ask(
    session: &mut Session,
    planner: &Planner,
    outcomes: &mut Outcomes,
    request: &Request,
    policy: Policy,
    single: u32,
) -> Result<Done> {
    if policy == Policy::Layers {
        return without_layers(session, planner, outcomes, request);
    }
    answer(session, planner, outcomes, request, policy.only(single))
}

/// Answer a request by the planner, within a restriction.
pub fn answer(
    session: &mut Session,
    planner: &Planner,
    outcomes: &mut Outcomes,
    request: &Request,
    only: Restriction,
) -> Result<Done> {
    let text = request.prompt();
    let from = request.stays_from();
    let stays: Vec<bool> = words(text).iter().map(|word| word.text.start >= from).collect();
    let keep = |word: usize| stays.get(word).copied().unwrap_or(true);
    let prompt = Prompt { text, keep: &keep, tokens: &tokens, context: 0, before_ms: 0.0 };
    let wish = Wish { class: Some(request.class), only, ..Wish::default() };
    let plan = block_on(planner.plan(&mut session.engine, &prompt, &wish))?;
    let pair = plan.decision.pair;
    let outcome = run(session, outcomes, request, &plan.tokens, pair.level, "level")?;
    let measured = (plan.took_ms + outcome.ttft_ms, outcome.tpot_ms);
    Ok(Done {
        right: outcome.right,
        met: plan.target.allows(measured.0, measured.1),
        prompt_level: pair.prompt,
        level: pair.level,
        kept: plan.kept_words as f64 / plan.words.max(1) as f64,
        target: plan.target,
        predicted: Some((plan.decision.ttft_ms, plan.decision.tpot_ms)),
        measured,
        feasible: plan.decision.feasible,
        encoder: plan.encoder == EncoderUse::Used,
        decide_ms: plan.took_ms,
    })
}

/// The whole prompt, and as few layers as the target asks for. Levels below the table's are the sub-models without layers.
fn without_layers(
    session: &mut Session,
    planner: &Planner,
    outcomes: &mut Outcomes,
    request: &Request,
) -> Result<Done> {
    let tokens = tokens(session.engine.model(), request.prompt())?;
    let out = Policy::layers_out(planner, session.engine.shapes().len(), request, tokens.len());
    let level = if out == 0 { 100 } else { out };
    let outcome = run(session, outcomes, request, &tokens, level, if out == 0 { "level" } else { "layers out" })?;
    let target = planner.target(request.class, tokens.len(), 0);
    Ok(Done {
        right: outcome.right,
        met: target.allows(outcome.ttft_ms, outcome.tpot_ms),
        prompt_level: 100,
        level,
        kept: 1.0,
        target,
        predicted: None,
        measured: (outcome.ttft_ms, outcome.tpot_ms),
        feasible: out < DROPPED,
        encoder: false,
        decide_ms: 0.0,
    })
}

/// The space at the end of a prompt belongs to the choices, as in the harness.
fn tokens(model: &Model, text: &str) -> concertina::Result<Vec<u32>> {
    Ok(model.tokenizer.encode_prompt(text.trim_end(), false)?)
}

/// Run the prompt, generate a little for the times, and score the choices.
fn run(
    session: &mut Session,
    outcomes: &mut Outcomes,
    request: &Request,
    tokens: &[u32],
    level: u32,
    kind: &str,
) -> Result<Outcome> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let hash = blake3::hash(&bytes).to_hex();
    let key = format!("{} {} {} {kind} {level}", request.app, request.question.id, &hash[..16]);
    if let Some(known) = outcomes.known.get(&key) {
        return Ok(*known);
    }
    let engine = &mut session.engine;
    let mut context = engine.context()?;
    let options = GenerateOptions {
        max_tokens: TOKENS,
        sampling: Sampling::greedy(),
        level,
        ignore_end: true,
        ..GenerateOptions::default()
    };
    let answer = block_on(engine.generate(&mut context, tokens, &options, |_| ControlFlow::Continue(())))?;
    let mut best: Option<(f64, usize)> = None;
    for (i, choice) in request.question.choices.iter().enumerate() {
        // As the harness does: the space before a choice belongs to it.
        let gap = &request.prompt()[request.prompt().trim_end().len()..];
        let of_choice = engine.tokenizer().encode(&format!("{gap}{}", choice.continuation), false)?;
        let all = [tokens, &of_choice].concat();
        let nll = block_on(engine.nll_in(&mut context, &all, tokens.len(), level))?;
        let score = -nll.iter().map(|v| f64::from(*v)).sum::<f64>() / choice.continuation.len().max(1) as f64;
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, i));
        }
    }
    let outcome = Outcome {
        right: best.is_some_and(|(_, i)| i == request.question.gold),
        ttft_ms: answer.ttft_ms,
        tpot_ms: answer.tpot_ms,
    };
    outcomes.known.insert(key, outcome);
    Ok(outcome)
}
