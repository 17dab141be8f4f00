//! One pull of a model at a time, across processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

/// Held until dropped; the system frees it too when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock, after waiting for another process that holds it.
pub fn acquire(path: &Path, model: &str) -> Result<Lock> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = open().with_context(|| format!("cannot open the lock file {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("Another process is pulling `{model}`: waiting for it.");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        // Some network file systems know no locks. The rename at the end is atomic all the same.
        Err(TryLockError::Error(e)) => log::warn!("cannot lock {}: {e}; going on without", path.display()),
    }
    Ok(Lock { _file: file })
}
