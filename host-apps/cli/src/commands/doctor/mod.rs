//! `concertina doctor`: what works on this machine, and how to get what does not.
//!
//! Each section is a function that returns findings. To add one, write its file and name it in [`findings`].

mod disk;
mod gpu;
mod models;
mod python;
mod system;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cli::GlobalArgs;
use crate::models::resolve::Resolver;

const EXAMPLES: &str = "\
Examples:
  concertina doctor
  concertina doctor --verify            read every downloaded model and check its hash
  concertina doctor --json | jq '.findings[] | select(.status != \"ok\")'

The exit code is 1 when something is missing without which nothing runs.";

/// Look at this machine: GPU, driver, disk, models, and what is missing.
///
/// Every line is `ok`, `warning` (works, but not as well as it could) or `missing` (does not work without), and says
/// what to do where something can be done.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Compute the hashes of the downloaded models again
    #[arg(long)]
    pub verify: bool,
    /// A JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Warning,
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub section: &'static str,
    pub name: String,
    pub status: Status,
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(section: &'static str, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { section, name: name.into(), status: Status::Ok, detail: detail.into(), fix: None }
    }

    pub fn warning(
        section: &'static str,
        name: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { status: Status::Warning, fix: Some(fix.into()), ..Self::ok(section, name, detail) }
    }

    pub fn missing(
        section: &'static str,
        name: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { status: Status::Missing, ..Self::warning(section, name, detail, fix) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    findings: Vec<Finding>,
}

pub fn run(global: &GlobalArgs, args: &DoctorArgs) -> Result<ExitCode> {
    let findings = findings(global, args)?;
    let report = Report { ok: findings.iter().all(|f| f.status != Status::Missing), findings };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text(&report))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn findings(global: &GlobalArgs, args: &DoctorArgs) -> Result<Vec<Finding>> {
    let resolver = Resolver::from_env(true)?;
    let mut findings = system::system_section();
    findings.extend(gpu::gpu_section(global.adapter.as_deref()));
    findings.extend(disk::disk_section(&resolver));
    findings.extend(models::models_section(&resolver, args.verify));
    findings.extend(python::python_section(&resolver));
    Ok(findings)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut section = "";
    for finding in &report.findings {
        if finding.section != section {
            section = finding.section;
            let _ = writeln!(text, "{section}");
        }
        let mark = match finding.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Missing => "missing",
        };
        let _ = writeln!(text, "  {mark}  {}: {}", finding.name, finding.detail);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "           -> {fix}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_sections_and_fixes() {
        let findings =
            vec![Finding::ok("disk", "free", "5 GB"), Finding::missing("gpu", "adapter", "none", "install a driver")];
        let report = Report { ok: false, findings };
        assert_eq!(
            text(&report),
            "disk\n  ok       free: 5 GB\ngpu\n  missing  adapter: none\n           -> install a driver\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["findings"][1]["status"], "missing");
        assert_eq!(json["findings"][0]["fix"], serde_json::Value::Null);
    }
}
