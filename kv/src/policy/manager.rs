//! The life of every context's chunks under one memory budget.
//!
//! A call goes: [`enter`](Manager::enter) locks the context, evicts others and plans the restore;
//! [`grow`](Manager::grow) makes room as tokens come; [`finish`](Manager::finish) chooses widths, says what to write, and
//! unlocks. Bytes are reserved here before the caller allocates them, so the budget holds whatever happens.
//!
//! Contexts may hold one page for chunks that are the same ([`share`](Manager::share)). The budget counts it once, until the
//! last of them lets go. Each of them has its own place in the eviction order: evicting one of several takes the chunk from
//! that context alone and frees nothing. Only who is left alone with a page makes it narrower or continues it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::budget::Budget;
use super::features::{Compression, Features};
use super::lctru::{ChunkKey, Lctru};
use super::planner::{MissingChunk, Rates, RestorePlan, Split, plan};
use super::tolerance::{ChunkTolerance, WidthErrors, choose_widths};
use crate::{CHUNK_TOKENS, Width};

/// Bytes of a chunk, scales and tags included.
pub trait ChunkBytes {
    /// In memory.
    fn memory(&self, width: Width) -> u64;
    /// On disk.
    fn disk(&self, width: Width) -> u64;
}

/// The running context's own chunks do not fit the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the context needs {needed} bytes beside {locked} locked, and the budget is {limit}")]
pub struct TooLarge {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes that are locked.
    pub locked: u64,
    /// The budget.
    pub limit: u64,
}

/// A chunk to drop from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// Which.
    pub key: ChunkKey,
    /// Its width.
    pub width: Width,
    /// Whether it must be written before; with writes ahead of time only where those failed.
    pub write: bool,
}

/// What a context needs before it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// Chunks to drop first.
    pub evict: Vec<Eviction>,
    /// How to restore what is missing.
    pub restore: RestorePlan,
}

/// What to do when a call has returned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Return {
    /// Chunks to requantise: index, width before, width after.
    pub requantise: Vec<(u32, Width, Width)>,
    /// Chunks to write, with the width they have after that.
    pub write: Vec<(u32, Width)>,
}

/// Memory of a chunk, and its width. Chunks that are the same hold clones of it.
type Page = Arc<Width>;

fn is_shared(page: &Page) -> bool {
    Arc::strong_count(page) > 1
}

#[derive(Debug, Clone)]
struct Chunk {
    memory: Option<Page>,
    /// Width on disk.
    disk: Option<Width>,
    density: f64,
}

/// Chunks of all contexts.
#[derive(Debug)]
pub struct Manager<B> {
    features: Features,
    bytes: B,
    budget: Budget,
    order: Lctru,
    errors: WidthErrors,
    average_bits: f64,
    split: Split,
    pinned: BTreeSet<u64>,
    contexts: BTreeMap<u64, Vec<Chunk>>,
}

impl<B: ChunkBytes> Manager<B> {
    /// No contexts yet.
    pub fn new(features: Features, bytes: B, budget_bytes: u64, errors: WidthErrors, average_bits: f64) -> Self {
        Self {
            features,
            bytes,
            budget: Budget::new(budget_bytes),
            order: Lctru::new(features.heaviest_first),
            errors,
            average_bits,
            split: Split::Planned,
            pinned: BTreeSet::new(),
            contexts: BTreeMap::new(),
        }
    }

    /// Keep a context's chunks in memory, or let them go again.
    pub fn pin(&mut self, context: u64, pinned: bool, now: u64) {
        if pinned {
            self.pinned.insert(context);
            self.order.lock(context);
        } else if self.pinned.remove(&context) {
            self.order.unlock(context, now);
        }
    }

    /// A call is over of which nothing remains.
    pub fn stand_down(&mut self, context: u64, now: u64) {
        self.unlock(context, now);
    }

    fn unlock(&mut self, context: u64, now: u64) {
        if !self.pinned.contains(&context) {
            self.order.unlock(context, now);
        }
    }

    /// Restore in another way than planned: for comparison.
    pub fn set_split(&mut self, split: Split) {
        self.split = split;
    }

    /// A context that is not in memory, with the width in which each of its chunks is on disk, if it is, and the density
    /// that it had.
    pub fn add(&mut self, context: u64, disk: &[(Option<Width>, f64)]) {
        self.remove(context);
        let chunk = |(disk, density): &(Option<Width>, f64)| Chunk { memory: None, disk: *disk, density: *density };
        self.contexts.insert(context, disk.iter().map(chunk).collect());
    }

    /// Memory was lost: no chunk is there any more. The running context stays locked.
    pub fn lose_memory(&mut self) {
        let keys: Vec<ChunkKey> =
            self.contexts.iter().flat_map(|(id, chunks)| (0..chunks.len() as u32).map(|i| (*id, i))).collect();
        keys.into_iter().for_each(|key| self.release(key));
    }

    /// What is on disk of these chunks can be read no more.
    pub fn lose_disk(&mut self, context: u64, from: usize) {
        let chunks = self.contexts.get_mut(&context).into_iter().flatten();
        chunks.skip(from).for_each(|chunk| chunk.disk = None);
    }

    /// Drop the page that goes first, because its place is needed whatever the books say: the chunks of all who hold it, and
    /// those before them in the order. Empty: there is none.
    pub fn free_one(&mut self) -> Vec<Eviction> {
        let (used, mut evicted) = (self.budget.used(), Vec::new());
        while self.budget.used() == used
            && let Some(eviction) = self.order.first().and_then(|key| self.evict(key))
        {
            evicted.push(eviction);
        }
        evicted
    }

    /// Chunk `key`, which is not in memory, is the same as chunk `from` of another context: it takes hold of the same page.
    /// False, and nothing has changed, where `from` is not in memory or `key` is.
    pub fn share(&mut self, key: ChunkKey, from: ChunkKey) -> bool {
        let Some(page) = self.chunk(from).and_then(|chunk| chunk.memory.clone()) else { return false };
        let Some(chunk) = self.chunk_mut(key).filter(|chunk| chunk.memory.is_none()) else { return false };
        let width = *page;
        chunk.memory = Some(page);
        self.order.insert(key, width, 0);
        true
    }

    /// A chunk could not be brought to the width that [`finish`](Self::finish) chose, and keeps another. Where the books
    /// have no room for that it is out of memory, and false is returned.
    pub fn keep_width(&mut self, key: ChunkKey, width: Width) -> bool {
        self.release(key);
        if let Some(chunk) = self.chunk_mut(key) {
            chunk.disk = None;
        }
        self.set_memory(key, Some(width));
        self.chunk(key).is_some_and(|chunk| chunk.memory.is_some())
    }

    /// A chunk that was computed anew has been brought to the width that its copy on disk has.
    pub fn narrowed(&mut self, key: ChunkKey, width: Width) {
        self.release(key);
        self.set_memory(key, Some(width));
    }

    /// Bytes of a context's chunks in memory, and of those the bytes of pages that other contexts hold too.
    pub fn memory_bytes(&self, context: u64) -> (u64, u64) {
        let pages = || self.contexts.get(&context).into_iter().flatten().filter_map(|chunk| chunk.memory.as_ref());
        let bytes = |page: &Page| self.bytes.memory(**page);
        (pages().map(bytes).sum(), pages().filter(|page| is_shared(page)).map(bytes).sum())
    }

    /// Forget a context. Its memory is free.
    pub fn remove(&mut self, context: u64) {
        self.truncate(context, 0);
        self.pinned.remove(&context);
        self.order.unlock(context, 0);
        self.contexts.remove(&context);
    }

    /// The memory budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Change the budget. Returns what must be dropped now; where locked chunks alone exceed it, the rest follows later.
    pub fn set_budget(&mut self, bytes: u64) -> Vec<Eviction> {
        self.budget.set_limit(bytes);
        self.evict_for(0)
    }

    /// Width in memory and on disk of each chunk of a context.
    pub fn state(&self, context: u64) -> Vec<(Option<Width>, Option<Width>)> {
        let chunks = self.contexts.get(&context);
        chunks.into_iter().flatten().map(|chunk| (chunk.memory.as_deref().copied(), chunk.disk)).collect()
    }

    /// Chunks that may be dropped, first to last.
    pub fn eviction_order(&self) -> impl Iterator<Item = ChunkKey> {
        self.order.iter()
    }

    /// Seconds that restoring a context would take, by these rates.
    pub fn restore_s(&self, context: u64, rates: &Rates) -> f64 {
        plan(&self.missing(context), rates, self.features.pipeline, self.split).total_s
    }

    /// A call begins: lock the context, make room, and plan its restore. The caller drops what it is told, then restores.
    ///
    /// # Errors
    /// [`TooLarge`], and then nothing has changed but evictions that were free to make.
    pub fn enter(&mut self, context: u64, rates: &Rates) -> Result<Switch, TooLarge> {
        self.contexts.entry(context).or_default();
        self.order.lock(context);
        let mut restore = plan(&self.missing(context), rates, self.features.pipeline, self.split);
        let mut needed = self.restore_bytes(context, &restore);
        if needed > self.available() {
            // Computed chunks have 16 bits until the call returns. Read ones are smaller.
            restore = plan(&self.missing(context), rates, false, Split::AllRead);
            needed = self.restore_bytes(context, &restore);
        }
        let evict = self.make_room(needed).inspect_err(|_| self.unlock(context, 0))?;
        for index in &restore.recompute {
            self.set_memory((context, *index), Some(Width::W16));
        }
        for index in &restore.read {
            let width = self.chunk((context, *index)).and_then(|chunk| chunk.disk).unwrap_or(Width::W16);
            self.set_memory((context, *index), Some(width));
        }
        Ok(Switch { evict, restore })
    }

    /// A chunk could not be read: it will be computed, with 16 bits.
    ///
    /// # Errors
    /// [`TooLarge`], and then the chunk is out of memory.
    pub fn lost(&mut self, key: ChunkKey) -> Result<Vec<Eviction>, TooLarge> {
        self.stale(key);
        let evict = self.make_room(self.bytes.memory(Width::W16))?;
        self.set_memory(key, Some(Width::W16));
        Ok(evict)
    }

    /// What a chunk holds is of no use to the call that begins: it leaves memory, and its copy on disk does not count.
    pub fn stale(&mut self, key: ChunkKey) {
        self.release(key);
        if let Some(chunk) = self.chunk_mut(key) {
            chunk.disk = None;
        }
    }

    /// The running context is about to hold `tokens` tokens. Chunks that begin have 16 bits, and so has the one that they
    /// continue from then on: it is widened where it was narrow, and is no longer as it is on disk.
    ///
    /// # Errors
    /// [`TooLarge`], and then nothing has changed.
    pub fn grow(&mut self, context: u64, tokens_before: usize, tokens: usize) -> Result<Vec<Eviction>, TooLarge> {
        let have = self.contexts.get(&context).map_or(0, Vec::len);
        let want = tokens.div_ceil(CHUNK_TOKENS);
        let new = want.saturating_sub(have);
        let open = (context, (tokens_before / CHUNK_TOKENS) as u32);
        let continued = self.chunk(open).filter(|_| tokens > tokens_before);
        let widens = continued.and_then(|chunk| chunk.memory.as_deref()).is_some_and(|width| *width != Width::W16);
        // Until it is copied it lies in both widths.
        let evict = self.make_room((new + usize::from(widens)) as u64 * self.bytes.memory(Width::W16))?;
        if tokens > tokens_before
            && let Some(continued) = self.chunk_mut(open)
        {
            continued.disk = None;
        }
        if widens {
            self.release(open);
            self.set_memory(open, Some(Width::W16));
        }
        let chunks = self.contexts.entry(context).or_default();
        chunks.resize(want.max(have), Chunk { memory: None, disk: None, density: 0.0 });
        for index in have..want {
            self.set_memory((context, index as u32), Some(Width::W16));
        }
        Ok(evict)
    }

    /// Forget chunks from `keep` tokens on. A chunk that is cut can be continued only if nobody shares it; otherwise it is to be
    /// computed anew.
    pub fn truncate(&mut self, context: u64, keep: usize) {
        let whole = keep / CHUNK_TOKENS;
        let have = self.contexts.get(&context).map_or(0, Vec::len);
        for index in keep.div_ceil(CHUNK_TOKENS)..have {
            self.release((context, index as u32));
        }
        let Some(chunks) = self.contexts.get_mut(&context) else { return };
        chunks.truncate(keep.div_ceil(CHUNK_TOKENS));
        if let Some(cut) = chunks.get_mut(whole) {
            cut.disk = None;
            if cut.memory.as_ref().is_some_and(is_shared) {
                self.release((context, whole as u32));
            }
        }
    }

    /// A call has returned, with the density of each chunk as far as it is known; `tokens` are the context's now.
    pub fn finish(&mut self, context: u64, tokens: usize, densities: &[f64], now: u64) -> Return {
        let mut done = Return::default();
        let chunks = self.contexts.get_mut(&context).map_or(&mut [][..], Vec::as_mut_slice);
        for (chunk, density) in chunks.iter_mut().zip(densities) {
            chunk.density = *density;
        }
        // The last one too, though it may not be full: it is widened when it is continued.
        let there = &chunks[..tokens.div_ceil(CHUNK_TOKENS).min(chunks.len())];
        let width_of = |chunk: &Chunk| chunk.memory.as_deref().copied();
        let widths: Vec<Option<Width>> = match self.features.compression {
            Compression::None => there.iter().map(width_of).collect(),
            Compression::Uniform(width) => {
                there.iter().map(|chunk| width_of(chunk).map(|now| now.max(width))).collect()
            }
            Compression::Tolerance => {
                let tolerance = |chunk: &Chunk| ChunkTolerance {
                    density: chunk.density,
                    width: width_of(chunk).or(chunk.disk).unwrap_or(Width::W16),
                };
                let known: Vec<ChunkTolerance> = there.iter().map(tolerance).collect();
                let chosen = choose_widths(&known, &self.errors, self.average_bits);
                there.iter().zip(chosen).map(|(chunk, width)| width_of(chunk).map(|_| width)).collect()
            }
        };
        let changes: Vec<(u32, Width, Width)> = (0..)
            .zip(there.iter().zip(widths))
            // A narrower copy beside the page that others hold would take more memory, not less.
            .filter_map(|(index, (chunk, to))| {
                Some((index, chunk.memory.as_ref().filter(|page| !is_shared(page))?, to?))
            })
            .filter(|(_, page, to)| ***page != *to)
            .map(|(index, page, to)| (index, **page, to))
            .collect();
        for (index, from, to) in changes {
            // Narrower is smaller: this cannot fail.
            self.release((context, index));
            self.set_memory((context, index), Some(to));
            done.requantise.push((index, from, to));
        }
        if self.features.disk && self.features.ahead_of_time {
            for (index, chunk) in (0..).zip(self.contexts.get_mut(&context).into_iter().flatten()) {
                if let Some(width) = chunk.memory.as_deref().copied()
                    && chunk.disk != Some(width)
                {
                    chunk.disk = Some(width);
                    done.write.push((index, width));
                }
            }
        }
        self.unlock(context, now);
        done
    }

    /// A write that was asked for did not happen.
    pub fn write_failed(&mut self, key: ChunkKey) {
        if let Some(chunk) = self.chunk_mut(key) {
            chunk.disk = None;
        }
    }

    fn chunk(&self, key: ChunkKey) -> Option<&Chunk> {
        self.contexts.get(&key.0)?.get(key.1 as usize)
    }

    fn chunk_mut(&mut self, key: ChunkKey) -> Option<&mut Chunk> {
        self.contexts.get_mut(&key.0)?.get_mut(key.1 as usize)
    }

    fn missing(&self, context: u64) -> Vec<MissingChunk> {
        let chunks = self.contexts.get(&context).into_iter().flatten();
        let on_disk = |chunk: &Chunk| chunk.disk.filter(|_| self.features.disk).map(|width| self.bytes.disk(width));
        (0..)
            .zip(chunks)
            .filter(|(_, chunk)| chunk.memory.is_none())
            .map(|(index, chunk)| MissingChunk { index, read_bytes: on_disk(chunk) })
            .collect()
    }

    fn restore_bytes(&self, context: u64, restore: &RestorePlan) -> u64 {
        let width = |index: &u32| self.chunk((context, *index)).and_then(|chunk| chunk.disk).unwrap_or(Width::W16);
        let read: u64 = restore.read.iter().map(|index| self.bytes.memory(width(index))).sum();
        read + restore.recompute.len() as u64 * self.bytes.memory(Width::W16)
    }

    /// Bytes that could be reserved if everything that is not locked went.
    fn available(&self) -> u64 {
        let chunks = self.order.locked().filter_map(|context| self.contexts.get(&context)).flatten();
        let mut counted = BTreeSet::new();
        let locked: u64 = chunks
            .filter_map(|chunk| chunk.memory.as_ref())
            .filter(|page| !is_shared(page) || counted.insert(Arc::as_ptr(page)))
            .map(|page| self.bytes.memory(**page))
            .sum();
        self.budget.limit().saturating_sub(locked)
    }

    fn make_room(&mut self, needed: u64) -> Result<Vec<Eviction>, TooLarge> {
        let available = self.available();
        if needed > available {
            let limit = self.budget.limit();
            return Err(TooLarge { needed, locked: limit.saturating_sub(available), limit });
        }
        Ok(self.evict_for(needed))
    }

    fn evict_for(&mut self, needed: u64) -> Vec<Eviction> {
        let mut evicted = Vec::new();
        while self.budget.lacks(needed) > 0 {
            let Some(first) = self.order.first() else { break };
            if self.features.whole_contexts {
                let chunks = self.contexts.get(&first.0).map_or(0, Vec::len) as u32;
                (0..chunks).for_each(|index| evicted.extend(self.evict((first.0, index))));
            } else {
                evicted.extend(self.evict(first));
            }
        }
        evicted
    }

    fn evict(&mut self, key: ChunkKey) -> Option<Eviction> {
        let disk = self.features.disk;
        let chunk = self.chunk_mut(key)?;
        let width = chunk.memory.as_deref().copied()?;
        let write = disk && chunk.disk != Some(width);
        chunk.disk = disk.then_some(width);
        self.release(key);
        Some(Eviction { key, width, write })
    }

    fn release(&mut self, key: ChunkKey) {
        // The last to let go frees it.
        if let Some(width) = self.chunk_mut(key).and_then(|chunk| chunk.memory.take()).and_then(Arc::into_inner) {
            self.budget.release(self.bytes.memory(width));
        }
        self.order.remove(key);
    }

    /// Room was made before.
    fn set_memory(&mut self, key: ChunkKey, width: Option<Width>) {
        let Some(width) = width else { return };
        if self.budget.reserve(self.bytes.memory(width)).is_ok() {
            if let Some(chunk) = self.chunk_mut(key) {
                chunk.memory = Some(Page::new(width));
            }
            self.order.insert(key, width, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{LineFit, Policy};
    use crate::random::SplitMix;

    struct Simple;

    impl ChunkBytes for Simple {
        fn memory(&self, width: Width) -> u64 {
            [1600, 800, 400, 200][width as usize]
        }

        fn disk(&self, width: Width) -> u64 {
            self.memory(width) + 16
        }
    }

    fn rates() -> Rates {
        Rates::new(LineFit::new(0.0, 0.01), LineFit::new(0.0, 1e-6))
    }

    fn manager(policy: Policy, budget: u64) -> Manager<Simple> {
        Manager::new(policy.features(), Simple, budget, WidthErrors::default(), 4.0)
    }

    #[test]
    fn ours_writes_ahead_and_drops_for_free() {
        let mut ours = manager(Policy::Ours, 32_000);
        ours.enter(1, &rates()).unwrap();
        ours.grow(1, 0, 160).unwrap();
        let done = ours.finish(1, 160, &[0.1; 10], 1);
        assert_eq!(done.write.len(), 10);
        assert!(ours.budget().used() <= 4000, "at 4 bits: {}", ours.budget().used());
        ours.enter(2, &rates()).unwrap();
        let evicted = ours.grow(2, 0, 160 * 2).unwrap();
        assert!(!evicted.is_empty() && evicted.iter().all(|eviction| !eviction.write && eviction.key.0 == 1));
        ours.finish(2, 320, &[0.1; 20], 2);
        let switch = ours.enter(1, &rates()).unwrap();
        assert_eq!(switch.restore.read.len(), evicted.len());
        assert!(switch.restore.recompute.is_empty());
    }

    #[test]
    fn a_killed_context_is_computed_anew_and_a_swapped_one_is_written_when_it_goes() {
        for (policy, recomputed, written) in [(Policy::Lmk, 10, 0), (Policy::Swap, 0, 10)] {
            let mut manager = manager(policy, 20_000);
            for context in [1, 2] {
                manager.enter(context, &rates()).unwrap();
                let evicted = manager.grow(context, 0, 160).unwrap();
                let writes = evicted.iter().filter(|eviction| eviction.write).count();
                assert_eq!((evicted.len(), writes), if context == 1 { (0, 0) } else { (10, written) });
                manager.finish(context, 160, &[], context);
            }
            let switch = manager.enter(1, &rates()).unwrap();
            assert_eq!(switch.restore.recompute.len(), recomputed);
            assert_eq!(switch.restore.read.len(), 10 - recomputed);
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_and_changes_nothing() {
        let mut ours = manager(Policy::Ours, 4000);
        ours.enter(1, &rates()).unwrap();
        ours.grow(1, 0, 32).unwrap();
        let refused = ours.grow(1, 32, 64).unwrap_err();
        assert_eq!((refused.limit, ours.budget().used(), ours.state(1).len()), (4000, 3200, 2));
    }

    #[test]
    fn a_page_of_several_contexts_counts_once_and_is_not_continued() {
        let mut manager = manager(Policy::OursNoCompression, 8 * 1600);
        manager.enter(1, &rates()).unwrap();
        manager.grow(1, 0, 96).unwrap();
        manager.finish(1, 96, &[], 1);
        manager.pin(1, true, 1);
        manager.add(2, &[(None, 0.0); 6]);
        (0..6)
            .for_each(|index| assert!(manager.share((2, index), (1, index)) && !manager.share((2, index), (1, index))));
        assert_eq!(manager.enter(2, &rates()).unwrap().restore.choice, crate::policy::Choice::Nothing);
        assert_eq!(manager.grow(2, 96, 128), Ok(Vec::new()), "both are locked, and hold eight pages in all");
        assert!(manager.grow(2, 128, 129).is_err());
        assert_eq!(manager.memory_bytes(2), (8 * 1600, 6 * 1600));
        manager.truncate(2, 40);
        let here = |context| manager.state(context).iter().filter(|(memory, _)| memory.is_some()).count();
        assert_eq!((here(1), here(2), manager.state(2).len()), (6, 2, 3), "half of a shared chunk is dropped");
        assert_eq!((manager.free_one(), manager.budget().used()), (Vec::new(), 6 * 1600));
        manager.stand_down(2, 2);
        assert_eq!((manager.free_one().len(), manager.budget().used()), (2, 6 * 1600), "nothing is free by letting go");
        manager.pin(1, false, 1);
        assert!(manager.share((2, 0), (1, 0)) && manager.free_one().len() == 2 && manager.budget().used() == 5 * 1600);
    }

    #[test]
    fn books_and_budget_hold_through_random_calls() {
        for policy in Policy::ALL {
            let mut random = SplitMix::new(11);
            let mut manager = manager(policy, 60_000);
            let mut tokens = [0_usize; 6];
            for now in 0..600 {
                let context = random.below(6);
                let have = &mut tokens[context as usize];
                if random.chance(0.1) {
                    *have = random.below(*have as u64 + 1) as usize;
                    manager.truncate(context, *have);
                }
                manager.enter(context, &rates()).unwrap_or_else(|error| panic!("{policy:?}: {error}"));
                if random.chance(0.1) && *have > 16 {
                    manager.lost((context, random.below(*have as u64 / 16) as u32)).unwrap();
                }
                let more = random.below(60) as usize;
                if *have + more < 320 {
                    manager.grow(context, *have, *have + more).unwrap();
                    *have += more;
                }
                assert!(manager.state(context).iter().all(|(memory, _)| memory.is_some()));
                let densities: Vec<f64> = (0..have.div_ceil(16)).map(|_| random.unit()).collect();
                manager.finish(context, *have, &densities, now);
                if random.chance(0.02) {
                    let gone = random.below(6);
                    manager.remove(gone);
                    tokens[gone as usize] = 0;
                }
                let used: u64 = (0..6)
                    .flat_map(|context| manager.state(context))
                    .filter_map(|(memory, _)| memory)
                    .map(|width| Simple.memory(width))
                    .sum();
                assert_eq!(used, manager.budget().used(), "{policy:?}");
                assert_eq!(manager.eviction_order().count(), manager.order.len());
            }
            assert!(manager.budget().peak() <= 60_000);
            let dropped = manager.set_budget(10_000);
            assert!(!dropped.is_empty() && manager.budget().used() <= 10_000);
        }
    }
}
