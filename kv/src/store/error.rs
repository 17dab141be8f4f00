//! What can go wrong in the store.

use std::io;

/// Result of the store's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the store. A payload that cannot be read is none: it is reported as missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The app has no context of this name. The same for another app's context: existence is not told.
    #[error("the app has no such context")]
    UnknownContext,
    /// The disk, or the store's budget of it, is full. Nothing that was stored is lost.
    #[error("the disk or its budget is full")]
    DiskFull,
    /// A file operation failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An earlier operation failed, and the store writes no more until it is opened again.
    #[error("the store stopped writing after a failure: {0}")]
    Stopped(String),
    /// A part of the store is damaged beyond its second copy.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// The device key does not open the store, or both copies of its superblock are damaged.
    #[error("the device key does not open this store, or both copies of its superblock are damaged")]
    WrongKey,
    /// A newer program wrote the store.
    #[error("the store has format {found}, this program knows {known}")]
    Version {
        /// The store's.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// An argument is out of range.
    #[error("{0}")]
    Invalid(&'static str),
    /// The tokens given do not continue the ones stored.
    #[error("the context holds {stored} tokens, and the ones given from {at} do not continue them")]
    Diverged {
        /// Tokens stored.
        stored: usize,
        /// Where the given tokens start.
        at: usize,
    },
    /// The index refused.
    #[error("index: {0}")]
    Index(String),
}

impl Error {
    pub(super) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull,
            _ => Self::Io { action, source },
        }
    }
}

/// Errors of redb, which come in one enum a kind of call.
pub(super) fn index<E: Into<redb::Error>>(error: E) -> Error {
    match error.into() {
        redb::Error::Io(source) => Error::io("index")(source),
        redb::Error::PreviousIo => Error::Stopped("an earlier failure of the index".to_owned()),
        redb::Error::Corrupted(_) => Error::Damaged("the index"),
        other => Error::Index(other.to_string()),
    }
}
