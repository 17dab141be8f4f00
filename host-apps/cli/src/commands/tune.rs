//! `concertina tune`.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use concertina::tune::{RoleReport, Tune, TuneReport};
use serde_json::{Value, json};

use crate::cli::GlobalArgs;
use crate::session::{Session, bar};

const EXAMPLES: &str = "\
Examples:
  concertina tune
  concertina tune -m qwen-0.5b --exact
  concertina tune --adapter nvidia --json > tuned.json";

/// Measure every matrix kernel on this machine and keep the fastest.
///
/// For each shape of a model's matrices and each size of a batch, every kernel that can do the work is checked against its
/// twin on the processor and measured. The fastest that is right is used from then on, until the driver, the program's
/// shaders or the model's shapes change. The first use of a model does the same within a few seconds; this command takes
/// the time it needs and shows what it finds. CONCERTINA_TUNE=off turns tuning off, which leaves the choice to the kind of
/// adapter.
///
/// CONCERTINA_KERNELS has beginnings of kernels' names with commas between, preferred ones first, such as
/// matmul_i8,matvec_i8. This command then measures only those and keeps nothing; every other command runs them in place of
/// what was measured, wherever one of them can, which shows what a kernel does to a whole model.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    /// For runs with --exact: no kernels that round activations to 8 bits or multiply in f16
    #[arg(long)]
    pub exact: bool,
    /// Stop beginning new measurements after this many seconds [default: no limit]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: Option<u32>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

pub fn run(global: &GlobalArgs, args: &TuneArgs) -> Result<()> {
    let mut session = Session::open(global, |model, options| {
        options.exact = args.exact;
        options.tune = Tune::Off;
        options.fit_contexts(&model.spec, 256);
        Ok(())
    })?;
    let budget = args.seconds.map(|s| std::time::Duration::from_secs(u64::from(s)));
    let shown = bar(1, "measuring {bar:30} {pos}/{len}");
    let mut progress = |done: usize, total: usize| {
        shown.set_length(total as u64);
        shown.set_position(done as u64);
    };
    let report = pollster::block_on(session.engine.tune(budget, &mut progress));
    shown.finish_and_clear();
    let report = report?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", as_json(&session, args, &report))?;
    } else {
        write!(out, "{}", as_text(&session, &report))?;
    }
    Ok(())
}

/// GB/s of weights and vectors, and GFLOP/s.
fn rates(role: &RoleReport, ns: f64) -> (f64, f64) {
    let (s, rows) = (&role.role.shape, role.role.rows as f64);
    let (n, k) = (s.n as f64, s.k as f64);
    let weights = n * k / s.format.panel_cols() as f64 * s.format.block_bytes() as f64;
    ((weights + 4.0 * rows * (n + k)) / ns, 2.0 * n * k * rows / ns)
}

fn as_text(session: &Session, report: &TuneReport) -> String {
    let mut text = format!("{}\n", session.engine.adapter());
    for role in &report.roles {
        text += &format!("\n{}, {} in the model\n", role.role, role.role.count);
        text += &format!("  {:<30} {:>10} {:>8} {:>9}  parity\n", "candidate", "us", "GB/s", "GFLOP/s");
        let chosen = role.chosen().map(|c| c.variant.name);
        for candidate in &role.candidates {
            let mark = if chosen == Some(candidate.variant.name) { '*' } else { ' ' };
            let numbers = candidate.ns.map_or_else(
                || format!("{:>10} {:>8} {:>9}", "-", "-", "-"),
                |ns| {
                    let (gb, gflop) = rates(role, ns);
                    format!("{:>10.1} {gb:>8.2} {gflop:>9.1}", ns / 1e3)
                },
            );
            let parity = match &candidate.parity {
                Ok(error) => format!("off by {error:.0e}"),
                Err(why) => format!("FAILED: {}", why.lines().next().unwrap_or_default()),
            };
            text += &format!("{mark} {:<30} {numbers}  {parity}\n", candidate.variant.name);
        }
    }
    let table = &report.table;
    let measured = if table.cutovers { "measured" } else { "not measured" };
    text += &format!(
        "\nbatches: narrow below {} rows, few below {}, wide from there on ({measured})\n",
        table.few_from, table.wide_from
    );
    let rest = if report.complete { "" } else { "; time ran out before all was measured" };
    text + &format!("* is used. {} roles in {:.1} s{rest}\n", report.roles.len(), report.seconds)
}

fn as_json(session: &Session, args: &TuneArgs, report: &TuneReport) -> Value {
    let roles: Vec<Value> = report
        .roles
        .iter()
        .map(|role| {
            let candidates: Vec<Value> = role
                .candidates
                .iter()
                .map(|c| {
                    let rates = c.ns.map(|ns| rates(role, ns));
                    json!({
                        "variant": c.variant.name,
                        "ns": c.ns,
                        "gb_s": rates.map(|r| r.0),
                        "gflop_s": rates.map(|r| r.1),
                        "error": c.parity.as_ref().ok(),
                        "refused": c.parity.as_ref().err(),
                    })
                })
                .collect();
            let s = &role.role.shape;
            json!({
                "family": role.role.family.name(), "rows": role.role.rows, "count": role.role.count,
                "format": s.format.name(), "n": s.n, "k": s.k, "cut": format!("{:?}", s.cut).to_lowercase(),
                "chosen": role.chosen().map(|c| c.variant.name), "candidates": candidates,
            })
        })
        .collect();
    json!({
        "adapter": session.engine.adapter(), "model": session.model_name(), "exact": args.exact,
        "few_from": report.table.few_from, "wide_from": report.table.wide_from, "cutovers": report.table.cutovers,
        "complete": report.complete, "seconds": report.seconds, "roles": roles,
    })
}
