//! What can be said of contexts, on the command line and in the shell alike.

use bytesize::ByteSize;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use concertina::service::{ContextId, Policy};

use super::id::parse_id;
use crate::commands::before::BeforeArgs;
use crate::commands::level::LevelArg;
use crate::commands::policy::policies;
use crate::commands::sampling::SamplingArgs;
use crate::commands::slo::SloArgs;

/// What each command of contexts takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The app whose contexts are meant; others' cannot be reached [default: cli]
    #[arg(long, global = true, value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    pub app: Option<String>,
    /// JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// How the service keeps contexts, where a command runs the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub struct ServiceArgs {
    /// Bytes of GPU memory for keys and values: 64MiB, 1GiB
    #[arg(long, global = true, value_name = "BYTES", default_value = "256MiB")]
    pub kv_memory: ByteSize,
    /// Bits that keys and values have on average once they rest
    #[arg(long, global = true, value_name = "BITS", default_value_t = 4.0, value_parser = average_bits)]
    pub average_bits: f64,
    /// How contexts leave memory and come back; others than `ours` are for comparison
    #[arg(long, global = true, value_name = "POLICY", default_value = Policy::Ours.name(), value_parser = policies())]
    pub policy: Policy,
    /// Most tokens of a context [default: what the model reads, as far as memory holds it]
    #[arg(long, global = true, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(16..))]
    pub context: Option<u32>,
}

fn average_bits(text: &str) -> Result<f64, String> {
    let bits: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (2.0..=16.0).contains(&bits) { Ok(bits) } else { Err("must be from 2 to 16".to_owned()) }
}

const NEW: &str = "\
Examples:
  concertina ctx new
  concertina ctx new --app mail --system \"You write short, friendly answers.\"
  id=$(concertina ctx new)";
const ASK: &str = "\
Examples:
  concertina ctx ask $id \"Name three rivers.\"
  concertina ctx ask $id --greedy --max-tokens 32 \"And the longest?\"
  git diff | concertina ctx ask $id -
  concertina ctx ask $id --class quick - < mail.txt
  concertina ctx ask $id --prompt-level 40 - < mail.txt        the words that matter most; they are what stays
  concertina ctx ask $id --class quick --passage mail.txt \"When do we meet?\"     the question stays whole
  concertina ctx ask $id --json \"Hi\" | jq .switch.ready_ms";
const APPEND: &str = "\
Examples:
  concertina ctx append $id \"The meeting is on Monday.\"
  concertina ctx append $id - < notes.txt
  concertina ctx append $id --prompt-level 60 - < notes.txt    its best words only

With --prompt-level or a target a text may be shortened. What is left of it is what the context holds: `ctx show` shows it.";
const LIST: &str = "\
Examples:
  concertina ctx list
  concertina ctx list --app mail
  concertina ctx list --all-apps --json | jq '.[].id'

ORDER is the place in which a context's first chunk leaves memory, 0 for the next. Outside of `concertina ctx shell`
nothing is in memory.";
const SHOW: &str = "\
Examples:
  concertina ctx show $id
  concertina ctx show $id --tokens";
const FORK: &str = "\
Examples:
  concertina ctx fork $id              a copy that goes its own way
  concertina ctx fork $id --keep 100   only its first 100 tokens";
const PREWARM: &str = "\
Examples:
  concertina ctx prewarm $id           how long it takes to come back
  echo \"prewarm $id\" | concertina ctx shell";
const MEASURE: &str = "\
Examples:
  concertina ctx measure \"How many tokens is this?\"
  concertina ctx measure - < notes.txt";
const PIN: &str = "\
Examples:
  concertina ctx pin $id";
const UNPIN: &str = "\
Examples:
  concertina ctx unpin $id";
const COMPACT: &str = "\
Examples:
  concertina ctx compact $id --keep 50 --to 1000";
const DELETE: &str = "\
Examples:
  concertina ctx delete $id";

#[derive(Debug, Clone, Subcommand)]
pub enum ContextCommand {
    /// Make a context and print its id
    #[command(after_help = NEW)]
    New(NewArgs),
    /// Say something in a context and get an answer
    #[command(after_help = ASK)]
    Ask(AskArgs),
    /// Add text to a context as it is, and answer nothing
    #[command(after_help = APPEND)]
    Append(AppendArgs),
    /// Show contexts, and where their keys and values are
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Show one context with its text
    #[command(after_help = SHOW)]
    Show(ShowArgs),
    /// Make a new context that begins like another
    #[command(after_help = FORK)]
    Fork(ForkArgs),
    /// Bring a context back to memory before it is needed
    #[command(after_help = PREWARM)]
    Prewarm(PrewarmArgs),
    /// Count the tokens of a text
    #[command(after_help = MEASURE)]
    Measure(MeasureArgs),
    /// Keep a context in memory whatever others need
    #[command(after_help = PIN)]
    Pin(IdArgs),
    /// Let a pinned context go again
    #[command(after_help = UNPIN)]
    Unpin(IdArgs),
    /// Drop the oldest turns of a context behind a beginning that stays
    #[command(after_help = COMPACT)]
    Compact(CompactArgs),
    /// Delete a context for good: its key is destroyed
    #[command(after_help = DELETE)]
    Delete(IdArgs),
}

#[derive(Debug, Clone, Args)]
pub struct NewArgs {
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    #[command(flatten)]
    pub id: IdArgs,
    /// The message; `-` for standard input
    pub message: String,
    /// Tokens after which the answer is cut off
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    #[command(flatten)]
    pub before: BeforeArgs,
    #[command(flatten)]
    pub slo: SloArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

#[derive(Debug, Clone, Args)]
pub struct AppendArgs {
    #[command(flatten)]
    pub id: IdArgs,
    /// The text; `-` for standard input
    pub text: String,
    #[command(flatten)]
    pub slo: SloArgs,
}

#[derive(Debug, Clone, Args)]
pub struct PrewarmArgs {
    #[command(flatten)]
    pub id: IdArgs,
    #[command(flatten)]
    pub level: LevelArg,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct ListArgs {
    /// The contexts of every app
    #[arg(long, conflicts_with = "app")]
    pub all_apps: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub id: IdArgs,
    /// Numbers of tokens instead of text
    #[arg(long)]
    pub tokens: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct ForkArgs {
    #[command(flatten)]
    pub id: IdArgs,
    /// Tokens that the new context begins with [default: all]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
}

#[derive(Debug, Clone, Args)]
pub struct MeasureArgs {
    /// The text; `-` for standard input
    pub text: String,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct CompactArgs {
    #[command(flatten)]
    pub id: IdArgs,
    /// Tokens at the beginning that stay
    #[arg(long, value_name = "N")]
    pub keep: usize,
    /// Tokens that remain, at most
    #[arg(long, value_name = "N")]
    pub to: usize,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct IdArgs {
    /// The context: 16 hex digits of `concertina ctx list`
    #[arg(value_parser = parse_id)]
    pub id: ContextId,
}

impl ContextCommand {
    /// The context that it is about.
    pub fn id(&self) -> Option<ContextId> {
        match self {
            Self::New(_) | Self::List(_) | Self::Measure(_) => None,
            Self::Ask(args) => Some(args.id.id),
            Self::Append(args) => Some(args.id.id),
            Self::Show(args) => Some(args.id.id),
            Self::Fork(args) => Some(args.id.id),
            Self::Compact(args) => Some(args.id.id),
            Self::Prewarm(args) => Some(args.id.id),
            Self::Pin(args) | Self::Unpin(args) | Self::Delete(args) => Some(args.id),
        }
    }

    /// Whether the model has to run for it.
    pub fn runs_model(&self) -> bool {
        matches!(self, Self::New(_) | Self::Ask(_) | Self::Append(_) | Self::Prewarm(_) | Self::Compact(_))
    }
}
