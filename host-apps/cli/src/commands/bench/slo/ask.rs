//! One request: what a policy decides, and what comes of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use concertina::elastic::slo::{Restriction, Target};
use concertina::formats::Model;
use concertina::{Answer, Context, EncoderUse, Engine, GenerateOptions, Planner, Prompt, Sampling, Wish};
use pollster::block_on;
use serde::{Deserialize, Serialize};

use super::policy::{Layers, Policy};
use super::requests::Request;
use crate::commands::before::Behind;
use crate::session::Session;

/// How a call's times are taken.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Calls of which the least times count.
    pub turns: u32,
    /// Tokens that each generates. The time for a token is the mean of all but the first.
    pub tokens: usize,
}

/// What a policy decided.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub tokens: Vec<u32>,
    pub level: u32,
    /// Whether the level is a number of layers that are left out.
    pub layers: bool,
    pub prompt_level: u32,
    pub kept: f64,
    pub target: Target,
    /// TTFT and TPOT, where they were predicted.
    pub predicted: Option<(f64, f64)>,
    pub feasible: bool,
    pub encoder: bool,
    /// Milliseconds of deciding, the encoder included: part of the time to the first token.
    pub decide_ms: f64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// By likelihood a byte.
    pub right: bool,
    /// By plain likelihood.
    #[serde(default)]
    pub right_plain: bool,
    /// By likelihood a token, as ElastiLM's artefact has it.
    #[serde(default)]
    pub right_a_token: bool,
    pub met: bool,
    pub prompt_level: u32,
    pub level: u32,
    pub kept: f64,
    pub target: Target,
    pub predicted: Option<(f64, f64)>,
    pub measured: (f64, f64),
    /// As [`Outcome::apart`].
    #[serde(default)]
    pub apart: Option<(f64, f64)>,
    pub feasible: bool,
    pub encoder: bool,
    pub decide_ms: f64,
}

impl Done {
    /// From what was decided, and what the model made of it.
    pub fn of(chosen: &Chosen, outcome: &Outcome) -> Self {
        let measured = (chosen.decide_ms + outcome.ttft_ms, outcome.tpot_ms);
        Self {
            right: outcome.right,
            right_plain: outcome.right_plain,
            right_a_token: outcome.right_a_token,
            met: chosen.target.allows(measured.0, measured.1),
            prompt_level: chosen.prompt_level,
            level: chosen.level,
            kept: chosen.kept,
            target: chosen.target,
            predicted: chosen.predicted,
            measured,
            apart: outcome.apart,
            feasible: chosen.feasible,
            encoder: chosen.encoder,
            decide_ms: chosen.decide_ms,
        }
    }
}

/// What the model answers at a pair of levels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Outcome {
    pub right: bool,
    #[serde(default)]
    pub right_plain: bool,
    #[serde(default)]
    pub right_a_token: bool,
    pub ttft_ms: f64,
    pub tpot_ms: f64,
    /// What the slowest of several turns of the same call took beside the fastest, as a share of it: TTFT, TPOT. A machine that repeats
    /// itself no better cannot be predicted better.
    #[serde(default)]
    pub apart: Option<(f64, f64)>,
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

    /// Write them beside and rename: a run that is killed leaves the last whole file.
    pub fn keep(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let partial = path.with_extension("partial");
        std::fs::write(&partial, serde_json::to_string(&self.known)?)
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Decide on a request.
pub fn choose(
    session: &mut Session,
    planner: &Planner,
    request: &Request,
    policy: Policy,
    (single, layers): (u32, Layers),
) -> Result<Chosen> {
    match policy {
        Policy::Layers => without_layers(session, planner, request, layers),
        _ => planned(session, planner, request, policy.only(single)),
    }
}

/// By the planner, within a restriction.
pub fn planned(session: &mut Session, planner: &Planner, request: &Request, only: Restriction) -> Result<Chosen> {
    let behind = Behind::from(request.prompt().to_owned(), request.stays_from(), request.has_examples());
    let wish = Wish { class: Some(request.class), only, ..Wish::default() };
    let plan = behind.stay(|stay| {
        let text = &behind.text;
        let prompt = Prompt { text, stay, tokens: &tokens, context: 0, stale: &[], before_ms: 0.0 };
        block_on(planner.plan(&mut session.engine, &prompt, &wish))
    })?;
    Ok(Chosen {
        level: plan.decision.pair.level,
        layers: false,
        prompt_level: plan.decision.pair.prompt,
        kept: plan.kept_words as f64 / plan.words.max(1) as f64,
        target: plan.target,
        predicted: Some((plan.decision.ttft_ms, plan.decision.tpot_ms)),
        feasible: plan.decision.feasible,
        encoder: plan.encoder == EncoderUse::Used,
        decide_ms: plan.took_ms,
        tokens: plan.tokens,
    })
}

/// The whole prompt, and as many layers as the target allows.
fn without_layers(session: &Session, planner: &Planner, request: &Request, layers: Layers) -> Result<Chosen> {
    let tokens = tokens(session.engine.model(), request.prompt())?;
    let (out, feasible) = layers.out(planner, request.class, tokens.len());
    Ok(Chosen {
        level: Layers::level(out),
        layers: out > 0,
        prompt_level: 100,
        kept: 1.0,
        target: planner.target(request.class, tokens.len(), 0),
        predicted: None,
        feasible,
        encoder: false,
        decide_ms: 0.0,
        tokens,
    })
}

/// The space at the end of a prompt belongs to the choices, as in the harness.
fn tokens(model: &Model, text: &str) -> concertina::Result<Vec<u32>> {
    Ok(model.tokenizer.encode_prompt(text.trim_end(), false)?)
}

/// Times to the first token and for each after it, of a prompt at each level, the levels in turn.
pub fn times<const N: usize>(
    session: &mut Session,
    prompt: &[u32],
    levels: [u32; N],
    timing: Timing,
) -> Result<[(f64, f64); N]> {
    let engine = &mut session.engine;
    let mut context = engine.context()?;
    let mut least = [(f64::INFINITY, f64::INFINITY); N];
    for _ in 0..timing.turns {
        for (least, level) in least.iter_mut().zip(levels) {
            context.truncate(0);
            block_on(engine.make_ready(&mut context, level, prompt.len(), 0))?;
            let go_on = |_: &str| ControlFlow::Continue(());
            let answer = block_on(engine.generate(&mut context, prompt, &options(level, timing.tokens), go_on))?;
            *least = (least.0.min(answer.ttft_ms), least.1.min(answer.tpot_ms));
        }
    }
    Ok(least)
}

fn options(level: u32, max_tokens: usize) -> GenerateOptions {
    let sampling = Sampling::greedy();
    GenerateOptions { max_tokens, sampling, level, ignore_end: true, ..GenerateOptions::default() }
}

/// A call as it was chosen.
fn call(engine: &mut Engine, context: &mut Context, chosen: &Chosen, timing: Timing) -> Result<Answer> {
    context.truncate(0);
    let go_on = |_: &str| ControlFlow::Continue(());
    Ok(block_on(engine.generate(context, &chosen.tokens, &options(chosen.level, timing.tokens), go_on))?)
}

/// What is known of a request at a choice; with a planner its times are measured anew, and the planner learns from them.
pub fn run(
    session: &mut Session,
    outcomes: &mut Outcomes,
    request: &Request,
    chosen: &Chosen,
    timing: Timing,
    planner: Option<&mut Planner>,
) -> Result<Outcome> {
    let bytes: Vec<u8> = chosen.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let hash = blake3::hash(&bytes).to_hex();
    let kind = if chosen.layers { "layers out" } else { "level" };
    let key = format!("{} {} {} {kind} {}", request.app, request.question.id, &hash[..16], chosen.level);
    let known = outcomes.known.get(&key).copied();
    if let (Some(known), None) = (known, &planner) {
        return Ok(known);
    }
    let engine = &mut session.engine;
    let mut context = engine.context()?;
    block_on(engine.make_ready(&mut context, chosen.level, chosen.tokens.len(), 0))?;
    let mut answer = call(engine, &mut context, chosen, timing)?;
    let [right, right_plain, right_a_token] = match known {
        Some(known) => [known.right, known.right_plain, known.right_a_token],
        None => {
            // By byte, plain, by token: the highest, and whose it is.
            let mut best: [Option<(f64, usize)>; 3] = [None; 3];
            for (i, choice) in request.question.choices.iter().enumerate() {
                // As the harness does: the space before a choice belongs to it.
                let gap = &request.prompt()[request.prompt().trim_end().len()..];
                let of_choice = engine.tokenizer().encode(&format!("{gap}{}", choice.continuation), false)?;
                let all = [&chosen.tokens[..], &of_choice].concat();
                let nll = block_on(engine.nll_in(&mut context, &all, chosen.tokens.len(), chosen.level))?;
                let likelihood = -nll.iter().map(|v| f64::from(*v)).sum::<f64>();
                let units = [choice.continuation.len().max(1), 1, nll.len().max(1)];
                for (best, units) in best.iter_mut().zip(units) {
                    let score = likelihood / units as f64;
                    if best.is_none_or(|(most, _)| score > most) {
                        *best = Some((score, i));
                    }
                }
            }
            best.map(|best| best.is_some_and(|(_, i)| i == request.question.gold))
        }
    };
    // The other turns come after the scoring: what disturbs the machine for a second does not hit all of them.
    let mut slowest = (answer.ttft_ms, answer.tpot_ms);
    for _ in 1..timing.turns {
        let again = call(engine, &mut context, chosen, timing)?;
        (answer.ttft_ms, answer.tpot_ms) = (answer.ttft_ms.min(again.ttft_ms), answer.tpot_ms.min(again.tpot_ms));
        slowest = (slowest.0.max(again.ttft_ms), slowest.1.max(again.tpot_ms));
    }
    if let Some(planner) = planner.filter(|_| !chosen.layers) {
        planner.observe(&answer, 0.0);
    }
    let apart = (timing.turns > 1).then_some((slowest.0 / answer.ttft_ms - 1.0, slowest.1 / answer.tpot_ms - 1.0));
    let (ttft_ms, tpot_ms) = (answer.ttft_ms, answer.tpot_ms);
    let outcome = Outcome { right, right_plain, right_a_token, ttft_ms, tpot_ms, apart };
    outcomes.known.insert(key, outcome);
    Ok(outcome)
}
