//! The file `keys`: each context's key in a slot that is overwritten in place.
//!
//! The index never overwrites, so a key that ever was in it could be found in its free pages. Here a deleted context's key
//! is gone when its slot is zero in both copies, and its text and its chunks with it.

use std::collections::BTreeSet;

use super::crypto::{self, Aad, Key, Random, WRAPPED};
use super::error::{Error, Result};
use super::medium::Disk;

pub(super) const NAME: &str = "keys";
const COPY: usize = 128;
/// A slot, with two copies of a key.
pub(super) const SLOT: usize = 2 * COPY;

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Slots below this have been used.
    next: u32,
    free: BTreeSet<u32>,
}

impl Slots {
    /// All slots of the file that are not in `used` are free.
    pub(super) fn new(file_len: u64, used: &BTreeSet<u32>) -> Self {
        let in_file = u32::try_from(file_len.div_ceil(SLOT as u64)).unwrap_or(u32::MAX);
        let next = in_file.max(used.last().map_or(0, |last| last + 1));
        Self { next, free: (0..next).filter(|slot| !used.contains(slot)).collect() }
    }

    pub(super) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub(super) fn give(&mut self, slot: u32) {
        self.free.insert(slot);
    }
}

/// What a key's associated data names.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) store: &'a [u8; 16],
    pub(super) app: &'a [u8; 16],
    pub(super) context: u64,
    pub(super) slot: u32,
}

impl Owner<'_> {
    fn aad(self) -> Aad {
        Aad::new(b"ctxkey.1").bytes(self.store).bytes(self.app).number(self.context).number(self.slot.into())
    }
}

/// Write a context's key, durably.
pub(super) fn write(disk: &Disk, random: &mut Random, app_key: &Key, owner: Owner<'_>, key: &Key) -> Result<()> {
    let sealed = crypto::seal(app_key, random, &owner.aad(), &key[..]);
    let mut slot = [0; SLOT];
    slot[..WRAPPED].copy_from_slice(&sealed);
    slot[COPY..COPY + WRAPPED].copy_from_slice(&sealed);
    put(disk, owner.slot, &slot)
}

/// Read a context's key from whichever copy opens, and heal the other.
pub(super) fn read(disk: &Disk, app_key: &Key, owner: Owner<'_>) -> Result<Key> {
    let mut slot = [0; SLOT];
    let at = u64::from(owner.slot) * SLOT as u64;
    disk.read_at(NAME, at, &mut slot).map_err(Error::io("reading a key"))?;
    let (a, b) = slot.split_at(COPY);
    let open = |copy: &[u8]| crypto::open_key(app_key, &owner.aad(), &copy[..WRAPPED]);
    match (open(a), open(b)) {
        (Some(key), Some(_)) => Ok(key),
        (Some(key), None) => {
            // Healing is a favour: what matters is that the key was read.
            let _ = disk.write_at(NAME, at + COPY as u64, &a[..WRAPPED]);
            Ok(key)
        }
        (None, Some(key)) => {
            let _ = disk.write_at(NAME, at, &b[..WRAPPED]);
            Ok(key)
        }
        (None, None) => Err(Error::Damaged("both copies of a context's key")),
    }
}

/// Destroy a key, durably.
pub(super) fn erase(disk: &Disk, slot: u32) -> Result<()> {
    if disk.len(NAME).unwrap_or(0) <= u64::from(slot) * SLOT as u64 {
        return Ok(());
    }
    put(disk, slot, &[0; SLOT])
}

fn put(disk: &Disk, slot: u32, bytes: &[u8; SLOT]) -> Result<()> {
    let action = Error::io("writing a key");
    disk.write_at(NAME, u64::from(slot) * SLOT as u64, bytes).map_err(&action)?;
    disk.sync(NAME).map_err(&action)
}
