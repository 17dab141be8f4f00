//! `concertina list`: which models there are.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::models::cache::{Cache, State};
use crate::models::catalogue::{Catalogue, Model};
use crate::models::resolve::Resolver;
use crate::pull::human_bytes;
use crate::table;

const EXAMPLES: &str = "\
Examples:
  concertina list
  concertina list --json | jq -r '.[] | select(.downloaded) | .path'";

/// Show the models that have a name, and which of them are downloaded.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// A JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    aliases: &'a [String],
    default: bool,
    architecture: &'a str,
    bytes: u64,
    sha256: &'a str,
    licence: &'a str,
    licence_unclear: bool,
    licence_note: Option<&'a str>,
    downloaded: bool,
    /// Where the model lies, or will lie.
    path: String,
}

pub fn run(args: &ListArgs) -> Result<()> {
    let Resolver { catalogue, cache, .. } = Resolver::from_env(true)?;
    let rows = catalogue.models().iter().map(|m| row(&catalogue, &cache, m)).collect::<Result<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table(&rows))?;
    }
    Ok(())
}

fn row<'a>(catalogue: &Catalogue, cache: &Cache, model: &'a Model) -> Result<Row<'a>> {
    Ok(Row {
        name: &model.name,
        aliases: &model.aliases,
        default: model.name == catalogue.default_name(),
        architecture: &model.architecture,
        bytes: model.bytes,
        sha256: &model.sha256,
        licence: &model.licence,
        licence_unclear: model.licence_unclear,
        licence_note: model.licence_note.as_deref(),
        downloaded: matches!(cache.state(model)?, State::Verified | State::Unverified),
        path: cache.model_path(model).display().to_string(),
    })
}

fn table(rows: &[Row<'_>]) -> String {
    let mut lines = vec![["NAME", "SHORT NAMES", "SIZE", "LICENCE", "DOWNLOADED"].map(str::to_owned)];
    for row in rows {
        lines.push([
            format!("{}{}", row.name, if row.default { " (default)" } else { "" }),
            row.aliases.join(", "),
            human_bytes(row.bytes),
            format!("{}{}", row.licence, if row.licence_unclear { " (unclear)" } else { "" }),
            if row.downloaded { row.path.clone() } else { "no".to_owned() },
        ]);
    }
    table::table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_tells_of_licences() {
        let dir = tempfile::tempdir().unwrap();
        let (catalogue, cache) = (Catalogue::load(None).unwrap(), Cache::at(dir.path()));
        let rows: Vec<Row<'_>> = catalogue.models().iter().map(|m| row(&catalogue, &cache, m).unwrap()).collect();
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        let column = lines[0].find("SIZE").unwrap();
        assert!(lines[1][column..].starts_with("98.36 MB"), "{text}");
        assert!(lines[1].contains("(default)") && lines[2].contains("(unclear)"), "{text}");
        assert!(!lines[1].contains("unclear"));
    }
}
