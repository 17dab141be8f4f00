//! LCTRU, the eviction order of LLMS: least compression-tolerable, then least recently used.
//!
//! Chunks that keep many bits are those that tolerate compression least. They go first, because they free most, and
//! because a chunk that is small already is cheap to keep. Inside a width the least recently used goes first. Chunks of
//! the running context are locked and out of the order.

use std::collections::{BTreeMap, BTreeSet};

use super::WIDTHS;
use crate::Width;

/// A chunk by its context and its index there.
pub type ChunkKey = (u64, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// 0 for all where only recency counts.
    queue: usize,
    used: u64,
    key: ChunkKey,
}

/// The order in which chunks are evicted.
#[derive(Debug, Clone)]
pub struct Lctru {
    heaviest_first: bool,
    order: BTreeSet<Place>,
    places: BTreeMap<ChunkKey, Place>,
    locked: BTreeSet<u64>,
}

impl Lctru {
    /// An empty order; without `heaviest_first` it is plain LRU.
    pub fn new(heaviest_first: bool) -> Self {
        Self { heaviest_first, order: BTreeSet::new(), places: BTreeMap::new(), locked: BTreeSet::new() }
    }

    /// A chunk is in memory with this width, used at `used`.
    pub fn insert(&mut self, key: ChunkKey, width: Width, used: u64) {
        self.remove(key);
        let rank = WIDTHS.iter().position(|w| *w == width).unwrap_or(0);
        let place = Place { queue: if self.heaviest_first { rank } else { 0 }, used, key };
        self.places.insert(key, place);
        if !self.locked.contains(&key.0) {
            self.order.insert(place);
        }
    }

    /// A chunk is no longer in memory.
    pub fn remove(&mut self, key: ChunkKey) {
        if let Some(place) = self.places.remove(&key) {
            self.order.remove(&place);
        }
    }

    /// Take a context's chunks out of the order while it runs.
    pub fn lock(&mut self, context: u64) {
        self.locked.insert(context);
        for place in self.places.range((context, 0)..=(context, u32::MAX)).map(|(_, place)| place) {
            self.order.remove(place);
        }
    }

    /// Put them back, all used at `used`.
    pub fn unlock(&mut self, context: u64, used: u64) {
        self.locked.remove(&context);
        for (_, place) in self.places.range_mut((context, 0)..=(context, u32::MAX)) {
            self.order.remove(place);
            place.used = used;
            self.order.insert(*place);
        }
    }

    /// The chunk that goes first.
    pub fn first(&self) -> Option<ChunkKey> {
        self.order.first().map(|place| place.key)
    }

    /// Chunks that may go, first to last.
    pub fn iter(&self) -> impl Iterator<Item = ChunkKey> {
        self.order.iter().map(|place| place.key)
    }

    /// Contexts that run.
    pub fn locked(&self) -> impl Iterator<Item = u64> {
        self.locked.iter().copied()
    }

    /// Chunks in memory, locked ones too.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no chunk is in memory.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heaviest_first_then_least_recently_used_and_never_the_running_context() {
        let mut order = Lctru::new(true);
        order.insert((1, 0), Width::W4, 1);
        order.insert((1, 1), Width::W16, 5);
        order.insert((2, 0), Width::W16, 3);
        order.insert((2, 1), Width::W2, 0);
        order.insert((3, 0), Width::W8, 9);
        assert_eq!(order.iter().collect::<Vec<_>>(), [(2, 0), (1, 1), (3, 0), (1, 0), (2, 1)]);
        order.lock(2);
        order.insert((2, 2), Width::W16, 0);
        assert_eq!(order.iter().collect::<Vec<_>>(), [(1, 1), (3, 0), (1, 0)]);
        order.unlock(2, 10);
        assert_eq!(order.iter().collect::<Vec<_>>(), [(1, 1), (2, 0), (2, 2), (3, 0), (1, 0), (2, 1)]);
        order.insert((1, 1), Width::W2, 5);
        order.remove((2, 0));
        assert_eq!(order.iter().collect::<Vec<_>>(), [(2, 2), (3, 0), (1, 0), (1, 1), (2, 1)]);
        let mut plain = Lctru::new(false);
        plain.insert((1, 0), Width::W2, 1);
        plain.insert((1, 1), Width::W16, 2);
        assert_eq!((plain.first(), plain.len()), (Some((1, 0)), 2));
    }
}
