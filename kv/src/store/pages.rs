//! The index's pages in two files: sealed one by one, and never both in flight.
//!
//! redb writes pages of 4 KiB and knows how to survive a power cut, but it trusts what it reads, and it asserts about its
//! header. So each page is sealed on its own, and the second file gets the pages only after the first is synced. At every
//! moment one of the two files is as some sync left it; a page that does not open in the first file is taken from the
//! second, which holds what was there before the write or the same page.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::crypto::{self, Aad, Key, OVERHEAD, Random};
use super::medium::Disk;

pub(super) const COPIES: [&str; 2] = ["index.0", "index.1"];
const PAGE: usize = 4096;
/// A sealed page.
pub(super) const UNIT: usize = PAGE + OVERHEAD;

#[derive(Debug)]
struct State {
    /// Pages of the file.
    pages: u64,
    /// Sealed pages that the second file has yet to get.
    pending: BTreeMap<u64, Vec<u8>>,
    resized: bool,
    random: Random,
}

/// redb's file.
pub(super) struct SealedPages {
    disk: Arc<Disk>,
    key: Key,
    store: [u8; 16],
    state: Mutex<State>,
}

impl std::fmt::Debug for SealedPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealedPages")
    }
}

fn is_hole(unit: &[u8]) -> bool {
    unit.iter().all(|byte| *byte == 0)
}

impl SealedPages {
    /// Take the two files as a power cut may have left them and make them one again.
    pub(super) fn open(disk: Arc<Disk>, key: Key, store: [u8; 16], random: Random) -> io::Result<Self> {
        let lens = COPIES.map(|name| disk.len(name));
        // The first file leads: it is a state that one file could be in. The second counts only where there is no first.
        let pages = lens[0].or(lens[1]).unwrap_or(0) / UNIT as u64;
        let state = State { pages, pending: BTreeMap::new(), resized: false, random };
        let this = Self { disk, key, store, state: Mutex::new(state) };
        this.mirror(pages)?;
        Ok(this)
    }

    fn aad(&self, page: u64) -> Aad {
        Aad::new(b"ixpage.1").bytes(&self.store).number(page)
    }

    fn unseal(&self, page: u64, unit: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        crypto::open(&self.key, &self.aad(page), unit)
    }

    /// Make both files equal, page by page.
    fn mirror(&self, pages: u64) -> io::Result<()> {
        const AT_ONCE: u64 = 64;
        let len = pages * UNIT as u64;
        let mut touched = [false; 2];
        for (copy, name) in COPIES.iter().enumerate() {
            if self.disk.len(name).unwrap_or(0) != len {
                self.disk.set_len(name, len)?;
                touched[copy] = true;
            }
        }
        for first in (0..pages).step_by(AT_ONCE as usize) {
            let count = AT_ONCE.min(pages - first) as usize;
            let mut units = [vec![0; count * UNIT], vec![0; count * UNIT]];
            let offset = first * UNIT as u64;
            for (name, units) in COPIES.iter().zip(&mut units) {
                self.disk.read_at(name, offset, units)?;
            }
            if units[0] == units[1] {
                continue;
            }
            for i in 0..count {
                let [a, b] = units.each_ref().map(|units| &units[i * UNIT..][..UNIT]);
                let page = first + i as u64;
                if a == b {
                    continue;
                }
                // A sealed page wins over a hole; of two sealed pages the first file's.
                let from = if self.unseal(page, a).is_some() {
                    0
                } else if self.unseal(page, b).is_some() {
                    1
                } else if is_hole(a) {
                    0
                } else if is_hole(b) {
                    1
                } else {
                    continue; // Damaged twice: reading it is an error.
                };
                let unit = [a, b][from];
                self.disk.write_at(COPIES[1 - from], page * UNIT as u64, unit)?;
                touched[1 - from] = true;
            }
        }
        for (name, touched) in COPIES.iter().zip(touched) {
            if touched {
                self.disk.sync(name)?;
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_page(&self, state: &State, page: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut unit = vec![0; UNIT];
        let first = self.disk.read_at(COPIES[0], page * UNIT as u64, &mut unit);
        if first.is_ok()
            && let Some(plain) = self.unseal(page, &unit)
        {
            return Ok(plain);
        }
        let hole = first.is_ok() && is_hole(&unit);
        let second = match state.pending.get(&page) {
            Some(pending) => self.unseal(page, pending),
            None if hole && state.resized => None,
            None => {
                let read = self.disk.read_at(COPIES[1], page * UNIT as u64, &mut unit);
                read.ok().and_then(|()| self.unseal(page, &unit))
            }
        };
        match second {
            Some(plain) => Ok(plain),
            None if hole => Ok(Zeroizing::new(vec![0; PAGE])),
            None => Err(first.err().unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a page of the index is damaged in both files")
            })),
        }
    }

    /// Write units as few long writes.
    fn write_units<'a>(&self, name: &str, units: impl Iterator<Item = (u64, &'a [u8])>) -> io::Result<()> {
        let (mut start, mut run) = (0, Vec::new());
        for (page, unit) in units {
            if !run.is_empty() && start + (run.len() / UNIT) as u64 != page {
                self.disk.write_at(name, start * UNIT as u64, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = page;
            }
            run.extend_from_slice(unit);
        }
        if run.is_empty() { Ok(()) } else { self.disk.write_at(name, start * UNIT as u64, &run) }
    }
}

impl redb::StorageBackend for SealedPages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().pages * PAGE as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= state.pages * PAGE as u64);
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let mut at = offset;
        while at < end {
            let within = at as usize % PAGE;
            let n = (PAGE - within).min((end - at) as usize);
            let page = self.read_page(&state, at / PAGE as u64)?;
            out[(at - offset) as usize..][..n].copy_from_slice(&page[within..][..n]);
            at += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole pages"));
        }
        let mut state = self.state();
        let pages = len / PAGE as u64;
        self.disk.set_len(COPIES[0], pages * UNIT as u64)?;
        // redb asserts that the file is as long as a header says, and a later header may reach the disk before the length.
        if pages > state.pages {
            self.disk.sync(COPIES[0])?;
        }
        state.pending.retain(|page, _| *page < pages);
        (state.pages, state.resized) = (pages, true);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        self.disk.sync(COPIES[0])?;
        if state.pending.is_empty() && !state.resized {
            return Ok(());
        }
        if state.resized {
            self.disk.set_len(COPIES[1], state.pages * UNIT as u64)?;
        }
        self.write_units(COPIES[1], state.pending.iter().map(|(page, unit)| (*page, unit.as_slice())))?;
        self.disk.sync(COPIES[1])?;
        state.pending.clear();
        state.resized = false;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= state.pages * PAGE as u64);
        let Some(end) = end else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let mut units = BTreeMap::new();
        let mut at = offset;
        while at < end {
            let within = at as usize % PAGE;
            let n = (PAGE - within).min((end - at) as usize);
            let page = at / PAGE as u64;
            let mut plain = if n == PAGE { Zeroizing::new(vec![0; PAGE]) } else { self.read_page(&state, page)? };
            plain[within..][..n].copy_from_slice(&data[(at - offset) as usize..][..n]);
            let aad = self.aad(page);
            units.insert(page, crypto::seal(&self.key, &mut state.random, &aad, &plain));
            at += n as u64;
        }
        self.write_units(COPIES[0], units.iter().map(|(page, unit)| (*page, unit.as_slice())))?;
        state.pending.extend(units);
        Ok(())
    }
}
