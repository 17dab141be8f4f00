//! Contexts on disk: tokens that are never lost, and chunks that may be.
//!
//! Tokens are durable when a call returns. Chunks are a cache: whatever of them is lost, torn, stale or foreign is reported
//! as missing, and the caller computes it again from the tokens. Everything is encrypted and authenticated; each context
//! has a key of its own, and deleting the context destroys it. `FORMAT.md` beside this crate draws the files and says
//! what is assumed of the medium.
//!
//! The store knows no files, threads or clocks: bytes go through [`Medium`], time comes in as an argument, and randomness
//! as a seed for each opening.

mod centres;
mod chunks;
mod contexts;
mod crypto;
mod error;
mod extent;
mod keys;
mod medium;
mod memory;
mod pages;
mod reader;
mod rows;
mod space;
mod superblock;
mod upgrade;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

pub use chunks::{ChunkInfo, ChunkPut, PutReport};
pub use contexts::{ContextId, ContextInfo, ModelId};
pub use error::{Error, Result};
pub use extent::Cipher;
pub use medium::Medium;
pub use memory::{Crashes, Fault, MemoryMedium};
pub use reader::{ChunkReader, Missing, Opened};
pub use upkeep::{CheckReport, CompactReport, Stats};

use crypto::{Key, Random};
use error::index;
use keys::Slots;
use medium::Disk;
use pages::SealedPages;
use rows::{CHUNKS, CONTEXTS, ChunkRow, ContextRow, ERASE};
use space::{Run, Space};
use superblock::Superblock;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// The secret that opens the store, kept by the caller where only its user can read it.
    pub device_key: [u8; 32],
    /// Fresh randomness of the quality of a key, for this opening alone. Never give the same twice.
    pub seed: [u8; 32],
    /// Bytes that all files may take together; never exceeded.
    pub disk_budget_bytes: u64,
    /// Part of the budget that payload leaves to the index, so that tokens always have room. The index doubles when it grows.
    pub index_reserve_bytes: u64,
    /// Length at which a segment file is full.
    pub segment_bytes: u32,
    /// Memory for the index's pages.
    pub cache_bytes: usize,
    /// What new chunks are sealed with. Those that are there open whatever they were sealed with.
    pub cipher: Cipher,
}

impl Options {
    /// 4 GiB of disk, segments of 64 MiB, 8 MiB of cache.
    pub fn new(device_key: [u8; 32], seed: [u8; 32]) -> Self {
        Self {
            device_key,
            seed,
            disk_budget_bytes: 4 << 30,
            index_reserve_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            cache_bytes: 8 << 20,
            cipher: Cipher::fastest(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("disk_budget_bytes", &self.disk_budget_bytes).finish_non_exhaustive()
    }
}

/// The store of one device's contexts.
pub struct Store {
    disk: Arc<Disk>,
    id: [u8; 16],
    root: Key,
    random: Random,
    segment_bytes: u32,
    cache_bytes: usize,
    cipher: Cipher,
    /// Absent after a failure of the index, until it is opened again.
    db: Option<Arc<Database>>,
    slots: Slots,
    space: Space,
    /// Runs that were freed but not durably: a power cut gives them back to their chunks, so they are not overwritten yet.
    held: Vec<Run>,
    /// Segments written since they were last synced.
    unsynced: BTreeSet<u32>,
    keys: BTreeMap<u64, Key>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// What an app's name leads to.
struct App {
    id: [u8; 16],
    /// Seals the keys of its contexts.
    key: Key,
    /// Keys its prefix hashes, so that equal texts of two apps share nothing.
    prefix: Key,
}

impl Store {
    /// Open the store on `medium`, or make one where there is none. One of an older format is upgraded, which costs its
    /// chunks.
    ///
    /// # Errors
    /// Where the medium fails or is full, the key is wrong, a newer program wrote the store, or damage is beyond repair.
    pub fn open(medium: Arc<dyn Medium>, options: &Options) -> Result<Self> {
        let reading = Error::io("listing the store's files");
        let disk = Disk::new(medium, options.disk_budget_bytes, options.index_reserve_bytes).map_err(reading)?;
        let disk = Arc::new(disk);
        let mut random = Random::new(&options.seed);
        let known = superblock::read(&disk, &options.device_key)?;
        if known.is_none() {
            // Whatever lies here is of a store that was never finished.
            for name in disk.names().into_iter().filter(|name| is_ours(name)) {
                disk.remove(&name).map_err(Error::io("clearing an unfinished store"))?;
            }
        }
        let current = known.as_ref().is_some_and(|known| known.version == superblock::VERSION);
        let Superblock { store, root, .. } = known.unwrap_or_else(|| superblock::invent(&mut random));
        let mut this = Self {
            disk,
            id: store,
            root,
            random,
            segment_bytes: options.segment_bytes,
            cache_bytes: options.cache_bytes,
            cipher: options.cipher,
            db: None,
            slots: Slots::default(),
            space: Space::default(),
            held: Vec::new(),
            unsynced: BTreeSet::new(),
            keys: BTreeMap::new(),
        };
        if current {
            this.reopen()?;
        } else {
            let db = this.open_index()?;
            upgrade::make_tables(&db)?;
            this.db = Some(Arc::new(db));
            this.load()?;
            // Last, so that what is cut before happens again at the next opening.
            let superblock = Superblock { version: superblock::VERSION, store, root: this.root.clone() };
            superblock::write(&this.disk, &options.device_key, &superblock, &mut this.random)?;
        }
        Ok(this)
    }

    /// Make everything durable and close.
    ///
    /// # Errors
    /// Where writing fails; all that was acknowledged as durable is so nevertheless.
    pub fn close(mut self) -> Result<()> {
        self.flush()?;
        self.db = None;
        self.healthy()
    }

    /// Make chunks durable too.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn flush(&mut self) -> Result<()> {
        self.healthy()?;
        while let Some(segment) = self.unsynced.first().copied() {
            let name = space::segment_name(segment);
            if self.disk.len(&name).is_some() {
                self.disk.sync(&name).map_err(Error::io("syncing chunks"))?;
            }
            self.unsynced.remove(&segment);
        }
        self.commit(true, |_| Ok(()))
    }

    fn open_index(&mut self) -> Result<Database> {
        let key = crypto::derive("concertina kv store v1: index", &self.root, &[]);
        let pages = SealedPages::open(Arc::clone(&self.disk), key, self.id, self.random.fork());
        let pages = pages.map_err(Error::io("opening the index"))?;
        let cache_bytes = self.cache_bytes;
        // redb asserts what its header says. Pages are authentic here, so this should never strike.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Database::builder().set_cache_size(cache_bytes).create_with_backend(pages).map_err(index)
        }));
        opened.unwrap_or(Err(Error::Damaged("the index")))
    }

    /// Open the index and learn from it what is in use.
    fn reopen(&mut self) -> Result<()> {
        self.healthy()?;
        self.db = None;
        let db = self.open_index()?;
        self.db = Some(Arc::new(db));
        self.load().inspect_err(|_| self.db = None)
    }

    fn load(&mut self) -> Result<()> {
        self.keys.clear();
        self.held.clear();
        let db = self.db()?;
        let read = db.begin_read().map_err(index)?;
        let mut used = BTreeSet::new();
        for row in read.open_table(CONTEXTS).map_err(index)?.iter().map_err(index)? {
            let row = ContextRow::decode(row.map_err(index)?.1.value()).ok_or(Error::Damaged("a context's row"))?;
            used.insert(row.slot);
        }
        let mut erase = Vec::new();
        for row in read.open_table(ERASE).map_err(index)?.iter().map_err(index)? {
            erase.push(row.map_err(index)?.0.value());
        }
        let mut runs = Vec::new();
        for row in read.open_table(CHUNKS).map_err(index)?.iter().map_err(index)? {
            let row = ChunkRow::decode(row.map_err(index)?.1.value()).ok_or(Error::Damaged("a chunk's row"))?;
            runs.push(row.run().ok_or(Error::Damaged("a chunk's row"))?);
        }
        drop(read);
        self.space = Space::from_runs(self.segment_bytes, runs).ok_or(Error::Damaged("chunks overlap"))?;
        // A deletion that a power cut interrupted.
        for slot in &erase {
            if used.contains(slot) {
                return Err(Error::Damaged("a key in use is marked for erasure"));
            }
            keys::erase(&self.disk, *slot)?;
        }
        self.slots = Slots::new(self.disk.len(keys::NAME).unwrap_or(0), &used);
        if !erase.is_empty() {
            self.forget_erased(&erase)?;
        }
        let segments: BTreeSet<u32> = self.space.ends().map(|(segment, _)| segment).collect();
        for name in self.disk.names() {
            if space::segment_of(&name).is_some_and(|segment| !segments.contains(&segment)) {
                self.disk.remove(&name).map_err(Error::io("removing a segment"))?;
            }
        }
        Ok(())
    }

    /// The slots are zero: they may be used again. Should this be lost, opening erases them again, before any use.
    fn forget_erased(&mut self, slots: &[u32]) -> Result<()> {
        self.commit(false, |txn| {
            let mut erase = txn.open_table(ERASE).map_err(index)?;
            slots.iter().try_for_each(|slot| erase.remove(slot).map(drop).map_err(index))
        })
    }

    fn healthy(&self) -> Result<()> {
        match self.disk.failure() {
            Some((_, text)) => Err(Error::Stopped(text)),
            None => Ok(()),
        }
    }

    fn db(&mut self) -> Result<Arc<Database>> {
        if self.db.is_none() {
            self.reopen()?;
        }
        self.db.clone().ok_or(Error::Damaged("the index"))
    }

    /// One transaction. Where it fails nothing of it has happened, unless the disk filled up while its second copy was
    /// written: then it may have.
    fn commit<R>(&mut self, durable: bool, body: impl FnOnce(&WriteTransaction) -> Result<R>) -> Result<R> {
        self.healthy()?;
        let db = self.db()?;
        let run = || {
            let mut txn = db.begin_write().map_err(index)?;
            if !durable {
                txn.set_durability(Durability::None).map_err(|error| Error::Index(error.to_string()))?;
            }
            let result = body(&txn)?;
            txn.commit().map_err(index)?;
            Ok(result)
        };
        let result = run();
        drop(db);
        if durable && result.is_ok() {
            for run in std::mem::take(&mut self.held) {
                self.space.give(run);
            }
        }
        if let Err(Error::DiskFull | Error::Io { .. } | Error::Stopped(_) | Error::Damaged(_) | Error::Index(_)) =
            &result
        {
            // redb takes no more calls after a failure. What it had not made durable is a cache.
            self.db = None;
            self.keys.clear();
            // Should this fail too, the next call tries again.
            let _ = self.reopen();
        }
        result
    }

    fn app(&self, name: &str) -> Result<App> {
        if name.len() > usize::from(u16::MAX) {
            return Err(Error::Invalid("an app's name is longer than 65535 bytes"));
        }
        let id = crypto::derive("concertina kv store v1: app id", &self.root, name.as_bytes());
        Ok(App {
            id: std::array::from_fn(|i| id[i]),
            key: crypto::derive("concertina kv store v1: app key", &self.root, name.as_bytes()),
            prefix: crypto::derive("concertina kv store v1: app prefixes", &self.root, name.as_bytes()),
        })
    }

    /// Free runs that no durable state of the index points to.
    fn give_back(&mut self, runs: Vec<Run>) {
        for run in runs {
            self.space.give(run);
        }
    }

    fn used_chunk_bytes(&self) -> u64 {
        self.space.used() - self.held.iter().map(|run| u64::from(run.len)).sum::<u64>()
    }
}

fn is_ours(name: &str) -> bool {
    [superblock::NAME, keys::NAME].contains(&name) || pages::COPIES.contains(&name) || space::segment_of(name).is_some()
}
