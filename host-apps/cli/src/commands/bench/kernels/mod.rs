//! `concertina bench kernels`.

mod history;
mod plot;
mod rivals;
mod rows;
mod trace;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use concertina::Ceilings;
use serde_json::json;

use super::report::{prompt, size};
use crate::cli::GlobalArgs;
use crate::session::Session;
use rivals::Place;
use rows::{Pass, as_json, matrix_share, text};

const EXAMPLES: &str = "\
Examples:
  concertina bench kernels
  concertina bench kernels --context 1024 --prefill 256 --passes 9 --json
  concertina bench kernels --level 40 --json        a sub-model: which kernels get smaller, and by how much
  concertina bench kernels --rivals --passes 15     whether the pass has the fastest kernel in each place
  concertina bench kernels --trace pass.json        open it in chrome://tracing or in Perfetto
  concertina bench kernels --svg roofline.svg --history kernels.jsonl
  concertina bench kernels --watch shaders/wgsl     measure a matrix kernel anew at every change of its file";

/// Measure every kernel of a real pass.
///
/// One decoded token after a context, and one piece of prefill, with a GPU timestamp after every dispatch. For each kernel
/// and shape: time (median over passes), bytes that must be moved and operations a second, its share of the pass, how
/// close that is to what this adapter can do (a copy and a loop of multiply-adds, measured in the same run; m: memory is
/// the limit, a: arithmetic is), and how close to the fastest kernel that the tuner found for the shape.
///
/// Timestamps cost time themselves, on lavapipe tens of microseconds a dispatch: so each pass is measured once more without those
/// between its dispatches, and what one adds is taken off every time.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct KernelsArgs {
    /// Tokens before the decoded one
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub context: u32,
    /// Tokens of the piece of prefill
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1024))]
    pub prefill: u32,
    /// Size of the sub-model, in percent of the units of layers
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub level: u32,
    /// Measured passes of each; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: u32,
    /// Measure every other kernel in the place of each product of the decoded token, too
    #[arg(long)]
    pub rivals: bool,
    /// Use no kernels that quantise activations
    #[arg(long)]
    pub exact: bool,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write the last pass of each kind as a Chrome trace
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Draw the roofline: kernels against the adapter's ceilings
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Append this run to FILE, a line of JSON each, and draw all of its runs into FILE with the ending .svg
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Then watch a directory of WGSL (shaders/wgsl): check and measure every matrix kernel that changes, until interrupted
    #[arg(long, value_name = "DIR")]
    pub watch: Option<PathBuf>,
    /// Looks at the watched directory before ending; 0: no end
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub looks: u32,
}

pub fn run(global: &GlobalArgs, args: &KernelsArgs) -> Result<()> {
    let (context, prefill) = (args.context as usize, args.prefill as usize);
    let mut session = Session::open(global, |model, options| {
        let (most, needed) = (model.spec.context_len, (context + 1).max(prefill));
        ensure!(needed <= most, "{needed} tokens are more than the {most} that this model reads");
        options.exact = args.exact;
        options.prefill_rows = prefill;
        options.fit_contexts(&model.spec, needed);
        Ok(())
    })?;
    if let Some(directory) = &args.watch {
        return watch::watch(&mut session.engine, directory, args.looks);
    }
    let ceilings = pollster::block_on(session.engine.ceilings())?;
    let at = if args.level < 100 { format!(" at level {}", args.level) } else { String::new() };
    let passes = [
        (format!("decode after {context} tokens{at}"), context + 1, 1),
        (format!("prefill of {prefill}{at}"), prefill, prefill),
    ]
    .into_iter()
    .map(|(name, tokens, rows)| {
        let tokens = prompt(session.engine.tokenizer(), tokens)?;
        let passes = pollster::block_on(session.engine.profile(&tokens, rows, args.level, args.passes as usize))?;
        Ok(Pass { name, rows, passes })
    })
    .collect::<Result<Vec<Pass>>>()?;
    let places = if args.rivals {
        let tokens = prompt(session.engine.tokenizer(), context + 1)?;
        let found = pollster::block_on(session.engine.rivals(&tokens, 1, args.level, args.passes as usize))?;
        rivals::places(&found, passes[0].stamp_ns())
    } else {
        Vec::new()
    };
    tell(&mut session, args, &ceilings, &passes, &places)?;
    if let Some(path) = &args.trace {
        write(path, &trace::trace(&passes).to_string())?;
    }
    let table = session.engine.tuning();
    let all: Vec<_> = passes.iter().map(|pass| (pass.name.as_str(), pass.rows(&ceilings, &table))).collect();
    if let Some(path) = &args.svg {
        write(path, &plot::roofline(&session.engine.adapter(), &ceilings, &all)?)?;
    }
    if let Some(path) = &args.history {
        let run = history::Run {
            unix_s: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            adapter: session.engine.adapter(),
            model: session.model_name(),
            ms: passes.iter().map(Pass::ns).map(|ns| ns / 1e6).collect(),
            matrix_share: all.iter().map(|(_, rows)| matrix_share(rows)).collect(),
            names: passes.iter().map(|pass| pass.name.clone()).collect(),
        };
        let runs = history::append(path, run)?;
        write(&path.with_extension("svg"), &plot::history(&runs)?)?;
    }
    Ok(())
}

fn tell(
    session: &mut Session,
    args: &KernelsArgs,
    ceilings: &Ceilings,
    passes: &[Pass],
    places: &[Place],
) -> Result<()> {
    let table = session.engine.tuning();
    let mut out = std::io::stdout().lock();
    let c = ceilings;
    if args.json {
        let passes: Vec<_> = passes.iter().map(|pass| as_json(pass, &pass.rows(ceilings, &table))).collect();
        let report = json!({
            "kind": "kernels", "adapter": session.engine.adapter(), "model": session.model_name(), "exact": args.exact,
            "level": args.level, "size": size(&mut session.engine, args.level)?, "tuned_roles": table.choices.len(),
            "ceilings": {
                "copy_gb_s": c.copy_gb_s, "buffer_copy_gb_s": c.buffer_copy_gb_s, "f32_gflop_s": c.f32_gflop_s,
                "f16_gflop_s": c.f16_gflop_s, "int8_gop_s": c.int8_gop_s, "dispatch_us": c.dispatch_us,
                "timestamp_us": c.timestamp_us,
            },
            "passes": passes, "rivals": rivals::as_json(places),
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    writeln!(out, "{}", session.engine.adapter())?;
    let half = c.f16_gflop_s.map_or("none".into(), |rate| format!("{rate:.1}"));
    writeln!(
        out,
        "ceilings: copy kernel {:.1} GB/s, buffer copy {:.1} GB/s; f32 {:.1} GFLOP/s, f16 {half} GFLOP/s, int8 dot {:.1} Gop/s",
        c.copy_gb_s, c.buffer_copy_gb_s, c.f32_gflop_s, c.int8_gop_s
    )?;
    writeln!(
        out,
        "an empty dispatch takes {:.1} us, a timestamp after it {:.1} us more",
        c.dispatch_us, c.timestamp_us
    )?;
    for pass in passes {
        write!(out, "{}", text(pass, &pass.rows(ceilings, &table)))?;
    }
    if !places.is_empty() {
        write!(out, "{}", rivals::text(places))?;
    }
    if table.choices.is_empty() {
        writeln!(out, "\nnothing was tuned here, so \"best\" is not known: see `concertina tune --help`")?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
