//! `concertina bench slo`: requests of several apps under latency targets, by policy.

mod ask;
pub mod grid;
mod policy;
mod requests;
mod tally;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use concertina::Planner;
use concertina::elastic::{LayerUnits, SubModel};
use pollster::block_on;

use crate::cli::GlobalArgs;
use crate::session::{Session, bar};
use policy::{DROPPED, Policy};
use tally::Tally;

const EXAMPLES: &str = "\
Examples:
  concertina bench slo -m smollm2.elastic.gguf --apps arc_easy.jsonl.gz,piqa.jsonl.gz
  concertina bench slo --apps a.jsonl,b.jsonl --requests 600 --skew 0.25 --json
  concertina bench slo --apps a.jsonl --policies ours,full --outcomes done.jsonl";

/// Answer multiple-choice questions of several apps under latency targets, by policy: how many are right, how many are in
/// time.
///
/// A request is a question of an app, drawn in turns, and one of the six classes of target (`--class` of `run`), drawn at
/// random: evenly, or with `--skew` above 0 more of the strict ones, below 0 more of the loose ones. The policy decides on
/// prompt level and model level, the prompt is run and two tokens are generated for the times, then the choices are scored
/// at that level. A target counts as met by measured times. Targets are those of the whole model by the device's profile.
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
    /// Policies, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = Policy::named,
        default_value = "ours,full,single,layers,prompt,model")]
    pub policies: Vec<Policy>,
    /// Layers in the order in which the policy `layers` leaves them out, the least harmful first
    #[arg(long, value_name = "LAYER,...", value_delimiter = ',')]
    pub layer_order: Vec<usize>,
    /// Keep the outcome of each question at each pair of levels here, and use those that are: they do not depend on targets
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &SloBenchArgs) -> Result<()> {
    ensure!((-1.0..=1.0).contains(&args.skew), "--skew must be between -1 and 1");
    let requests = requests::draw(&args.apps, args.requests as usize, args.skew, args.seed)?;
    let mut session = Session::open(global, |model, options| {
        let longest = requests::longest(&requests, &model.tokenizer)?;
        ensure!(longest <= model.spec.context_len, "a question has {longest} tokens, more than this model reads");
        options.fit_contexts(&model.spec, longest.max(1040));
        Ok(())
    })?;
    let has_encoder = session.load_encoder()?;
    drop_layers(&mut session, &args.layer_order)?;
    let mut planner = block_on(Planner::open(&mut session.engine, crate::tuning::host()))?;
    block_on(planner.measure_encoder(&mut session.engine))?;
    let mut outcomes = ask::Outcomes::open(args.outcomes.as_deref())?;
    let mut tallies: Vec<Tally> = Vec::new();
    for policy in &args.policies {
        let needs_encoder = *policy == Policy::Prompt;
        if needs_encoder && !has_encoder || *policy == Policy::Layers && args.layer_order.is_empty() {
            eprintln!(
                "`{}` is left out: it takes {}",
                policy.name(),
                if needs_encoder { "an encoder" } else { "--layer-order" }
            );
            continue;
        }
        let shown = bar(
            requests.len() as u64,
            &format!("{:8} {{bar:30}} {{pos}} of {{len}}, {{eta}} left, {{msg}}", policy.name()),
        );
        let single = policy.single_level(&planner, &requests, &session)?;
        let mut tally = Tally::new(*policy);
        for request in &requests {
            let done = ask::ask(&mut session, &planner, &mut outcomes, request, *policy, single)
                .with_context(|| format!("question {} of {}", request.question.id, request.app))?;
            tally.add(request, &done);
            shown.set_message(tally.brief());
            shown.inc(1);
        }
        shown.finish_and_clear();
        tallies.push(tally);
    }
    outcomes.keep()?;
    if args.json {
        let policies: Vec<_> = tallies.iter().map(Tally::json).collect();
        let report = serde_json::json!({
            "model": session.model_name(), "adapter": session.engine.adapter(), "requests": requests.len(),
            "apps": args.apps.len(), "skew": args.skew, "seed": args.seed, "encoder": has_encoder, "policies": policies,
        });
        return crate::commands::bench::report::say(&report.to_string());
    }
    tally::tell(&tallies)
}

/// Sub-models without some layers, as the levels that no table has: 1 for the first layer left out, 2 for the first two.
fn drop_layers(session: &mut Session, order: &[usize]) -> Result<()> {
    let shapes = session.engine.shapes();
    ensure!(order.iter().all(|layer| *layer < shapes.len()), "--layer-order names a layer that the model has not");
    for count in 1..=order.len().min(DROPPED as usize) {
        let kept = |(i, shape): (usize, &concertina::LayerShape)| match order[..count].contains(&i) {
            true => LayerUnits { groups: 0, neurons: 0 },
            false => LayerUnits { groups: shape.groups, neurons: shape.neurons },
        };
        let layers = shapes.iter().enumerate().map(kept).collect();
        session.engine.set_sub_model(SubModel { level: count as u32, layers })?;
    }
    Ok(())
}
