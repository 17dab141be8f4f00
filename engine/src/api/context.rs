//! A context: the tokens of one conversation, and the chunks that hold their keys and values.

use std::sync::{Arc, Mutex, PoisonError};

use concertina_elastic::SubModel;
use concertina_kv::{Arena, ChunkEntry, ChunkTable, SlotPool, Width};

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
    pub(crate) region: u32,
    /// The sub-model that wrote the chunks: keys of different levels are not mixed.
    pub(crate) written_by: Option<SubModel>,
    /// The device that holds the chunks.
    pub(crate) generation: u64,
    /// Rows whose attention over the chunks has been collected.
    pub(crate) density_rows: usize,
    kv: Arc<Mutex<KvState>>,
}

impl Context {
    pub(crate) fn open(kv: Arc<Mutex<KvState>>, generation: u64) -> Result<Self> {
        let region = {
            let mut state = kv.lock().unwrap_or_else(PoisonError::into_inner);
            state.regions.take().map_err(|full| {
                Error::Invalid(format!("{} contexts are open already; drop one or raise `contexts`", full.capacity))
            })?
        };
        Ok(Self {
            tokens: Vec::new(),
            table: ChunkTable::new(),
            region,
            written_by: None,
            generation,
            density_rows: 0,
            kv,
        })
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens whose keys and values are on the device.
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

    /// Room for `more` tokens; returns the first table entry that is new, and all new entries.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(u32, Vec<u32>)> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        let written = state.written;
        let first = self.table.grow(more, written, &mut state.arena)?;
        Ok((first as u32, self.table.entries()[first..].iter().map(|e| e.word()).collect()))
    }
}

/// A chunk on its way to another width: its number, where it is, and where it goes.
pub(crate) type Move = (usize, ChunkEntry, ChunkEntry);

impl Context {
    /// Places for sealed chunks that are wider than `width` wants them: at most `most`, as many as there is room for.
    pub(crate) fn begin_moves(&mut self, most: usize, width: impl Fn(usize) -> Option<Width>) -> Vec<Move> {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, arena) = (&self.table, &mut state.arena);
        let moved = |i: usize| table.reserve(i, width(i)?, arena).map(|(from, to)| (i, from, to));
        (0..self.table.sealed()).filter_map(moved).take(most).collect()
    }

    /// The device has been told to copy them.
    pub(crate) fn end_moves(&mut self, moves: &[Move]) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        moves.iter().for_each(|(i, _, to)| self.table.replace(*i, *to, &mut state.arena));
    }

    /// The device was not told.
    pub(crate) fn drop_moves(&mut self, moves: &[Move]) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        moves.iter().for_each(|(_, _, to)| state.arena.give(to.width, to.place));
    }

    /// Widths of its chunks, in order.
    pub fn chunk_widths(&self) -> Vec<Width> {
        self.table.entries().iter().map(|entry| entry.width).collect()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut state = self.kv.lock().unwrap_or_else(PoisonError::into_inner);
        self.table.truncate(0, &mut state.arena);
        state.regions.give(self.region);
    }
}

impl Context {
    /// Drop what is not valid any more: chunks on a device that is gone, or written by another sub-model than `sub`.
    pub(crate) fn settle(&mut self, kv: Arc<Mutex<KvState>>, generation: u64, sub: &SubModel) -> Result<()> {
        if self.generation != generation {
            let fresh = Self::open(kv, generation)?;
            let old = std::mem::replace(self, fresh);
            self.tokens.clone_from(&old.tokens);
        }
        if self.written_by.as_ref() != Some(sub) {
            self.drop_kv(0);
            self.written_by = Some(sub.clone());
        }
        Ok(())
    }
}
