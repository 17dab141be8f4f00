//! The chunk table of a context: where each chunk's keys and values are, and in which width.

use crate::{Arena, CHUNK_TOKENS, OutOfRoom, Width, Widths};

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

/// Chunks of one context in the order of its tokens. Some may have left memory: only a whole table can be run.
#[derive(Debug, Default)]
pub struct ChunkTable {
    /// `None`: not in memory.
    entries: Vec<Option<ChunkEntry>>,
    tokens: usize,
}

impl ChunkTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its chunks, the last one perhaps not full; `None` for those that are not in memory.
    pub fn entries(&self) -> &[Option<ChunkEntry>] {
        &self.entries
    }

    /// The words that kernels read, from chunk `first` on; 0 for chunks that are not in memory.
    pub fn words(&self, first: usize) -> Vec<u32> {
        self.entries[first..].iter().map(|entry| entry.map_or(0, ChunkEntry::word)).collect()
    }

    /// Widths of the chunks in memory.
    pub fn widths(&self) -> Widths {
        self.entries.iter().flatten().map(|entry| entry.width).collect()
    }

    /// Whether no chunk has left memory.
    pub fn is_whole(&self) -> bool {
        self.entries.iter().all(Option::is_some)
    }

    /// Tokens whose keys and values were written, of chunks that have left memory too.
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
                Ok(place) => self.entries.push(Some(ChunkEntry { width: written, place })),
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
    /// If there was no room for them, or they continue a chunk that is too narrow: see [`ChunkTable::reopen`].
    pub fn wrote(&mut self, more: usize) {
        let open = self.open().filter(|_| more > 0).and_then(|open| self.entries[open]);
        assert!(open.is_none_or(|entry| !entry.width.is_quantised()), "written to {open:?}");
        self.tokens += more;
        assert!(self.tokens <= self.entries.len() * CHUNK_TOKENS, "tokens written past the last chunk");
    }

    /// A table of `tokens` tokens, none of whose chunks is in memory.
    pub fn absent(tokens: usize) -> Self {
        Self { entries: vec![None; tokens.div_ceil(CHUNK_TOKENS)], tokens }
    }

    /// A place for chunk `index`, which is not in memory.
    ///
    /// # Panics
    /// If it is: its old place would never be given back.
    pub fn bring(&mut self, index: usize, width: Width, arena: &mut Arena) -> Result<ChunkEntry, OutOfRoom> {
        assert!(self.entries[index].is_none(), "chunk {index} is in memory");
        let entry = ChunkEntry { width, place: arena.take(width)? };
        self.entries[index] = Some(entry);
        Ok(entry)
    }

    /// Chunk `index`, which is not in memory and is full, is the one that another table has at `entry`: from here on both hold
    /// it, and neither writes to it.
    ///
    /// # Panics
    /// If it is in memory, or not full.
    pub fn share(&mut self, index: usize, entry: ChunkEntry, arena: &mut Arena) {
        assert!(self.entries[index].is_none() && index < self.sealed(), "chunk {index} is in memory, or not full");
        arena.hold(entry.width, entry.place);
        self.entries[index] = Some(entry);
    }

    /// Chunk `index` leaves memory, if it is there.
    pub fn evict(&mut self, index: usize, arena: &mut Arena) {
        if let Some(entry) = self.entries.get_mut(index).and_then(Option::take) {
            arena.give(entry.width, entry.place);
        }
    }

    /// Chunks that are full, so that nothing is written to them any more.
    pub fn sealed(&self) -> usize {
        self.tokens / CHUNK_TOKENS
    }

    /// Tokens of chunk `index` that have keys and values.
    pub fn tokens_of(&self, index: usize) -> usize {
        self.tokens.saturating_sub(index * CHUNK_TOKENS).min(CHUNK_TOKENS)
    }

    /// The chunk that the next token continues.
    pub fn open(&self) -> Option<usize> {
        (!self.tokens.is_multiple_of(CHUNK_TOKENS)).then(|| self.sealed())
    }

    /// A place for chunk `index` in a narrower width. The chunk stays where it is until [`ChunkTable::replace`]. One that is
    /// not full must then be widened before it is continued.
    pub fn reserve(&self, index: usize, width: Width, arena: &mut Arena) -> Option<(ChunkEntry, ChunkEntry)> {
        let entry = (*self.entries.get(index)?)?;
        if entry.width.bits() <= width.bits() {
            return None;
        }
        let place = arena.take(width).ok()?;
        Some((entry, ChunkEntry { width, place }))
    }

    /// A place in the width that the forward pass writes for the open chunk, where it has another and is to be continued. It
    /// stays where it is until [`ChunkTable::replace`].
    pub fn reopen(
        &self,
        written: Width,
        arena: &mut Arena,
    ) -> Result<Option<(usize, ChunkEntry, ChunkEntry)>, OutOfRoom> {
        let narrow = self.open().and_then(|open| Some((open, self.entries[open]?)));
        let Some((open, entry)) = narrow.filter(|(_, entry)| entry.width != written) else { return Ok(None) };
        Ok(Some((open, entry, ChunkEntry { width: written, place: arena.take(written)? })))
    }

    /// Chunk `index` has been copied to `to`: its old place is free.
    pub fn replace(&mut self, index: usize, to: ChunkEntry, arena: &mut Arena) {
        if let Some(from) = self.entries[index].replace(to) {
            arena.give(from.width, from.place);
        }
    }

    /// Forget all but the first `tokens` tokens, giving back the places of chunks that become empty. A chunk that is cut
    /// will be continued: where it is shared, or not in memory, it is dropped whole.
    pub fn truncate(&mut self, tokens: usize, arena: &mut Arena) {
        if tokens < self.tokens {
            self.tokens = tokens;
            let cut = self.entries.get(tokens / CHUNK_TOKENS);
            let mut is_shared = |entry: ChunkEntry| arena.is_shared(entry.width, entry.place);
            if cut.is_some_and(|entry| entry.is_none_or(&mut is_shared)) {
                self.tokens -= tokens % CHUNK_TOKENS;
            }
        }
        self.drop_chunks(self.tokens.div_ceil(CHUNK_TOKENS), arena);
    }

    fn drop_chunks(&mut self, keep: usize, arena: &mut Arena) {
        for entry in self.entries.drain(keep.min(self.entries.len())..).flatten() {
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
        let (from, to) = table.reserve(1, Width::W4, &mut arena).unwrap();
        assert_eq!(Some(from), table.entries()[1]);
        table.replace(1, to, &mut arena);
        assert!(table.reserve(1, Width::W4, &mut arena).is_none(), "it is that narrow already");
        table.truncate(30, &mut arena);
        assert_eq!((table.tokens(), table.entries().len()), (30, 2), "half a quantised chunk is continued");
        table.truncate(0, &mut arena);
        assert_eq!(arena.used(), 0);
    }

    #[test]
    fn an_open_chunk_is_widened_before_it_is_continued() {
        let (mut arena, mut table) = (arena(4), ChunkTable::new());
        assert_eq!(table.reopen(Width::W16, &mut arena), Ok(None));
        table.grow(21, Width::W16, &mut arena).unwrap();
        table.wrote(21);
        assert_eq!((table.open(), table.reopen(Width::W16, &mut arena)), (Some(1), Ok(None)), "it is wide");
        let (_, to) = table.reserve(1, Width::W4, &mut arena).unwrap();
        table.replace(1, to, &mut arena);
        table.truncate(21, &mut arena);
        assert_eq!((table.tokens(), table.entries().len()), (21, 2), "nothing was cut");
        let (open, from, to) = table.reopen(Width::W16, &mut arena).unwrap().unwrap();
        assert_eq!((open, from.width, to.width), (1, Width::W4, Width::W16));
        table.replace(open, to, &mut arena);
        assert_eq!(table.grow(11, Width::W16, &mut arena), Ok(2));
        table.wrote(11);
        assert_eq!((table.open(), table.entries().len()), (None, 2));
    }

    #[test]
    #[should_panic(expected = "written to")]
    fn nothing_is_written_to_a_narrow_chunk() {
        let (mut arena, mut table) = (arena(4), ChunkTable::new());
        table.grow(5, Width::W16, &mut arena).unwrap();
        table.wrote(5);
        let (_, to) = table.reserve(0, Width::W4, &mut arena).unwrap();
        table.replace(0, to, &mut arena);
        table.grow(1, Width::W16, &mut arena).unwrap();
        table.wrote(1);
    }

    #[test]
    fn tables_share_chunks_and_write_to_none_of_them() {
        let (mut arena, mut one) = (arena(4), ChunkTable::new());
        one.grow(40, Width::W16, &mut arena).unwrap();
        one.wrote(40);
        let mut other = ChunkTable::absent(40);
        (0..2).for_each(|i| other.share(i, one.entries()[i].unwrap(), &mut arena));
        assert_eq!((arena.used(), &one.entries()[..2]), (96, &other.entries()[..2]));
        one.truncate(30, &mut arena);
        assert_eq!((one.tokens(), arena.used()), (16, 64), "half a shared chunk is not continued in place");
        one.truncate(0, &mut arena);
        assert_eq!(arena.used(), 64, "the other holds both");
        other.truncate(30, &mut arena);
        assert_eq!((other.tokens(), arena.used()), (30, 64), "what nobody else holds is continued");
        other.truncate(0, &mut arena);
        assert_eq!(arena.used(), 0);
    }

    #[test]
    fn chunks_leave_and_come_back() {
        let (mut arena, mut table) = (arena(4), ChunkTable::new());
        table.grow(40, Width::W16, &mut arena).unwrap();
        table.wrote(40);
        table.evict(1, &mut arena);
        table.evict(1, &mut arena);
        assert_eq!((arena.used(), table.is_whole(), table.words(1)[0]), (64, false, 0));
        assert!(table.reserve(1, Width::W4, &mut arena).is_none(), "it is not in memory");
        let entry = table.bring(1, Width::W4, &mut arena).unwrap();
        assert!(table.is_whole() && table.words(1)[0] == entry.word());
        table.evict(2, &mut arena);
        table.truncate(35, &mut arena);
        assert_eq!((table.tokens(), table.entries().len()), (32, 2), "a cut chunk that is not there is dropped whole");
        table.truncate(0, &mut arena);
        assert_eq!(arena.used(), 0);
        assert_eq!(ChunkTable::absent(33).entries(), [None; 3]);
    }
}
