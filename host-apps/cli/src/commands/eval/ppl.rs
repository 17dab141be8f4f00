//! `concertina eval ppl`: perplexity of a text.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use concertina::formats::Tokenizer;
use concertina::service::Policy;
use concertina::{Options, Width};

use super::kept::Kept;
use crate::cli::GlobalArgs;
use crate::commands::level::MeasuredLevel;
use crate::commands::policy::policies;
use crate::data::stats::{Interval, clustered_mean};
use crate::session::{Session, bar};

const EXAMPLES: &str = "\
Examples:
  concertina eval ppl --file book.txt
  concertina eval ppl -m qwen-0.5b --file book.txt --window 512 --exact --json
  concertina eval ppl --file book.txt --window 2048 --kv-bits 4";

/// Perplexity of a text.
///
/// The text is cut into windows of --window tokens that do not overlap; control tokens written in it are plain text.
/// Each window is read on its own and scored from its second token on, the last one too if it has two tokens or more.
/// Where the model wants a begin-of-text token, that is the first token of every window.
///
/// Reported are the perplexity (`ppl`), the summed negative log-likelihood in nats (`nll_sum`), the number of scored
/// tokens (`tokens`) and of windows (`windows`), and a 95 % interval of the perplexity for other text of this kind, from
/// how much the windows differ (`ppl_95`; null from one window).
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PplArgs {
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens in a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub window: u32,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// Bits of stored keys and values once a chunk of 16 tokens is full: 16, 8, 4, 2, or an average between 2 and 8, for
    /// which the chunks are dealt evenly to the two widths around it (3.5: three quarters at 4, a quarter at 2). The text
    /// is then read 16 tokens at a time, so that all but the current chunk are at that width
    #[arg(long, value_name = "BITS", default_value_t = 16.0, value_parser = kv_bits, conflicts_with = "exact")]
    pub kv_bits: f32,
    /// Read each window as the service keeps contexts: in calls of --call-tokens, after each of which the chunks take widths by
    /// how much attention they get, of so many bits on average
    #[arg(long, value_name = "BITS", conflicts_with_all = ["exact", "kv_bits"],
        value_parser = clap::value_parser!(f32))]
    pub average_bits: Option<f32>,
    /// How chunks take their widths: `ours` gives more bits to those that get more attention; others are for comparison
    #[arg(long, value_name = "POLICY", default_value = Policy::Ours.name(), value_parser = policies(), requires = "average_bits")]
    pub policy: Policy,
    /// Tokens of a call
    #[arg(long, value_name = "TOKENS", default_value_t = 256, requires = "average_bits",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub call_tokens: u32,
    /// Write the first --written-tokens of each window at this level, and score only what follows: what a context of another
    /// level is worth
    #[arg(long, value_name = "PERCENT", requires = "average_bits", requires = "written_tokens",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub written_level: Option<u32>,
    /// Tokens of each window that are written at --written-level
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub written_tokens: Option<u32>,
    /// Read chunks of levels that are lower by so many percent, too, if no group is missing in them
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "average_bits")]
    pub level_slack: u32,
    #[command(flatten)]
    pub level: MeasuredLevel,
    /// Store keys and values without the Walsh-Hadamard transform: to see what it gains
    #[arg(long)]
    pub no_rotate: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

fn kv_bits(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(bits) if bits == 16.0 || (2.0..=8.0).contains(&bits) => Ok(bits),
        _ => Err("16, or a number from 2 to 8".into()),
    }
}

/// The widths around `bits`, as the options have them.
fn store(options: &mut Options, bits: f32) {
    let (width, share) = match bits {
        b if b > 8.0 => return,
        b if b > 4.0 => (Width::W8, (8.0 - b) / 4.0),
        b if b > 2.0 => (Width::W4, (4.0 - b) / 2.0),
        _ => (Width::W2, 0.0),
    };
    (options.kv_width, options.kv_narrower, options.prefill_rows) = (width, share, 16);
}

/// Negative log-likelihoods of a window's tokens from the second on.
type Score = Box<dyn FnMut(&[u32]) -> Result<Vec<f32>>>;

pub fn run(global: &GlobalArgs, args: &PplArgs) -> Result<()> {
    let file = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {file}"))?;
    let window = args.window as usize;
    let mut windows = Vec::new();
    let mut session = Session::open(global, |model, options| {
        windows = cut(&model.tokenizer, &text, window)?;
        ensure!(!windows.is_empty(), "{file} has fewer than two tokens: there is nothing to score");
        let (longest, most) = (windows[0].len(), model.spec.context_len);
        ensure!(longest <= most, "--window {window} is more than the {most} tokens that this model reads");
        options.exact = args.exact;
        options.kv_rotate = !args.no_rotate;
        store(options, args.kv_bits);
        if let Some(bits) = args.average_bits {
            ensure!((2.0..=16.0).contains(&bits), "--average-bits must be between 2 and 16");
            Kept::options(bits, args.policy).prepare(options);
        }
        options.fit_contexts(&model.spec, longest);
        Ok(())
    })?;
    let (model, adapter) = (session.model_name(), session.engine.adapter());
    let level = args.level.apply(&mut session.engine)?;
    let mut score: Score = match args.average_bits {
        Some(bits) => {
            let mut kept = Kept::new(session.engine, bits, args.policy, args.call_tokens as usize, level)?;
            kept.slack(args.level_slack);
            let written = args.written_level.zip(args.written_tokens.map(|n| n as usize));
            Box::new(move |tokens| kept.nll(tokens, written))
        }
        None => Box::new(move |tokens| Ok(pollster::block_on(session.engine.nll(tokens, level))?)),
    };
    let bar = bar(windows.len() as u64, "{bar:30} window {pos} of {len}, {eta} left, perplexity {msg}");
    let mut scored: Vec<(f64, usize)> = Vec::new();
    for tokens in &windows {
        let nll = score(tokens)?;
        let sum: f64 = nll.iter().map(|v| f64::from(*v)).sum();
        ensure!(sum.is_finite(), "the model's likelihoods in window {} are not numbers", scored.len() + 1);
        scored.push((sum, nll.len()));
        bar.set_message(format!("{:.3}", total(&scored).2));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (nll_sum, tokens, ppl) = total(&scored);
    let interval = clustered_mean(&scored).map(|i| Interval { low: i.low.exp(), high: i.high.exp() });
    if args.json {
        let report = serde_json::json!({
            "model": model,
            "adapter": adapter,
            "level": level,
            "adapters": !args.level.no_adapters,
            "written_level": args.written_level,
            "written_tokens": args.written_tokens,
            "level_slack": args.level_slack,
            "exact": args.exact,
            "kv_bits": args.kv_bits,
            "average_bits": args.average_bits,
            "policy": args.average_bits.is_some().then(|| args.policy.name()),
            "rotate": !args.no_rotate,
            "window": window,
            "windows": scored.len(),
            "tokens": tokens,
            "nll_sum": nll_sum,
            "ppl": ppl,
            "ppl_95": interval,
        });
        println!("{report}");
    } else {
        let interval = interval.map(|i| format!(" (95 % interval {:.4} to {:.4})", i.low, i.high)).unwrap_or_default();
        println!("perplexity {ppl:.4}{interval}, over {tokens} tokens in {} windows", scored.len());
    }
    Ok(())
}

/// Summed negative log-likelihood, tokens, perplexity.
fn total(scored: &[(f64, usize)]) -> (f64, usize, f64) {
    let (sum, tokens) = scored.iter().fold((0.0, 0), |(sum, tokens), w| (sum + w.0, tokens + w.1));
    (sum, tokens, (sum / tokens as f64).exp())
}

/// Windows of at most `window` tokens, each with two or more.
fn cut(tokenizer: &Tokenizer, text: &str, window: usize) -> Result<Vec<Vec<u32>>> {
    let tokens = tokenizer.encode(text, false)?;
    let bos: Vec<u32> = tokenizer.bos().into_iter().collect();
    let windows = tokens.chunks(window - bos.len()).map(|chunk| [bos.as_slice(), chunk].concat());
    Ok(windows.filter(|window| window.len() >= 2).collect())
}
