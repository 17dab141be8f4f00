//! Chunks that contexts of an app have in common lie in memory once.
//!
//! Two chunks are the same where everything up to their last token is, one level computed them, and they have one width. Only
//! full chunks are shared: nothing writes to them any more.

use std::collections::BTreeMap;

use concertina_kv::policy::ChunkKey;
use concertina_kv::{CHUNK_TOKENS, ChunkEntry};

use super::Service;
use crate::Result;

/// A chunk that another context has: whose it is, where it lies, and the level that computed it.
type Found = (ChunkKey, ChunkEntry, u32);

impl Service {
    /// Take hold of what other contexts of the app have in memory of the chunks that a context misses. Returns how many.
    pub(super) fn share(&mut self, key: u64) -> Result<usize> {
        if self.generation != self.engine.generation {
            // Another device was opened meanwhile: the books are not about it yet.
            return Ok(0);
        }
        let found = self.same_elsewhere(key)?;
        let mut shared = 0;
        for (index, (from, place, level)) in found {
            if self.manager.share((key, index as u32), from) {
                let entry = self.entry_mut(key)?;
                entry.context.share(index, place);
                if let Some(of_chunk) = entry.levels.get_mut(index) {
                    *of_chunk = level;
                }
                shared += 1;
            }
        }
        Ok(shared)
    }

    /// Chunks as they would come back from disk; of those that are not there, as this level would compute them, in any width.
    fn same_elsewhere(&self, key: u64) -> Result<BTreeMap<usize, Found>> {
        let (mine, state) = (self.entry(key)?, self.manager.state(key));
        let mut found: BTreeMap<usize, Found> = BTreeMap::new();
        let table = &mine.context.table;
        let missing: Vec<usize> = (0..table.sealed()).filter(|index| table.entries()[*index].is_none()).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        for (other, theirs) in self.entries.iter().filter(|(other, theirs)| **other != key && theirs.app == mine.app) {
            let pairs = mine.context.tokens.iter().zip(&theirs.context.tokens);
            let common = pairs.take_while(|(a, b)| a == b).count() / CHUNK_TOKENS;
            let same = common.min(theirs.context.table.sealed());
            for index in missing.iter().copied().take_while(|index| *index < same) {
                let Some(place) = theirs.context.table.entries()[index] else { continue };
                let disk = state.get(index).and_then(|(_, disk)| *disk);
                let wanted = if disk.is_some() { mine.levels.get(index) } else { Some(&mine.level) };
                let Some(level) = theirs.levels.get(index).filter(|level| Some(*level) == wanted) else { continue };
                let wider = found.get(&index).is_none_or(|(_, known, _)| known.width.bits() < place.width.bits());
                if disk.unwrap_or(place.width) == place.width && wider {
                    found.insert(index, ((*other, index as u32), place, *level));
                }
            }
        }
        Ok(found)
    }
}
