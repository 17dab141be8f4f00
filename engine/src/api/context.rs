//! A context: the tokens of one conversation, and the chunks that hold their keys and values.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concertina_elastic::SubModel;
use concertina_kv::{Arena, CHUNK_TOKENS, ChunkEntry, ChunkTable, OutOfRoom, SlotPool, Width};

use crate::forward::Job;
use crate::{Error, Result};

/// Which places and table regions are free; shared by an engine and its contexts.
#[derive(Debug)]
pub(crate) struct KvState {
    pub arena: Arena,
    /// Width in which the forward pass writes.
    pub written: Width,
    /// Regions of the table buffer, and samplers: one a context.
    pub regions: SlotPool,
}

/// A conversation's tokens with their keys and values on the device. Dropping it frees its memory.
#[derive(Debug)]
pub struct Context {
    pub(crate) tokens: Vec<u32>,
    pub(crate) table: ChunkTable,
    /// Its part of the tables; `None` while it is parked.
    region: Option<u32>,
    /// The device knows nothing of the table yet.
    pub(crate) table_is_new: bool,
    /// A service makes room for it; otherwise all of it must fit as it is written.
    pub(crate) managed: bool,
    /// The smallest sub-model that wrote a chunk: smaller ones can read them all.
    pub(crate) written_by: Option<SubModel>,
    /// The device that holds the chunks.
    pub(crate) generation: u64,
    /// Rows whose attention over the chunks has been collected.
    pub(crate) density_rows: usize,
    kv: Arc<Mutex<KvState>>,
}

impl Context {
    pub(crate) fn open(kv: Arc<Mutex<KvState>>, generation: u64) -> Result<Self> {
        let mut context = Self::parked(kv, generation, Vec::new(), 0);
        context.managed = false;
        context.unpark()?;
        Ok(context)
    }

    /// A context of which nothing is in memory, though keys and values of its first `written` tokens are elsewhere.
    pub(crate) fn parked(kv: Arc<Mutex<KvState>>, generation: u64, tokens: Vec<u32>, written: usize) -> Self {
        Self {
            managed: true,
            tokens,
            table: ChunkTable::absent(written),
            region: None,
            table_is_new: true,
            written_by: None,
            generation,
            density_rows: 0,
            kv,
        }
    }

    /// Take a region of the tables, so that it can run.
    pub(crate) fn unpark(&mut self) -> Result<()> {
        if self.region.is_none() {
            let taken = self.kv().regions.take();
            let full = |e: concertina_kv::OutOfSlots| {
                Error::Invalid(format!("{} contexts are open already; drop one or raise `contexts`", e.capacity))
            };
            self.region = Some(taken.map_err(full)?);
            (self.table_is_new, self.density_rows) = (true, 0);
        }
        Ok(())
    }

    /// Give the region back. Chunks stay where they are.
    pub(crate) fn park(&mut self) {
        if let Some(region) = self.region.take() {
            self.kv().regions.give(region);
        }
    }

    /// Its part of the tables.
    ///
    /// # Panics
    /// If it is parked: nothing may run then.
    pub(crate) fn region(&self) -> u32 {
        self.region.expect("a parked context was run")
    }

    fn kv(&self) -> MutexGuard<'_, KvState> {
        self.kv.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens whose keys and values were computed.
    pub fn resident_tokens(&self) -> usize {
        self.table.tokens()
    }

    /// Forget all but the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.drop_kv(tokens);
    }

    /// Forget all but the longest beginning that it shares with `tokens`. Returns its length: [`Engine::generate`] with
    /// the rest of `tokens` then computes nothing twice.
    ///
    /// [`Engine::generate`]: crate::Engine::generate
    pub fn keep_common(&mut self, tokens: &[u32]) -> usize {
        let common = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.truncate(common);
        common
    }

    /// Drop keys and values past the first `tokens` tokens; they are recomputed when needed. Densities that count
    /// dropped rows are forgotten.
    pub(crate) fn drop_kv(&mut self, tokens: usize) {
        if tokens < self.table.tokens() {
            self.density_rows = 0;
        }
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.truncate(tokens, &mut state.arena);
    }

    /// Room for `more` tokens; returns the first table entry that the device does not know.
    pub(crate) fn grow(&mut self, more: usize) -> Result<usize> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.written;
        let new = self.table.grow(more, written, &mut state.arena)?;
        Ok(if std::mem::take(&mut self.table_is_new) { 0 } else { new })
    }

    /// Units of the arena that no context has.
    pub(crate) fn free_units(&self) -> Vec<std::ops::Range<u32>> {
        self.kv().arena.free_units()
    }

    /// Whether the arena has places for so many chunks as the forward pass writes them.
    pub(crate) fn has_room(&self, chunks: usize) -> bool {
        let state = self.kv();
        state.arena.room(state.written) as usize >= chunks
    }

    /// A place for a chunk that is not in memory.
    pub(crate) fn bring(&mut self, chunk: usize, width: Width) -> std::result::Result<ChunkEntry, OutOfRoom> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table_is_new = true;
        self.table.bring(chunk, width, &mut state.arena)
    }

    /// A full chunk that is not in memory is the one that another context has at `place`.
    pub(crate) fn share(&mut self, chunk: usize, place: ChunkEntry) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table_is_new = true;
        self.table.share(chunk, place, &mut state.arena);
    }

    /// A chunk leaves memory.
    pub(crate) fn evict(&mut self, chunk: usize) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table_is_new = true;
        self.table.evict(chunk, &mut state.arena);
    }
}

impl Context {
    /// Places for chunks that are wider than `width` wants them: at most `most`, as many as there is room for.
    pub(crate) fn begin_moves(&mut self, most: usize, width: impl Fn(usize) -> Option<Width>) -> Vec<Job> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, arena) = (&self.table, &mut state.arena);
        let moved = |chunk: usize| {
            let (from, to) = table.reserve(chunk, width(chunk)?, arena)?;
            Some(Job { chunk, tokens: table.tokens_of(chunk), from, to })
        };
        (0..self.table.entries().len()).filter_map(moved).take(most).collect()
    }

    /// A place in which its last chunk can be continued, where that chunk is narrow and not full.
    pub(crate) fn reopen(&mut self) -> Result<Option<Job>> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.written;
        let reopened = self.table.reopen(written, &mut state.arena)?;
        Ok(reopened.map(|(chunk, from, to)| Job { chunk, tokens: self.table.tokens_of(chunk), from, to }))
    }

    /// Chunks that a step takes places for: those that begin with `more` tokens, and one for the last where it is narrow.
    pub(crate) fn places_for(&self, more: usize) -> usize {
        let begin = (self.table.tokens() + more).div_ceil(CHUNK_TOKENS).saturating_sub(self.table.entries().len());
        let open = self.table.open().and_then(|open| self.table.entries()[open]);
        let narrow = open.is_some_and(|place| place.width != self.kv().written);
        begin + usize::from(narrow && more > 0)
    }

    /// The device has been told to copy them.
    pub(crate) fn end_moves(&mut self, moves: &[Job]) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        moves.iter().for_each(|job| self.table.replace(job.chunk, job.to, &mut state.arena));
    }

    /// The device was not told.
    pub(crate) fn drop_moves(&mut self, moves: &[Job]) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        moves.iter().for_each(|job| state.arena.give(job.to.width, job.to.place));
    }

    /// Widths of its chunks in memory, in order.
    pub fn chunk_widths(&self) -> Vec<Width> {
        self.table.entries().iter().flatten().map(|entry| entry.width).collect()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.park();
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.truncate(0, &mut state.arena);
    }
}

impl Context {
    /// Drop what is not valid any more: chunks on a device that is gone, or that `sub` cannot read.
    pub(crate) fn settle(&mut self, kv: Arc<Mutex<KvState>>, generation: u64, sub: &SubModel) -> Result<()> {
        if self.generation != generation {
            let fresh = Self::open(kv, generation)?;
            let old = std::mem::replace(self, fresh);
            self.tokens.clone_from(&old.tokens);
        }
        if !self.written_by.as_ref().is_some_and(|wrote| wrote.feeds(sub, 0)) {
            self.drop_kv(0);
        }
        // From here on the lowest level counts.
        self.written_by = Some(sub.clone());
        Ok(())
    }
}
