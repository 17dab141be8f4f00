//! The wall between input and the crates that may panic on it.
//!
//! `tokenizers` and the filters of `minijinja` panic on some crafted input. A panic inside the wall becomes an error.
//! The process's panic hook still runs, so a caught panic prints its line: a library does not replace the hook of its
//! program. On `wasm32` a panic aborts and the wall gives nothing; what can be checked beforehand is checked beforehand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Error, Result};

/// Run `work`; an error or a panic of it becomes [`Error::Tokenizer`].
///
/// What `work` changes must be thrown away, or still be valid, when it panics.
pub(super) fn wall<T>(what: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Tokenizer(format!("{what}: {error}"))),
        Err(panic) => Err(Error::Tokenizer(format!("{what}: panicked: {panic}"))),
    }
}

/// Run `work`; the message of a panic comes back as an error.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
    })
}
