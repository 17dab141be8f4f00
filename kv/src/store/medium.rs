//! What the store asks of files, and the budget and the latch that stand before it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files by name. What the store assumes of them stands in `FORMAT.md`.
pub trait Medium: Debug + Send + Sync + 'static {
    /// Bytes of a file, or `None` where there is none of that name.
    fn len(&self, name: &str) -> io::Result<Option<u64>>;

    /// Fill `out` from a file; [`io::ErrorKind::UnexpectedEof`] where it ends before.
    fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Write all of `data`, creating and lengthening the file as needed.
    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cut a file, or lengthen it with zeros, creating it as needed.
    fn set_len(&self, name: &str, len: u64) -> io::Result<()>;

    /// Return when the file's contents, its length and its existence survive a power cut.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Remove a file; no error where there is none. It may come back after a power cut.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// Files of payload, as against those that tokens need.
pub(super) const SEGMENT_PREFIX: &str = "seg.";

/// A medium with a hard budget, which takes no more writes after the first that failed.
#[derive(Debug)]
pub(super) struct Disk {
    medium: Arc<dyn Medium>,
    budget: u64,
    /// Part of the budget that payload must leave to the index and the keys.
    reserve: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lengths: BTreeMap<String, u64>,
    failed: Option<(io::ErrorKind, String)>,
}

impl Disk {
    pub(super) fn new(medium: Arc<dyn Medium>, budget: u64, reserve: u64) -> io::Result<Self> {
        let mut lengths = BTreeMap::new();
        for name in medium.list()? {
            let len = medium.len(&name)?.unwrap_or(0);
            lengths.insert(name, len);
        }
        Ok(Self { medium, budget, reserve, state: Mutex::new(State { lengths, failed: None }) })
    }

    /// Every state is left whole before anything can panic, so a poisoned lock guards a good state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failure after which nothing is written any more.
    pub(super) fn failure(&self) -> Option<(io::ErrorKind, String)> {
        self.state().failed.clone()
    }

    /// Remember the first failure. A full disk is none: nothing was promised that it breaks.
    fn latch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::StorageFull
        {
            self.state().failed.get_or_insert_with(|| (error.kind(), error.to_string()));
        }
        result
    }

    fn healthy(&self) -> io::Result<()> {
        match &self.state().failed {
            Some((kind, text)) => Err(io::Error::new(*kind, format!("after an earlier failure: {text}"))),
            None => Ok(()),
        }
    }

    fn afford(&self, name: &str, end: u64) -> io::Result<()> {
        let state = self.state();
        let old = state.lengths.get(name).copied().unwrap_or(0);
        if end <= old {
            return Ok(());
        }
        let used: u64 = state.lengths.values().sum();
        let needs_reserve = if name.starts_with(SEGMENT_PREFIX) {
            let index: u64 =
                state.lengths.iter().filter(|(name, _)| !name.starts_with(SEGMENT_PREFIX)).map(|(_, len)| len).sum();
            self.reserve.saturating_sub(index)
        } else {
            0
        };
        if used.saturating_add(end - old).saturating_add(needs_reserve) > self.budget {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the store's disk budget is used up"));
        }
        Ok(())
    }

    fn set_known_len(&self, name: &str, len: impl FnOnce(u64) -> u64) {
        let mut state = self.state();
        let entry = state.lengths.entry(name.to_owned()).or_insert(0);
        *entry = len(*entry);
    }

    pub(super) fn used(&self) -> u64 {
        self.state().lengths.values().sum()
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn len(&self, name: &str) -> Option<u64> {
        self.state().lengths.get(name).copied()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().lengths.keys().cloned().collect()
    }

    /// Reads are allowed after a failure: what is there still helps.
    pub(super) fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.medium.read_at(name, offset, out)
    }

    pub(super) fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.healthy()?;
        let end = offset.saturating_add(data.len() as u64);
        self.afford(name, end)?;
        let result = self.latch(self.medium.write_at(name, offset, data));
        // A write that failed may have lengthened the file all the same.
        let grown = if result.is_ok() { Ok(Some(end)) } else { self.medium.len(name) };
        if let Ok(Some(len)) = grown {
            self.set_known_len(name, |old| old.max(len.min(end)));
        }
        result
    }

    pub(super) fn set_len(&self, name: &str, len: u64) -> io::Result<()> {
        self.healthy()?;
        self.afford(name, len)?;
        self.latch(self.medium.set_len(name, len))?;
        self.set_known_len(name, |_| len);
        Ok(())
    }

    pub(super) fn sync(&self, name: &str) -> io::Result<()> {
        self.healthy()?;
        // After a failed sync nobody knows which pages the system still holds: a second one that succeeds proves nothing.
        let result = self.medium.sync(name).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => io::Error::other(format!("sync failed: {error}")),
            _ => error,
        });
        self.latch(result)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.healthy()?;
        self.latch(self.medium.remove(name))?;
        self.state().lengths.remove(name);
        Ok(())
    }
}
