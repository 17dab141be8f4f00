//! What the service knows of a context that it has loaded.

use std::collections::BTreeMap;

use concertina_kv::store::ChunkReader;
use concertina_kv::{CHUNK_TOKENS, Width};

use crate::Context;

/// A context in use.
pub struct Entry {
    pub app: String,
    pub context: Context,
    /// Tokens that are durable. The context has more while a call runs.
    pub stored: usize,
    /// Level of the call that runs, or of the last one.
    pub level: u32,
    /// Level that computed each chunk, in memory or on disk: the lowest of its tokens'.
    pub levels: Vec<u32>,
    /// Tokens with keys and values when the call entered.
    pub entered: usize,
    pub pinned: bool,
    pub used_ms: u64,
    /// Chunks on disk.
    pub readers: BTreeMap<u32, ChunkReader>,
    /// How much attention each chunk got.
    shares: Vec<Share>,
}

/// Attention that a chunk got, summed over the rows that could see it.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    sum: f64,
    rows: f64,
}

impl Entry {
    pub fn new(app: &str, context: Context, used_ms: u64) -> Self {
        let stored = context.tokens.len();
        let readers = BTreeMap::new();
        let (level, entered, levels, pinned, shares) = (100, 0, Vec::new(), false, Vec::new());
        Self { app: app.into(), context, stored, level, levels, entered, pinned, used_ms, readers, shares }
    }

    /// The chunks that are on disk.
    pub fn set_readers(&mut self, readers: Vec<ChunkReader>) {
        self.readers = readers.into_iter().map(|reader| (reader.index() as u32, reader)).collect();
    }

    /// Only what is on disk is left: take the levels from there.
    pub fn recall_levels(&mut self) {
        let of = |i: usize| self.readers.get(&(i as u32)).map_or(100, |reader| u32::from(reader.level()));
        self.levels = (0..self.context.table.entries().len()).map(of).collect();
    }

    /// The running call has computed keys and values up to `written` tokens, at its level.
    pub fn computed_to(&mut self, written: usize) {
        let (level, chunks) = (self.level, written.div_ceil(CHUNK_TOKENS));
        self.levels.resize(chunks, level);
        let first = self.entered / CHUNK_TOKENS;
        for (i, of_chunk) in self.levels.iter_mut().enumerate().skip(first) {
            let continued = i == first && !self.entered.is_multiple_of(CHUNK_TOKENS);
            *of_chunk = if continued { level.min(*of_chunk) } else { level };
        }
    }

    /// Width on disk and density of each chunk. A level whose chunks the call at hand cannot read is told by `reads`.
    pub fn on_disk(&self, reads: impl Fn(u32) -> bool) -> Vec<(Option<Width>, f64)> {
        let written = self.context.table.tokens();
        let of = |i: usize| {
            // A power cut may have kept tokens that its chunk does not hold.
            let needed = (written - i * CHUNK_TOKENS).min(CHUNK_TOKENS);
            let fits = |reader: &&ChunkReader| reads(u32::from(reader.level())) && reader.tokens() >= needed;
            let reader = self.readers.get(&(i as u32)).filter(fits);
            (reader.map(ChunkReader::width), self.density(i))
        };
        (0..self.context.table.entries().len()).map(of).collect()
    }

    /// Take the densities that were stored, as if their rows had been seen now.
    pub fn recall_densities(&mut self) {
        let tokens = self.context.table.tokens();
        let rows = |chunk: usize| tokens.saturating_sub(chunk * CHUNK_TOKENS).max(1) as f64;
        self.shares = (0..tokens.div_ceil(CHUNK_TOKENS))
            .map(|i| {
                let density = self.readers.get(&(i as u32)).map_or(0.0, |reader| f64::from(reader.density()));
                Share { sum: density * rows(i), rows: rows(i) }
            })
            .collect();
    }

    /// Rows from `first` on have looked at the chunks: `shares` of each chunk, averaged over those rows.
    pub fn observe(&mut self, first: usize, rows: usize, shares: &[f32]) {
        self.shares.resize(shares.len().max(self.shares.len()), Share::default());
        for (i, (share, new)) in self.shares.iter_mut().zip(shares).enumerate() {
            // Rows before a chunk cannot see it.
            let seeing = (first + rows).saturating_sub((i * CHUNK_TOKENS).max(first));
            share.sum += f64::from(*new) * rows as f64;
            share.rows += seeing as f64;
        }
    }

    /// Forget what was seen of chunks from `chunk` on.
    pub fn forget(&mut self, chunk: usize) {
        self.shares.truncate(chunk);
    }

    /// Density of a chunk: its share of the attention of a row that can see it (LLMS).
    pub fn density(&self, chunk: usize) -> f64 {
        self.shares.get(chunk).map_or(0.0, |share| share.sum / share.rows.max(1.0))
    }

    /// Densities of all chunks.
    pub fn densities(&self) -> Vec<f64> {
        (0..self.context.table.entries().len()).map(|i| self.density(i)).collect()
    }
}
