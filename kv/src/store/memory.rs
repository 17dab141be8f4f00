//! Files in memory that fail on demand, and what a power cut could leave of them.
//!
//! The fault model: a write that was not synced may be kept, lost, or torn (any of its sectors kept, or only a first part
//! of any length), in any order against other writes to any file; a change of length likewise; a removed file may come
//! back. What was synced stays. A write touches no byte outside its range.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::medium::Medium;
use crate::random::SplitMix;

const PAGE: usize = 4096;

/// Contents of a file in pages that copies share, so that a thousand crash images cost little.
#[derive(Debug, Clone, Default)]
struct Contents {
    len: u64,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Contents {
    fn set_len(&mut self, len: u64) {
        self.pages.resize((len as usize).div_ceil(PAGE), None);
        let tail = len as usize % PAGE;
        if len < self.len
            && tail != 0
            && let Some(Some(page)) = self.pages.last_mut()
        {
            Arc::make_mut(page)[tail..].fill(0);
        }
        self.len = len;
    }

    fn write(&mut self, offset: u64, mut data: &[u8]) {
        let end = offset + data.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let mut at = offset as usize;
        while !data.is_empty() {
            let n = (PAGE - at % PAGE).min(data.len());
            let page = self.pages[at / PAGE].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at % PAGE..][..n].copy_from_slice(&data[..n]);
            (at, data) = (at + n, &data[n..]);
        }
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = offset as usize;
        while !out.is_empty() {
            let n = (PAGE - at % PAGE).min(out.len());
            let (here, rest) = std::mem::take(&mut out).split_at_mut(n);
            match &self.pages[at / PAGE] {
                Some(page) => here.copy_from_slice(&page[at % PAGE..][..n]),
                None => here.fill(0),
            }
            (at, out) = (at + n, rest);
        }
        Ok(())
    }
}

/// An operation that changes files.
#[derive(Debug, Clone)]
enum Change {
    Write { name: Arc<str>, offset: u64, data: Arc<[u8]> },
    SetLen { name: Arc<str>, len: u64 },
    Sync { name: Arc<str> },
    Remove { name: Arc<str> },
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Write { name, .. } | Self::SetLen { name, .. } | Self::Sync { name } | Self::Remove { name } => name,
        }
    }

    fn apply(&self, files: &mut BTreeMap<String, Contents>) {
        match self {
            Self::Write { name, offset, data } => files.entry(name.to_string()).or_default().write(*offset, data),
            Self::SetLen { name, len } => files.entry(name.to_string()).or_default().set_len(*len),
            Self::Sync { .. } => {}
            Self::Remove { name } => drop(files.remove(&**name)),
        }
    }
}

/// Which operations fail, counted from when the fault was set.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The first operation that fails.
    pub at: u64,
    /// How many fail; `u64::MAX` for all that follow.
    pub count: u64,
    /// With which error. [`io::ErrorKind::StorageFull`] strikes only writes that lengthen, and changes of length.
    pub kind: io::ErrorKind,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, Contents>,
    journal: Vec<Change>,
    operations: u64,
    fault: Option<Fault>,
    skip_sync: bool,
    ignores_sync_of: Option<String>,
}

/// Files in memory: for tests, and where nothing has to outlive the process.
#[derive(Debug, Default)]
pub struct MemoryMedium {
    inner: Mutex<Inner>,
    journals: bool,
}

impl MemoryMedium {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// No files, and every change is kept for [`Crashes`].
    pub fn journaled() -> Self {
        Self { journals: true, ..Self::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A medium of its own with the same files.
    pub fn copy(&self) -> Self {
        Self { inner: Mutex::new(Inner { files: self.inner().files.clone(), ..Inner::default() }), journals: false }
    }

    /// A medium of its own with the same files, which keeps its changes.
    pub fn copy_journaled(&self) -> Self {
        Self { journals: true, ..self.copy() }
    }

    /// Operations so far: writes, changes of length, syncs, removals and reads.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Changes in the journal.
    pub fn journal_len(&self) -> usize {
        self.inner().journal.len()
    }

    /// Fail from now on as told; `None` heals.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut inner = self.inner();
        inner.operations = 0;
        inner.fault = fault;
    }

    /// Lie: report every sync (or those of one file) as done without doing it. A store on such a medium must be caught.
    pub fn ignore_syncs(&self, of: Option<&str>) {
        let mut inner = self.inner();
        inner.skip_sync = true;
        inner.ignores_sync_of = of.map(str::to_owned);
    }

    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner();
        let contents = inner.files.get(name)?;
        let mut out = vec![0; contents.len as usize];
        contents.read(0, &mut out).ok()?;
        Some(out)
    }

    /// Flip bits of one byte, as a bad disk does, outside of journal and faults.
    pub fn corrupt(&self, name: &str, offset: u64, mask: u8) {
        if let Some(contents) = self.inner().files.get_mut(name) {
            let mut byte = [0];
            if contents.read(offset, &mut byte).is_ok() {
                contents.write(offset, &[byte[0] ^ mask]);
            }
        }
    }

    /// Overwrite a part of a file, as an attacker does.
    pub fn overwrite(&self, name: &str, offset: u64, data: &[u8]) {
        if let Some(contents) = self.inner().files.get_mut(name) {
            contents.write(offset, data);
        }
    }
}

impl Inner {
    fn operation(&mut self, lengthens: bool) -> io::Result<()> {
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some(fault)
                if now >= fault.at
                    && now - fault.at < fault.count
                    && (fault.kind != io::ErrorKind::StorageFull || lengthens) =>
            {
                Err(io::Error::new(fault.kind, "injected"))
            }
            _ => Ok(()),
        }
    }

    fn len(&self, name: &str) -> u64 {
        self.files.get(name).map_or(0, |contents| contents.len)
    }

    fn change(&mut self, journals: bool, change: Change) {
        change.apply(&mut self.files);
        if journals {
            self.journal.push(change);
        }
    }
}

impl Medium for MemoryMedium {
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.inner().files.get(name).map(|contents| contents.len))
    }

    fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation(false)?;
        inner.files.get(name).ok_or(io::ErrorKind::NotFound)?.read(offset, out)
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let lengthens = offset + data.len() as u64 > inner.len(name);
        inner.operation(lengthens)?;
        inner.change(self.journals, Change::Write { name: name.into(), offset, data: data.into() });
        Ok(())
    }

    fn set_len(&self, name: &str, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let lengthens = len > inner.len(name);
        inner.operation(lengthens)?;
        inner.change(self.journals, Change::SetLen { name: name.into(), len });
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation(false)?;
        if inner.skip_sync && inner.ignores_sync_of.as_deref().is_none_or(|of| of == name) {
            return Ok(());
        }
        inner.change(self.journals, Change::Sync { name: name.into() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation(false)?;
        inner.change(self.journals, Change::Remove { name: name.into() });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().files.keys().cloned().collect())
    }
}

/// Walks a journal and makes the images that a power cut after each change could leave.
#[derive(Debug)]
pub struct Crashes {
    journal: Vec<Change>,
    at: usize,
    durable: BTreeMap<String, Contents>,
    pending: Vec<Change>,
}

impl Crashes {
    /// From a journaled medium that started empty.
    pub fn new(medium: &MemoryMedium) -> Self {
        Self::after(medium, &MemoryMedium::new())
    }

    /// From a journaled medium that started with the files of `before`, all of them durable.
    pub fn after(medium: &MemoryMedium, before: &MemoryMedium) -> Self {
        let journal = medium.inner().journal.clone();
        Self { journal, at: 0, durable: before.inner().files.clone(), pending: Vec::new() }
    }

    /// Take the next change. Returns how many were taken, or `None` at the end.
    pub fn step(&mut self) -> Option<usize> {
        let change = self.journal.get(self.at)?.clone();
        self.at += 1;
        if let Change::Sync { name } = &change {
            for done in self.pending.extract_if(.., |pending| pending.name() == &**name) {
                done.apply(&mut self.durable);
            }
        } else {
            self.pending.push(change);
        }
        Some(self.at)
    }

    /// One image that a crash now could leave.
    pub fn image(&self, random: &mut SplitMix) -> MemoryMedium {
        let mut files = self.durable.clone();
        let mut changes: Vec<&Change> = self.pending.iter().collect();
        let (keep, tear) = match random.below(6) {
            0 => (0.0, 0.0),
            1 => (1.0, 0.0),
            2 => (0.9, 0.3),
            3 => (0.5, 0.5),
            4 => (0.2, 1.0),
            _ => (1.0, 1.0),
        };
        if random.chance(0.5) {
            for i in (1..changes.len()).rev() {
                changes.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
        for change in changes {
            if !random.chance(keep) {
                continue;
            }
            match change {
                Change::Write { name, offset, data } if random.chance(tear) => {
                    let contents = files.entry(name.to_string()).or_default();
                    if random.chance(0.3) {
                        contents.write(*offset, &data[..random.below(data.len() as u64 + 1) as usize]);
                        continue;
                    }
                    let (mut at, end) = (*offset, offset + data.len() as u64);
                    while at < end {
                        let next = (at / 512 * 512 + 512).min(end);
                        if random.chance(0.5) {
                            contents.write(at, &data[(at - offset) as usize..(next - offset) as usize]);
                        }
                        at = next;
                    }
                }
                other => other.apply(&mut files),
            }
        }
        MemoryMedium { inner: Mutex::new(Inner { files, ..Inner::default() }), journals: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_may_lose_the_rest() {
        let medium = MemoryMedium::journaled();
        medium.write_at("a", 0, &[1; 2000]).unwrap();
        medium.sync("a").unwrap();
        medium.write_at("a", 1000, &[2; 2000]).unwrap();
        medium.write_at("b", 0, &[3; 100]).unwrap();
        let mut crashes = Crashes::new(&medium);
        while crashes.step().is_some() {}
        let mut random = SplitMix::new(1);
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for _ in 0..200 {
            let image = crashes.image(&mut random);
            let a = image.bytes("a").unwrap();
            assert_eq!(a[..1000], [1; 1000], "synced and never written again");
            assert!(a[1000..].iter().all(|byte| *byte < 3));
            match a[1000..].iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
    }

    #[test]
    fn faults_strike_where_they_are_set() {
        let medium = MemoryMedium::new();
        medium.set_fault(Some(Fault { at: 1, count: 1, kind: io::ErrorKind::StorageFull }));
        medium.write_at("a", 0, &[1]).unwrap();
        assert_eq!(medium.write_at("a", 1, &[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        medium.write_at("a", 1, &[1]).unwrap();
        medium.corrupt("a", 1, 0x80);
        assert_eq!(medium.bytes("a"), Some(vec![1, 0x81]));
        medium.set_len("a", 1).unwrap();
        medium.set_len("a", 2).unwrap();
        assert_eq!(medium.bytes("a"), Some(vec![1, 0]));
    }
}
