//! Bringing a context back: lanes read and open its chunks while the device computes others.

use std::collections::{BTreeSet, VecDeque};

use concertina_kv::policy::RestorePlan;
use concertina_kv::store::ChunkReader;
use concertina_kv::{CHUNK_TOKENS, Width};
use futures::stream::StreamExt as _;
use web_time::Instant;

use super::inflow::{Arrival, Inflow, start_reading};
use super::{Service, Switch};
use crate::api::yield_now;
use crate::{Error, Result};

impl Service {
    /// Bring back the chunks of a plan. Room was made for them.
    pub(super) async fn restore(&mut self, key: u64, plan: &RestorePlan, switch: &mut Switch) -> Result<()> {
        switch.planned_ms = plan.total_s * 1e3;
        switch.choice = Some(plan.choice);
        if plan.read.is_empty() && plan.recompute.is_empty() {
            return Ok(());
        }
        let mut readers = VecDeque::with_capacity(plan.read.len());
        let mut to_compute: BTreeSet<u32> = plan.recompute.iter().copied().collect();
        for index in &plan.read {
            if let Some(reader) = self.entry(key)?.readers.get(index).cloned() {
                self.bring(key, *index, reader.width()).await?;
                switch.read_bytes += reader.bytes();
                readers.push_back(reader);
            } else {
                switch.lost += 1;
                self.replace_lost(key, *index).await?;
                to_compute.insert(*index);
            }
        }
        // What is computed waits for all before it; else the disk's order is the faster one.
        if to_compute.is_empty() {
            readers.make_contiguous().sort_by_key(ChunkReader::place);
        }
        let mut waiting: BTreeSet<u32> = readers.iter().map(|reader| reader.index() as u32).collect();
        for index in &plan.recompute {
            self.bring(key, *index, self.geometry.written).await?;
        }
        if to_compute.is_empty() {
            let device = self.engine.device().await?;
            device.forward.open_pages(&mut device.backend).await?;
        }
        let start = Instant::now();
        let mut arrivals = start_reading(&self.readers, &self.pool, readers);
        let mut inflow = Inflow::default();
        let (mut read_s, mut computed_s) = (0.0, 0.0);
        while !waiting.is_empty() || !to_compute.is_empty() {
            // A chunk can be computed once all before it are there.
            let batch = self.computable(&waiting, &to_compute);
            let next = if batch.is_empty() { arrivals.next().await } else { arrivals.try_recv().ok() };
            if let Some(arrival) = next {
                let index = arrival.0;
                waiting.remove(&index);
                if self.take_in(key, &mut inflow, arrival)? {
                    switch.read += 1;
                } else {
                    switch.lost += 1;
                    self.replace_lost(key, index).await?;
                    to_compute.insert(index);
                }
                if waiting.is_empty() || inflow.is_full() {
                    inflow.deliver(self.engine.device().await?, &self.pool)?;
                }
                if waiting.is_empty() {
                    read_s = start.elapsed().as_secs_f64();
                }
            } else if batch.is_empty() {
                return Err(super::keeper::stopped());
            } else {
                // What it attends to goes first.
                inflow.deliver(self.engine.device().await?, &self.pool)?;
                self.recompute(key, &batch).await?;
                switch.recomputed += batch.len();
                to_compute.retain(|index| !batch.contains(index));
                // Whoever waits for the call may have had enough.
                yield_now().await;
            }
        }
        self.narrow_computed(key, &plan.recompute).await?;
        let device = self.engine.device().await?;
        device.backend.flush().await?;
        if switch.recomputed > 0 {
            computed_s = start.elapsed().as_secs_f64();
        } else {
            read_s = start.elapsed().as_secs_f64();
        }
        if plan.given_up {
            self.rates.forgive_split();
        }
        if switch.lost > 0 {
            return Ok(());
        }
        if switch.recomputed == 0 {
            self.rates.read.observe(switch.read_bytes as f64, read_s);
        } else if switch.read == 0 {
            self.rates.recompute.observe((switch.recomputed * CHUNK_TOKENS) as f64, computed_s);
        } else {
            // Side by side both may be slower than alone, where they share cores: another quantity.
            self.rates.observe_split(plan.recompute_s.max(plan.read_s), read_s.max(computed_s));
        }
        Ok(())
    }

    /// Chunks that were computed anew though they could have been read take the width that they would have had: an answer does
    /// not depend on which way they came back.
    async fn narrow_computed(&mut self, key: u64, computed: &[u32]) -> Result<()> {
        let state = self.manager.state(key);
        let width = |index: &u32| state.get(*index as usize)?.1.filter(|width| *width != self.geometry.written);
        let wanted: Vec<(usize, Width)> =
            computed.iter().filter_map(|index| Some((*index as usize, width(index)?))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(&key) else { return Ok(()) };
        self.engine.requantise(&mut entry.context, &wanted).await?;
        for (index, width) in wanted {
            if entry.context.table.entries()[index].is_some_and(|place| place.width == width) {
                self.manager.narrowed((key, index as u32), width);
            }
        }
        Ok(())
    }

    /// As many of the chunks to compute as fit a batch and need no chunk that has not come yet.
    fn computable(&self, waiting: &BTreeSet<u32>, to_compute: &BTreeSet<u32>) -> Vec<u32> {
        let most = self.engine.device.as_ref().map_or(0, |d| d.forward.capacity().rows / CHUNK_TOKENS).max(1);
        let first_waiting = waiting.first().copied().unwrap_or(u32::MAX);
        to_compute.iter().copied().take_while(|index| *index < first_waiting).take(most).collect()
    }

    /// A chunk that was read goes to its place with the next delivery. False: it could not be read, or is not what was stored.
    fn take_in(&mut self, key: u64, inflow: &mut Inflow, (index, contents): Arrival) -> Result<bool> {
        let Ok(contents) = contents else { return Ok(false) };
        let place = self.entry(key)?.context.table.entries()[index as usize];
        let device = self.engine.device.as_ref().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        Ok(inflow.add(device, place, contents))
    }

    /// A chunk could not be read: a place for it as it will be computed, and no copy on disk.
    async fn replace_lost(&mut self, key: u64, index: u32) -> Result<()> {
        let entry = self.entry_mut(key)?;
        entry.context.evict(index as usize);
        if let Some(reader) = entry.readers.remove(&index) {
            log::warn!("chunk {index} of a context is damaged on disk; it is computed anew");
            drop(self.keeper.start(move |store| store.drop_missing(&reader)));
        }
        let evictions = self.manager.lost((key, index))?;
        self.carry_out(&evictions).await?;
        self.bring(key, index, Width::W16).await.map(drop)
    }

    /// Compute keys and values of chunks anew, all of whose predecessors are there.
    async fn recompute(&mut self, key: u64, chunks: &[u32]) -> Result<()> {
        let level = self.entry(key)?.level;
        // Chunks may have more rows than a batch holds.
        let device = self.engine.device().await?;
        let most = device.forward.capacity().rows;
        let Some(entry) = self.entries.get_mut(&key) else { return Ok(()) };
        let written = entry.context.table.tokens();
        let positions: Vec<usize> = chunks
            .iter()
            .flat_map(|chunk| {
                let first = *chunk as usize * CHUNK_TOKENS;
                first..(first + CHUNK_TOKENS).min(written)
            })
            .collect();
        for index in chunks {
            if let Some(of_chunk) = entry.levels.get_mut(*index as usize) {
                *of_chunk = level;
            }
        }
        for positions in positions.chunks(most) {
            device.recompute(&mut entry.context, level, positions).await?;
        }
        Ok(())
    }
}
