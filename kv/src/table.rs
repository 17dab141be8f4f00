//! The chunk table of a context: where each chunk's keys and values are, and in which width.

use crate::{CHUNK_TOKENS, OutOfSlots, SlotPool, Width};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Width of its pages.
    pub width: Width,
    /// Slot in the pool of that width.
    pub slot: u32,
}

impl ChunkEntry {
    /// The word that kernels read: width in the top four bits, slot below.
    pub fn word(self) -> u32 {
        (self.width as u32) << 28 | self.slot
    }
}

/// Chunks of one context in the order of its tokens.
#[derive(Debug, Default)]
pub struct ChunkTable {
    entries: Vec<ChunkEntry>,
    tokens: usize,
}

impl ChunkTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its chunks, the last one perhaps not full.
    pub fn entries(&self) -> &[ChunkEntry] {
        &self.entries
    }

    /// Tokens whose keys and values are written.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Make room for `more` tokens, taking slots as chunks begin. Returns the index of the first new chunk. When the pool
    /// runs dry nothing has changed.
    pub fn grow(&mut self, more: usize, pool: &mut SlotPool) -> Result<usize, OutOfSlots> {
        let first_new = self.entries.len();
        let want = (self.tokens + more).div_ceil(CHUNK_TOKENS);
        while self.entries.len() < want {
            match pool.take() {
                Ok(slot) => self.entries.push(ChunkEntry { width: Width::W16, slot }),
                Err(full) => {
                    self.drop_chunks(first_new, pool);
                    return Err(full);
                }
            }
        }
        Ok(first_new)
    }

    /// The keys and values of `more` tokens have been written.
    ///
    /// # Panics
    /// If there was no room for them.
    pub fn wrote(&mut self, more: usize) {
        self.tokens += more;
        assert!(self.tokens <= self.entries.len() * CHUNK_TOKENS, "tokens written past the last chunk");
    }

    /// Forget all but the first `tokens` tokens, giving back the slots of chunks that become empty.
    pub fn truncate(&mut self, tokens: usize, pool: &mut SlotPool) {
        self.tokens = self.tokens.min(tokens);
        self.drop_chunks(self.tokens.div_ceil(CHUNK_TOKENS), pool);
    }

    fn drop_chunks(&mut self, keep: usize, pool: &mut SlotPool) {
        for entry in self.entries.drain(keep.min(self.entries.len())..) {
            pool.give(entry.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_begin_every_16_tokens_and_return_their_slots() {
        let mut pool = SlotPool::new(3);
        let mut table = ChunkTable::new();
        assert_eq!(table.grow(17, &mut pool), Ok(0));
        table.wrote(17);
        assert_eq!((table.entries().len(), pool.used()), (2, 2));
        assert_eq!(table.grow(15, &mut pool), Ok(2));
        table.wrote(15);
        assert_eq!(pool.used(), 2);
        assert!(table.grow(17, &mut pool).is_err());
        assert_eq!((pool.used(), table.tokens()), (2, 32), "a failed growth changes nothing");
        table.truncate(5, &mut pool);
        assert_eq!((table.entries().len(), table.tokens(), pool.used()), (1, 5, 1));
        assert_eq!(ChunkEntry { width: Width::W4, slot: 7 }.word(), 0x2000_0007);
    }
}
