//! Where models are kept, and how much room is left there.

use std::path::Path;

use super::Finding;
use crate::models::cache::{CACHE_ENV, user_catalogue_path};
use crate::models::resolve::Resolver;
use crate::pull::human_bytes;

const SECTION: &str = "disk";

/// Below this, a larger model does not fit.
const LITTLE_BYTES: u64 = 2_000_000_000;

pub fn disk_section(resolver: &Resolver) -> Vec<Finding> {
    let root = resolver.cache.root();
    let existing = nearest_existing(root);
    let read_only = existing.and_then(|dir| dir.metadata().ok()).is_some_and(|m| m.permissions().readonly());
    let place = root.display().to_string();
    let mut findings = vec![if read_only {
        let fix = format!("allow yourself to write there, or set {CACHE_ENV} to another directory");
        Finding::missing(SECTION, "cache directory", format!("{place} cannot be written"), fix)
    } else {
        Finding::ok(SECTION, "cache directory", place)
    }];
    findings.push(match existing.map(fs4::available_space) {
        Some(Ok(free)) if free < LITTLE_BYTES => Finding::warning(
            SECTION,
            "free",
            human_bytes(free),
            format!("make room there, or set {CACHE_ENV} to a directory on another disk"),
        ),
        Some(Ok(free)) => Finding::ok(SECTION, "free", human_bytes(free)),
        Some(Err(e)) => Finding::warning(SECTION, "free", format!("unknown: {e}"), "look whether the disk is mounted"),
        None => Finding::warning(SECTION, "free", "unknown", format!("set {CACHE_ENV} to a directory that exists")),
    });
    if let Some(path) = user_catalogue_path() {
        let state = if path.exists() { "read" } else { "not there, and not needed" };
        findings.push(Finding::ok(SECTION, "your catalogue", format!("{} ({state})", path.display())));
    }
    findings
}

fn nearest_existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|p| p.exists())
}
