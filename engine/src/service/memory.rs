//! Making room: what the books say is carried out here.

use concertina_kv::policy::Eviction;
use concertina_kv::{ChunkEntry, Width};

use super::keeper::{Outgoing, Report};
use super::{Entry, Service};
use crate::api::engine::Device;
use crate::{Context, Error, Result};

/// Bytes that are read back from the device at once.
const GATHER_BYTES: usize = 8 << 20;

impl Service {
    pub(super) fn entry(&self, key: u64) -> Result<&Entry> {
        self.entries.get(&key).ok_or(Error::Store(concertina_kv::store::Error::UnknownContext))
    }

    pub(super) fn entry_mut(&mut self, key: u64) -> Result<&mut Entry> {
        self.entries.get_mut(&key).ok_or(Error::Store(concertina_kv::store::Error::UnknownContext))
    }

    /// Drop chunks, writing those first that must be. Returns how many were written.
    pub(super) async fn carry_out(&mut self, evictions: &[Eviction]) -> Result<usize> {
        let mut written = 0;
        self.leaving.extend_from_slice(evictions);
        while let Some(Eviction { key: (key, _), .. }) = self.leaving.first().copied() {
            let of_context: Vec<Eviction> = self.leaving.iter().take_while(|e| e.key.0 == key).copied().collect();
            let unsaved: Vec<u32> = of_context.iter().filter(|e| e.write).map(|e| e.key.1).collect();
            if !unsaved.is_empty() {
                written += unsaved.len();
                self.write_out(key, &unsaved).await?;
                let reports = self.keeper.settle(key).await;
                self.note(reports);
            }
            self.leaving.drain(..of_context.len());
            of_context.into_iter().for_each(|eviction| self.evict(eviction));
        }
        Ok(written)
    }

    fn evict(&mut self, Eviction { key: (key, index), .. }: Eviction) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.context.evict(index as usize);
        }
    }

    /// A call ended before the chunks that it had evicted were written: they go all the same, and are computed anew.
    pub(super) fn let_go(&mut self) {
        for eviction in std::mem::take(&mut self.leaving) {
            if eviction.write {
                self.manager.write_failed(eviction.key);
            }
            self.evict(eviction);
        }
    }

    /// A place for a chunk, which the books have made room for. Slabs may be too short for its width all the same; then
    /// further chunks go.
    pub(super) async fn bring(&mut self, key: u64, chunk: u32, width: Width) -> Result<ChunkEntry> {
        loop {
            match self.entry_mut(key)?.context.bring(chunk as usize, width) {
                Ok(entry) => return Ok(entry),
                Err(full) => {
                    let evictions = self.manager.free_one();
                    if evictions.is_empty() {
                        return Err(full.into());
                    }
                    self.carry_out(&evictions).await?;
                }
            }
        }
    }

    /// Room for the running context to hold keys and values of `tokens` tokens.
    pub(super) async fn make_room(&mut self, key: u64, tokens: usize) -> Result<()> {
        let have = self.entry(key)?.context.table.tokens();
        if tokens <= have {
            return Ok(());
        }
        let evictions = self.manager.grow(key, have, tokens)?;
        self.carry_out(&evictions).await?;
        // The arena hands out whole slabs: see that it has one before the forward pass asks.
        let mut missing = self.entry(key)?.context.places_for(tokens - have);
        while missing > 0 && !self.entry(key)?.context.has_room(missing) {
            let evictions = self.manager.free_one();
            if evictions.is_empty() {
                missing = 0;
            }
            self.carry_out(&evictions).await?;
        }
        Ok(())
    }

    /// Read chunks back and have them written.
    pub(super) async fn write_out(&mut self, key: u64, chunks: &[u32]) -> Result<()> {
        let layers = self.geometry.layers;
        let mut rest = chunks;
        while !rest.is_empty() {
            let entry = self.entry(key)?;
            let (mut places, mut outgoing, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut taken = 0;
            for index in rest {
                let place = entry.context.table.entries().get(*index as usize).copied().flatten();
                taken += 1;
                let Some(place) = place else { continue };
                let len = self.geometry.chunk_bytes(place.width) as usize;
                let density = entry.density(*index as usize) as f32;
                let tokens = entry.context.table.tokens_of(*index as usize);
                let level = entry.levels.get(*index as usize).copied().unwrap_or(entry.level);
                outgoing.push(Outgoing { index: *index, level, tokens, width: place.width, density, bytes: len });
                places.push(place);
                bytes += len;
                if bytes >= GATHER_BYTES {
                    break;
                }
            }
            rest = &rest[taken..];
            let app = entry.app.clone();
            let device = self.same_device().await?;
            let contents = device.forward.read_chunks(&mut device.backend, &places).await?;
            self.keeper.write(&app, key, layers, outgoing, contents);
        }
        Ok(())
    }

    /// Enter what the store reported into the books.
    pub(super) fn note(&mut self, reports: Vec<Report>) {
        for report in reports {
            for index in &report.failed {
                self.manager.write_failed((report.context, *index));
            }
            if let (Some(entry), Some(readers)) = (self.entries.get_mut(&report.context), report.readers) {
                entry.set_readers(readers);
            }
        }
    }

    /// The device that the books are about: on another one there is not what they say.
    async fn same_device(&mut self) -> Result<&mut Device> {
        let known = self.generation;
        self.engine.device().await?;
        let same = self.engine.generation == known;
        let device = self.engine.device.as_mut().filter(|_| same);
        device.ok_or_else(|| Error::DeviceLost("chunks that were to be written are gone".into()))
    }

    /// The device was lost and with it everything in memory.
    pub(super) async fn sync_device(&mut self) -> Result<()> {
        let device = self.engine.device().await?;
        let kv = device.kv.clone();
        if self.generation == self.engine.generation {
            return Ok(());
        }
        self.generation = self.engine.generation;
        self.manager.lose_memory();
        for entry in self.entries.values_mut() {
            let (tokens, written) = (std::mem::take(&mut entry.context.tokens), entry.context.table.tokens());
            entry.context = Context::parked(kv.clone(), self.generation, tokens, written);
        }
        Ok(())
    }

    /// A context as it is after loading: nothing that it has in memory can be trusted any more.
    pub(super) fn reset(&mut self, key: u64) {
        let Some(device) = &self.engine.device else { return };
        let (kv, generation) = (device.kv.clone(), self.generation);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let mut tokens = std::mem::take(&mut entry.context.tokens);
        tokens.truncate(entry.stored);
        let written = tokens.len().saturating_sub(1);
        entry.context = Context::parked(kv, generation, tokens, written);
        let (pinned, used_ms, level) = (entry.pinned, entry.used_ms, entry.level);
        entry.recall_levels();
        let chunks = self.chunks_on_disk(key, level);
        self.manager.add(key, &chunks);
        self.manager.pin(key, pinned, used_ms);
    }

    /// Width on disk and density of each chunk of a context, of those that a call at `level` can read.
    pub(super) fn chunks_on_disk(&mut self, key: u64, level: u32) -> Vec<(Option<Width>, f64)> {
        let readable = self.readable_by(level);
        self.entries.get(&key).map_or_else(Vec::new, |entry| entry.on_disk(|wrote| readable.contains(&wrote)))
    }

    /// Levels whose keys and values a call at `level` can read. A level that cannot be told, for no device is open, cannot.
    pub(super) fn readable_by(&mut self, level: u32) -> Vec<u32> {
        let slack = self.options.level_slack;
        let Ok(reader) = self.engine.sub_model(level) else { return Vec::new() };
        let feeds = |wrote: &u32| self.engine.sub_model(*wrote).is_ok_and(|wrote| wrote.feeds(&reader, slack));
        (level.saturating_sub(slack).max(1)..=100).filter(feeds).collect()
    }

    /// A call at `level` begins: chunks that it cannot read are computed anew, and their places are free. Others stay,
    /// whatever level wrote them.
    pub(super) fn use_level(&mut self, key: u64, level: u32) -> Result<()> {
        let entry = self.entry_mut(key)?;
        entry.level = level;
        let found: std::collections::BTreeSet<u32> = entry.levels.iter().copied().collect();
        if found.iter().all(|wrote| *wrote == level) {
            return Ok(());
        }
        let readable = self.readable_by(level);
        let entry = self.entries.get_mut(&key).ok_or(Error::Store(concertina_kv::store::Error::UnknownContext))?;
        for (index, wrote) in (0_u32..).zip(&entry.levels) {
            if !readable.contains(wrote) {
                entry.context.evict(index as usize);
                self.manager.stale((key, index));
            }
        }
        Ok(())
    }
}
