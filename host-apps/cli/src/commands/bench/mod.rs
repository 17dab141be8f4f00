//! `concertina bench`: how fast it is here.

pub mod decode;
pub mod impact;
pub mod kernels;
pub mod level_switch;
pub mod prefill;
pub mod report;
pub mod restore;
pub mod slo;
pub mod switch;
pub mod trace;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cli::GlobalArgs;

const EXAMPLES: &str = "\
Examples:
  concertina bench prefill --tokens 128,512
  concertina bench decode --runs 5 --json
  concertina bench decode --context 128,4096 --kv-bits 4
  concertina bench prefill --level 20,60,100
  concertina bench kernels --svg roofline.svg --trace pass.json
  concertina bench switch --svg switch.svg
  concertina bench level-switch --level 60 --from 20";

/// Measure the speed of prefill, of decode, of every kernel, of coming back to contexts and of meeting targets on this machine.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum BenchCommand {
    Prefill(prefill::PrefillArgs),
    Decode(decode::DecodeArgs),
    Kernels(kernels::KernelsArgs),
    Impact(impact::ImpactArgs),
    LevelSwitch(level_switch::LevelSwitchArgs),
    Restore(restore::RestoreArgs),
    Slo(slo::SloBenchArgs),
    Switch(switch::SwitchArgs),
    Trace(trace::TraceArgs),
}

/// What both measurements share.
#[derive(Debug, Clone, Args)]
pub struct RunsArgs {
    /// Measured runs of each case; the median is reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Sizes of the sub-model, in percent of the units of layers, separated by commas
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    pub level: Vec<u32>,
    /// Use no kernels that quantise activations: slower, and closer to the model's own numbers
    #[arg(long)]
    pub exact: bool,
    /// One JSON object a case, each on a line, instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Prefill(args) => prefill::run(global, args),
        BenchCommand::Decode(args) => decode::run(global, args),
        BenchCommand::Kernels(args) => kernels::run(global, args),
        BenchCommand::Impact(args) => impact::run(global, args),
        BenchCommand::LevelSwitch(args) => level_switch::run(global, args),
        BenchCommand::Restore(args) => restore::run(global, args),
        BenchCommand::Slo(args) => slo::run(global, args),
        BenchCommand::Switch(args) => switch::run(global, args),
        BenchCommand::Trace(args) => trace::run_command(global, args),
    }
}
