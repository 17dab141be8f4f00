//! The chunk table of a context: where each chunk's keys and values are, and in which width.

use crate::{Arena, CHUNK_TOKENS, OutOfRoom, Width};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Width of its pages.
    pub width: Width,
    /// Its first unit in the arena of every layer.
    pub place: u32,
}

impl ChunkEntry {
    /// The word that kernels read: width in the top four bits, place below.
    pub fn word(self) -> u32 {
        (self.width as u32) << 28 | self.place
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

    /// Make room for `more` tokens in the width that the forward pass writes, taking places as chunks begin. Returns the
    /// index of the first new chunk. When the arena is full nothing has changed.
    pub fn grow(&mut self, more: usize, written: Width, arena: &mut Arena) -> Result<usize, OutOfRoom> {
        let first_new = self.entries.len();
        let want = (self.tokens + more).div_ceil(CHUNK_TOKENS);
        while self.entries.len() < want {
            match arena.take(written) {
                Ok(place) => self.entries.push(ChunkEntry { width: written, place }),
                Err(full) => {
                    self.drop_chunks(first_new, arena);
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

    /// Chunks that are full, so that nothing is written to them any more.
    pub fn sealed(&self) -> usize {
        self.tokens / CHUNK_TOKENS
    }

    /// A place for chunk `index` in another width. The chunk stays where it is until [`ChunkTable::replace`].
    pub fn reserve(&self, index: usize, width: Width, arena: &mut Arena) -> Option<(ChunkEntry, ChunkEntry)> {
        let from =
            *self.entries.get(index).filter(|entry| index < self.sealed() && entry.width.bits() > width.bits())?;
        let place = arena.take(width).ok()?;
        Some((from, ChunkEntry { width, place }))
    }

    /// Chunk `index` has been copied to `to`: its old place is free.
    pub fn replace(&mut self, index: usize, to: ChunkEntry, arena: &mut Arena) {
        let from = std::mem::replace(&mut self.entries[index], to);
        arena.give(from.width, from.place);
    }

    /// Forget all but the first `tokens` tokens, giving back the places of chunks that become empty. A chunk that is cut
    /// must be written to again: where it is quantised it is dropped whole.
    pub fn truncate(&mut self, tokens: usize, arena: &mut Arena) {
        self.tokens = self.tokens.min(tokens);
        let cut = self.entries.get(self.tokens / CHUNK_TOKENS);
        if cut.is_some_and(|entry| entry.width.is_quantised()) {
            self.tokens -= self.tokens % CHUNK_TOKENS;
        }
        self.drop_chunks(self.tokens.div_ceil(CHUNK_TOKENS), arena);
    }

    fn drop_chunks(&mut self, keep: usize, arena: &mut Arena) {
        for entry in self.entries.drain(keep.min(self.entries.len())..) {
            arena.give(entry.width, entry.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvGeometry;

    fn arena(chunks: u32) -> Arena {
        let geometry = KvGeometry { layers: 1, groups: 1, head_dim: 64, written: Width::W16 };
        Arena::new(&geometry, 32 * chunks)
    }

    #[test]
    fn chunks_begin_every_16_tokens_and_return_their_places() {
        let (mut arena, mut table) = (arena(3), ChunkTable::new());
        assert_eq!(table.grow(17, Width::W16, &mut arena), Ok(0));
        table.wrote(17);
        assert_eq!((table.entries().len(), arena.used()), (2, 64));
        assert_eq!(table.grow(15, Width::W16, &mut arena), Ok(2));
        table.wrote(15);
        assert_eq!(arena.used(), 64);
        assert!(table.grow(17, Width::W16, &mut arena).is_err());
        assert_eq!((arena.used(), table.tokens()), (64, 32), "a failed growth changes nothing");
        table.truncate(5, &mut arena);
        assert_eq!((table.entries().len(), table.tokens(), arena.used()), (1, 5, 32));
        assert_eq!(ChunkEntry { width: Width::W4, place: 7 }.word(), 0x2000_0007);
    }

    #[test]
    fn sealed_chunks_move_to_narrower_places_and_are_dropped_whole() {
        let (mut arena, mut table) = (arena(4), ChunkTable::new());
        table.grow(40, Width::W16, &mut arena).unwrap();
        table.wrote(40);
        assert_eq!(table.sealed(), 2);
        assert!(table.reserve(2, Width::W4, &mut arena).is_none(), "it is still written to");
        let (from, to) = table.reserve(1, Width::W4, &mut arena).unwrap();
        assert_eq!(from, table.entries()[1]);
        table.replace(1, to, &mut arena);
        assert!(table.reserve(1, Width::W4, &mut arena).is_none(), "it is that narrow already");
        table.truncate(30, &mut arena);
        assert_eq!((table.tokens(), table.entries().len()), (16, 1), "half a quantised chunk cannot be continued");
        table.truncate(0, &mut arena);
        assert_eq!(arena.used(), 0);
    }
}
