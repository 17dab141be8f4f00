//! The command line as a whole: what every command shares, and which commands there are.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::commands::{bench, chat, ctx, doctor, elastic, elasticize, eval, list, pull, run, store, tune};

const EXAMPLES: &str = "\
Examples:
  concertina chat                                   talk to the default model
  concertina run \"What is a monad?\"                 one prompt, one answer
  concertina run -m qwen-0.5b --greedy - < task.md  another model, the prompt from a file
  concertina pull qwen-1.5b                         get a model now, use it offline later
  concertina doctor                                 what works on this machine, and how to get what does not

A model is a name or short name of `concertina list`, a path to a .gguf file, or a path to a directory of safetensors.";

/// An elastic LLM for one device: local models on any GPU.
///
/// Concertina runs language models on this machine, on whichever GPU it has (Vulkan, Metal or Direct3D 12). A model
/// that is not here yet is downloaded once, checked, and used from the cache ever after.
#[derive(Debug, Parser)]
#[command(name = "concertina", version, after_help = EXAMPLES, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Model: a name of `concertina list`, a .gguf file, or a directory of safetensors
    #[arg(short, long, global = true, env = "CONCERTINA_MODEL", value_name = "MODEL")]
    pub model: Option<String>,
    /// GPU to use: a part of its name, or its number in `concertina doctor` [default: the best one]
    #[arg(long, global = true, env = "CONCERTINA_ADAPTER", value_name = "ADAPTER")]
    pub adapter: Option<String>,
    /// Never download: what is not in the cache is an error
    #[arg(long, global = true, env = "CONCERTINA_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
    /// Say more: -v for what is done, -vv for details (RUST_LOG overrides it)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Chat(chat::ChatArgs),
    Run(run::RunArgs),
    Ctx(ctx::CtxArgs),
    Store(store::StoreCommandArgs),
    Pull(pull::PullArgs),
    List(list::ListArgs),
    Doctor(doctor::DoctorArgs),
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Tune(tune::TuneArgs),
    Elasticize(elasticize::ElasticizeArgs),
    #[command(subcommand)]
    Elastic(elastic::ElasticCommand),
}

/// Runs the command. The exit code is not 0 where the command ran but has bad news.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Chat(args) => chat::run(global, &args)?,
        Command::Run(args) => run::run(global, &args)?,
        Command::Ctx(args) => ctx::run(global, &args)?,
        Command::Store(args) => return store::run(&args),
        Command::Pull(args) => pull::run(global, &args)?,
        Command::List(args) => list::run(&args)?,
        Command::Doctor(args) => return doctor::run(global, &args),
        Command::Eval(command) => eval::run(global, &command)?,
        Command::Bench(command) => bench::run(global, &command)?,
        Command::Tune(args) => tune::run(global, &args)?,
        Command::Elasticize(args) => elasticize::run(global, &args)?,
        Command::Elastic(command) => elastic::run(global, &command)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Log lines go to standard error. Libraries are quieter than ourselves.
pub fn start_logging(verbose: u8) {
    let filter = match verbose {
        // That an adapter is a CPU is said in `Session::open`, to people only.
        0 => "warn,concertina::gpu::device=error",
        1 => "warn,concertina=info",
        2 => "info,concertina=debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_of_the_contract_parse() {
        let lines = [
            "run -m smollm2 --max-tokens 5 --greedy --exact --json hello",
            "run --temperature 0.7 --top-k 40 --top-p 0.9 --min-p 0.05 --repetition-penalty 1.1 --seed 1 --system s -",
            "run --raw hello",
            "run",
            "chat --model smollm2 -v --context 512 --no-history",
            "pull smollm2 --force",
            "pull",
            "list --json",
            "doctor --json --adapter llvmpipe",
            "eval ppl --file f.txt --window 512 --json --exact",
            "eval ppl --file f.txt --kv-bits 3.5 --no-rotate",
            "eval mc --file f.jsonl --json --exact --limit 10 --details d.jsonl",
            "eval logits --model m.gguf --tokens f.json --out g.npy --exact",
            "bench prefill --tokens 128,512 --runs 3 --json",
            "bench prefill --level 20,100",
            "bench decode --tokens 128 --json",
            "bench decode --context 128,4096 --kv-bits 4 --level 20,40,100",
            "bench kernels --context 64 --prefill 16 --passes 2 --trace t.json --svg r.svg --history h.jsonl --json",
            "bench kernels --level 40",
            "bench kernels --watch shaders/wgsl",
            "tune --exact --seconds 5 --json",
            "ctx new --app mail --system s --store d --disk-budget 500MB",
            "ctx ask 0123456789abcdef hello --greedy --max-tokens 5 --json --kv-memory 64MiB --average-bits 4",
            "ctx --policy ours-no-compression --context 512 append 0123456789ABCDEF -",
            "ctx list --all-apps --json",
            "ctx show 0123456789abcdef --tokens",
            "ctx fork 0123456789abcdef --keep 10",
            "ctx prewarm 0123456789abcdef",
            "ctx measure text",
            "ctx pin 0123456789abcdef",
            "ctx unpin 0123456789abcdef",
            "ctx compact 0123456789abcdef --keep 10 --to 100",
            "ctx delete 0123456789abcdef",
            "ctx shell --kv-memory 1GiB",
            "store check --json",
            "store stats --store d",
            "store compact",
            "elasticize",
            "elasticize smollm2 --order-only --out d --data t --down-format q5_1 --seed 2",
            "elasticize -m smollm2 --steps 10 --down-format q8-0",
            "run --class quick hello",
            "run --ttft-ms 300 --tpot-ms 20.5 --prompt-level 60 hello",
            "chat --class instant",
            "ctx ask 0123456789abcdef hello --ttft-ms 300 --level 60",
            "ctx prewarm 0123456789abcdef --level 60",
            "eval mc --file f.jsonl --level 60 --no-adapters",
            "bench slo --apps a.jsonl,b.jsonl --requests 60 --skew -0.25 --policies ours,full --json",
            "elastic apply smollm2 --package p --out d",
            "elastic show -m m.gguf --text t --svg s.svg --json",
            "elastic cap --apps a.jsonl --levels 20,100 --prompt-levels 60,100 --json --svg s.svg",
        ];
        for line in lines {
            let words = std::iter::once("concertina").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_flags_are_refused() {
        for line in [
            "run --greedy --temperature 1 x",
            "run --top-p 1.5 x",
            "run --temperature -1 x",
            "run --temperature nan x",
            "run --max-tokens 0 x",
            "run --raw --system s x",
            "eval ppl --file f --window 1",
            "eval ppl --file f --kv-bits 12",
            "eval ppl --file f --kv-bits 4 --exact",
            "bench prefill --tokens 0",
            "bench prefill --runs 0",
            "bench prefill --level 0",
            "bench decode --level 101",
            "bench decode --context 0",
            "bench decode --kv-bits 3",
            "bench decode --kv-bits 4 --exact",
            "bench kernels --prefill 1",
            "bench kernels --level 20,40",
            "tune --seconds 0",
            "elasticize --order-only --steps 5",
            "elasticize --down-format q6_k",
            "pull --source npm smollm2",
            "ctx ask 123 hello",
            "ctx ask 0123456789abcdeg hello",
            "ctx ask +123456789abcdef hello",
            "ctx ask 0123456789abcdef",
            "ctx list --all-apps --app mail",
            "ctx list --average-bits 1",
            "ctx list --policy best",
            "ctx list --kv-memory some",
            "ctx new --app=",
            "ctx compact 0123456789abcdef --keep 1",
            "run --ttft-ms 0 hello",
            "run --class fast hello",
            "run --prompt-level 10 hello",
            "run --level 0 hello",
            "bench slo",
            "elastic",
            "ctx",
            "store",
        ] {
            let words = std::iter::once("concertina").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_teaches_with_examples() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no about", command.get_name());
            assert!(command.get_after_help().is_some(), "{} has no examples", command.get_name());
            command.get_subcommands().filter(|c| c.get_name() != "help").for_each(check);
        }
        check(&Cli::command());
    }
}
