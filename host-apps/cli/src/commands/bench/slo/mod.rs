//! `concertina bench slo`: requests of several apps under latency targets, by policy.

mod ask;
pub mod grid;
mod policy;
mod records;
mod requests;
mod skews;
mod tally;
mod versus;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use concertina::Planner;
use concertina::elastic::{LayerUnits, SubModel};
use pollster::block_on;

use crate::cli::GlobalArgs;
use crate::session::{Session, bar};
use ask::{Chosen, Done, Timing};
use policy::{Layers, Policy};
use records::{Record, Records};
use requests::Request;
use tally::Tally;
use versus::Versus;

const EXAMPLES: &str = "\
Examples:
  concertina bench slo -m smollm2.elastic.gguf --apps arc_easy.jsonl.gz,piqa.jsonl.gz
  concertina bench slo --apps a.jsonl,b.jsonl --requests 600 --skew 0.25 --records strict.jsonl --outcomes done.json --json
  concertina bench slo --apps a.jsonl --policies ours,full --requests 40      how far predictions are off here

A run with --records that was stopped goes on where it was. --outcomes may be shared by runs of other skews: which answers are
right does not depend on targets.";

/// Requests between which outcomes are kept.
const KEEP_EVERY: usize = 20;
/// How what layers save is measured.
const OF_LAYERS: Timing = Timing { turns: 6, tokens: 8 };

/// Answer multiple-choice questions of several apps under latency targets, by policy: how many are right, how many are in
/// time, and how far predictions are off.
///
/// A request is a question of an app, drawn in turns, and one of the six classes of target (`--class` of `run`), drawn at
/// random: evenly, or with `--skew` above 0 more of the strict ones, below 0 more of the loose ones. Every policy decides on
/// prompt level and model level of a request; then the prompt is run once at each choice, tokens are generated for the times,
/// and the choices are scored at that level. The planner learns from each of these calls, as it does in `run` and `chat`. A
/// target counts as met by measured times. The first policy is held against each of the others, request by request. Targets are those of the whole model by the device's profile.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SloBenchArgs {
    /// Files of questions, one for each app, separated by commas: as `eval mc` reads them
    #[arg(long, value_name = "FILE,...", value_delimiter = ',', required = true)]
    pub apps: Vec<PathBuf>,
    /// Requests
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// From -1 (loose targets only) to 1 (strict ones only)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_hyphen_values = true)]
    pub skew: f64,
    /// Policies, separated by commas: `ours` (prompt and model), `full` (all of both), `single` (one level for all, the largest
    /// that meets most targets), `dropped` (whole layers), `prompt` and `model` (only that is made smaller)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Policy::named,
        default_value = "ours,full,single,dropped,prompt,model")]
    pub policies: Vec<Policy>,
    /// Layers in the order in which the policy `dropped` leaves them out, the least harmful first; 28 count
    #[arg(long, value_name = "LAYER,...", value_delimiter = ',')]
    pub layer_order: Vec<usize>,
    /// Keep here what came of each request, and go on behind those that are
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,
    /// Keep here which answers were right at which levels, and score no answer twice
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,
    /// Calls of which the least times count: what other programs on the machine add is not the policy's
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub turns: u32,
    /// Tokens that each call generates for its time per token
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=512))]
    pub tokens: u16,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &SloBenchArgs) -> Result<()> {
    ensure!((-1.0..=1.0).contains(&args.skew), "--skew must be between -1 and 1");
    let begun = Instant::now();
    let requests = requests::draw(&args.apps, args.requests as usize, args.skew, args.seed)?;
    let mut session = Session::open(global, |model, options| {
        let longest = requests::longest(&requests, &model.tokenizer)? + usize::from(args.tokens);
        ensure!(longest <= model.spec.context_len, "a question has {longest} tokens, more than this model reads");
        options.fit_contexts(&model.spec, longest.max(1040));
        Ok(())
    })?;
    let has_encoder = session.load_encoder()?;
    let policies = runnable(args, has_encoder);
    ensure!(!policies.is_empty(), "no policy is left to run");
    let mut planner = block_on(Planner::open(&mut session.engine, crate::tuning::host()))?;
    block_on(planner.measure_encoder(&mut session.engine))?;
    let mut outcomes = ask::Outcomes::open(args.outcomes.as_deref())?;
    let mut records = Records::open(args.records.as_deref(), &described(args, &session, &policies))?;
    let layers = drop_layers(&mut session, &args.layer_order)?;
    let at_once = policies.iter().find(|policy| **policy == Policy::Single);
    let single = at_once.map_or(Ok(100), |policy| policy.single_level(&planner, &requests, &session))?;
    let timing = Timing { turns: args.turns, tokens: args.tokens.into() };
    let shown = bar(requests.len() as u64, "{bar:30} {pos} of {len}, {eta} left, {msg}");
    let mut tallies: Vec<Tally> = policies.iter().map(|policy| Tally::new(*policy)).collect();
    for (number, request) in requests.iter().enumerate() {
        if records.known.len() <= number {
            // Whose call comes first changes from request to request: what the machine does then is no policy's.
            let first = number % policies.len();
            let of_policies = (&policies[..], first, single, layers);
            let done = one(&mut session, (&mut planner, timing), &mut outcomes, request, of_policies)
                .with_context(|| format!("question {} of {}", request.question.id, request.app))?;
            records.add(Record { request: number, done })?;
            if number % KEEP_EVERY == 0 {
                outcomes.keep()?;
                planner.keep();
            }
        }
        for (tally, (_, done)) in tallies.iter_mut().zip(&records.known[number].done) {
            tally.add(request, done);
        }
        shown.set_message(format!("{}: {}", policies[0].name(), tallies[0].brief()));
        shown.inc(1);
    }
    shown.finish_and_clear();
    outcomes.keep()?;
    planner.keep();
    let even = vec![1.0; requests.len()];
    let skewed = skews::skewed(&requests, &tallies, args.skew);
    if args.json {
        let policies: Vec<_> = tallies.iter().map(Tally::json).collect();
        let first_less: Vec<_> = tallies.iter().skip(1).map(|other| Versus::of(&tallies[0], other, &even)).collect();
        let report = serde_json::json!({
            "first_less": first_less, "skews": skewed,
            "model": session.model_name(), "adapter": session.engine.adapter(), "requests": requests.len(),
            "apps": args.apps.len(), "turns": args.turns, "tokens": args.tokens, "skew": args.skew, "seed": args.seed, "encoder": has_encoder, "policies": policies,
            "seconds": begun.elapsed().as_secs_f64(),
        });
        return crate::commands::bench::report::say(&report.to_string());
    }
    tally::tell(&tallies)?;
    if let Some(lines) = versus::lines(&tallies, &even) {
        crate::commands::bench::report::say(&format!(
            "\nPoints, with 95 % intervals, request by request:\n{}",
            lines.trim_end()
        ))?;
    }
    let lines = skews::lines(&skewed);
    crate::commands::bench::report::say(&format!(
        "\nIf classes had been drawn with another skew, the same requests weighted:\n{}",
        lines.trim_end()
    ))?;
    eprintln!("[{} requests in {:.0} s]", requests.len(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// The policies that can run here; of others it is told why they are left out.
fn runnable(args: &SloBenchArgs, has_encoder: bool) -> Vec<Policy> {
    let lacks = |policy: &Policy| match policy {
        Policy::Prompt if !has_encoder => Some("an encoder"),
        Policy::Layers if args.layer_order.is_empty() => Some("--layer-order"),
        _ => None,
    };
    for (policy, what) in args.policies.iter().filter_map(|policy| Some((policy, lacks(policy)?))) {
        eprintln!("`{}` is left out: it takes {what}", policy.name());
    }
    args.policies.iter().copied().filter(|policy| lacks(policy).is_none()).collect()
}

/// What a file of records is of: two runs of which all this is alike go on with each other's.
fn described(args: &SloBenchArgs, session: &Session, policies: &[Policy]) -> String {
    let apps: Vec<_> =
        args.apps.iter().filter_map(|app| Some(app.file_name()?.to_string_lossy().into_owned())).collect();
    let model = session.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let policies: Vec<_> = policies.iter().map(|policy| policy.name()).collect();
    serde_json::json!({
        "model": model, "adapter": session.engine.adapter(), "apps": apps, "skew": args.skew, "seed": args.seed,
        "policies": policies, "layer_order": args.layer_order, "turns": args.turns,
        "tokens": args.tokens,
    })
    .to_string()
}

/// All policies decide, then each choice is run once.
fn one(
    session: &mut Session,
    (planner, timing): (&mut Planner, Timing),
    outcomes: &mut ask::Outcomes,
    request: &Request,
    (policies, first, single, layers): (&[Policy], usize, u32, Layers),
) -> Result<Vec<(String, Done)>> {
    let chosen = policies.iter().map(|policy| ask::choose(session, planner, request, *policy, (single, layers)));
    let chosen: Vec<Chosen> = chosen.collect::<Result<_>>()?;
    let mut ran: Vec<(&Chosen, ask::Outcome)> = Vec::new();
    for of in chosen[first..].iter().chain(&chosen[..first]) {
        let same = |other: &Chosen| other.level == of.level && other.layers == of.layers && other.tokens == of.tokens;
        if !ran.iter().any(|(other, _)| same(other)) {
            ran.push((of, ask::run(session, outcomes, request, of, timing, Some(&mut *planner))?));
        }
    }
    let done = |(policy, of): (&Policy, &Chosen)| {
        let same = |other: &&Chosen| other.level == of.level && other.layers == of.layers && other.tokens == of.tokens;
        let (_, outcome) = ran.iter().find(|(other, _)| same(other)).context("every choice was run")?;
        Ok((policy.name().to_owned(), Done::of(of, outcome)))
    };
    policies.iter().zip(&chosen).map(done).collect()
}

/// Tokens of the prompt that what a layer takes is measured with.
const MEASURED: usize = 97;

/// Sub-models without some layers, the first of the order, the first two, and so on; and what each layer saves, measured
/// without half of them.
fn drop_layers(session: &mut Session, order: &[usize]) -> Result<Layers> {
    let shapes = session.engine.shapes();
    ensure!(order.iter().all(|layer| *layer < shapes.len()), "--layer-order names a layer that the model has not");
    let most = order.len().min(Layers::MOST);
    if most == 0 {
        return Ok(Layers::default());
    }
    for count in 1..=most {
        let kept = |(i, shape): (usize, &concertina::LayerShape)| match order[..count].contains(&i) {
            true => LayerUnits { groups: 0, neurons: 0 },
            false => LayerUnits { groups: shape.groups, neurons: shape.neurons },
        };
        let layers = shapes.iter().enumerate().map(kept).collect();
        session.engine.set_sub_model(SubModel { level: Layers::level(count as u32), layers })?;
    }
    let vocab = session.engine.model().spec.vocab as u32;
    let prompt: Vec<u32> = (0..MEASURED as u32).map(|i| i * 37 % vocab.max(1)).collect();
    let half = most.div_ceil(2) as u32;
    let [all, without] = ask::times(session, &prompt, [100, Layers::level(half)], OF_LAYERS)?;
    let even = 1.0 / session.engine.shapes().len() as f64;
    let saves = |all: f64, without: f64| ((1.0 - without / all) / f64::from(half)).clamp(0.0, even);
    Ok(Layers { most: most as u32, saves: (saves(all.0, without.0), saves(all.1, without.1)) })
}
