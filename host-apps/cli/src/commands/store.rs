//! `concertina store`: the store of contexts as a whole.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use concertina::kv::store::{CheckReport, Stats};
use serde_json::json;

use crate::pull::human_binary_bytes as human;
use crate::store::StoreArgs;

const EXAMPLES: &str = "\
Examples:
  concertina store check                 every token and chunk, read and verified; exit code 1 for damage
  concertina store stats --json
  concertina store compact               give back disk space";

const CHECK_EXAMPLES: &str = "\
Examples:
  concertina store check
  concertina store check --json | jq .problems
  concertina store check --store /mnt/backup/contexts

Exit code 1 means damage. A chunk that cannot be read costs time: it is computed anew from the tokens when its context
is next used. A problem is worse: it should not be, whatever power cuts there were, and tokens may be concerned.";

const STATS_EXAMPLES: &str = "\
Examples:
  concertina store stats
  concertina store stats --json | jq .disk_bytes";

const COMPACT_EXAMPLES: &str = "\
Examples:
  concertina store compact
  concertina store compact --json";

/// Look after the store of contexts.
///
/// The store keeps the contexts of `concertina ctx` on disk, encrypted. One process at a time can open it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct StoreCommandArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum StoreCommand {
    /// Verify everything: rows, tokens, chunks
    #[command(after_help = CHECK_EXAMPLES)]
    Check,
    /// Count what the store holds
    #[command(after_help = STATS_EXAMPLES)]
    Stats,
    /// Move chunks together and make files shorter
    #[command(after_help = COMPACT_EXAMPLES)]
    Compact,
}

pub fn run(args: &StoreCommandArgs) -> Result<ExitCode> {
    let mut store = args.store.open_required()?;
    let mut code = ExitCode::SUCCESS;
    let (text, value) = match args.command {
        StoreCommand::Check => {
            let report = store.check()?;
            if is_damaged(&report) {
                code = ExitCode::FAILURE;
            }
            (check_text(&report), check_json(&report))
        }
        StoreCommand::Stats => {
            let stats = store.stats()?;
            (stats_text(&stats), serde_json::to_value(&stats)?)
        }
        StoreCommand::Compact => {
            let report = store.compact()?;
            let (before, after) = (report.before_bytes, report.after_bytes);
            let text =
                format!("{} before, {} after; {} chunks moved\n", human(before), human(after), report.moved_chunks);
            (text, json!({"before_bytes": before, "after_bytes": after, "moved_chunks": report.moved_chunks}))
        }
    };
    store.close()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{value}")?
    } else {
        write!(out, "{text}")?
    }
    Ok(code)
}

fn is_damaged(report: &CheckReport) -> bool {
    report.unreadable_chunks > 0 || !report.problems.is_empty()
}

fn check_json(report: &CheckReport) -> serde_json::Value {
    json!({
        "ok": !is_damaged(report),
        "contexts": report.contexts,
        "tokens": report.tokens,
        "chunks": report.chunks,
        "unreadable_chunks": report.unreadable_chunks,
        "problems": report.problems,
    })
}

fn check_text(report: &CheckReport) -> String {
    let CheckReport { contexts, tokens, chunks, unreadable_chunks, problems } = report;
    let mut text = format!("{contexts} contexts, {tokens} tokens, {chunks} chunks\n");
    if !is_damaged(report) {
        return text + "All is well.\n";
    }
    if *unreadable_chunks > 0 {
        text += &format!(
            "{unreadable_chunks} chunks cannot be read. No text is lost: they are computed anew from the tokens when \
             their contexts are next used.\n"
        );
    }
    for problem in problems {
        text += &format!("problem: {problem}\n");
    }
    if !problems.is_empty() {
        text += "These should never be, not even after a power cut. Tokens may be concerned: keep a copy of the store \
                 and of its key, and report what happened.\n";
    }
    text
}

fn stats_text(stats: &Stats) -> String {
    format!(
        "contexts  {} with {} tokens\n\
         chunks    {} in {}; contexts link to them {} times\n\
         index     {}\n\
         disk      {} of {}\n",
        stats.contexts,
        stats.tokens,
        stats.chunks,
        human(stats.chunk_bytes),
        stats.links,
        human(stats.index_bytes),
        human(stats.disk_bytes),
        human(stats.disk_budget_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_tells_loss_of_time_from_loss_of_text() {
        let well = CheckReport { contexts: 1, tokens: 20, chunks: 1, ..CheckReport::default() };
        assert!(!is_damaged(&well) && check_text(&well).contains("All is well"));
        let slow = CheckReport { unreadable_chunks: 1, ..well.clone() };
        assert!(is_damaged(&slow) && check_text(&slow).contains("No text is lost"));
        assert!(!check_text(&slow).contains("problem"));
        let bad = CheckReport { problems: vec!["tokens belong to no context".into()], ..well };
        let text = check_text(&bad);
        assert!(is_damaged(&bad) && text.contains("problem: tokens belong") && text.contains("keep a copy"), "{text}");
        assert_eq!(check_json(&bad)["ok"], false);
    }
}
