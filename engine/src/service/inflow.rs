//! Chunks on their way from the disk to the device: lanes read and open them, batches of them are delivered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use concertina_kv::ChunkEntry;
use concertina_kv::store::{ChunkReader, Missing, Opened};
use futures::channel::mpsc::{UnboundedReceiver, unbounded};

use super::lane::Lane;
use crate::Result;
use crate::api::engine::Device;

/// Bytes that go to the device in one submission.
const DELIVERY_BYTES: usize = 1 << 20;
/// Bytes of memory for contents that are kept for the next restore.
const KEPT_BYTES: usize = 32 << 20;

/// A chunk that was read, or could not be.
pub type Arrival = (u32, std::result::Result<Opened, Missing>);

/// Memory that contents were read into, to be used again: fresh memory costs the system a fault a page.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        self.buffers().pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers();
        let held: usize = buffers.iter().map(Vec::capacity).sum();
        if held + buffer.capacity() <= KEPT_BYTES {
            buffers.push(buffer);
        }
    }
}

/// Have the lanes read chunks in order and open them. One reads at a time: a system that reads ahead of a file's reader loses
/// its thread where two of them take turns. Several open.
pub fn start_reading(lanes: &[Lane], pool: &Pool, readers: VecDeque<ChunkReader>) -> UnboundedReceiver<Arrival> {
    let (sender, arrivals) = unbounded();
    let lanes = &lanes[..lanes.len().min(readers.len())];
    let queue = Arc::new(Mutex::new(readers));
    for lane in lanes {
        let (queue, sender, pool) = (Arc::clone(&queue), sender.clone(), pool.clone());
        lane.run(move || {
            let read = || {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                let reader = queue.pop_front()?;
                let sealed = reader.read_sealed(pool.take());
                Some((reader, sealed))
            };
            // Nobody listens any more where the call was dropped.
            while let Some((reader, sealed)) = (!sender.is_closed()).then(read).flatten() {
                let opened = sealed.and_then(|sealed| reader.open_whole(sealed));
                let _ = sender.unbounded_send((reader.index() as u32, opened));
            }
        });
    }
    arrivals
}

/// Chunks that arrived and wait for their delivery.
#[derive(Default)]
pub struct Inflow {
    waiting: Vec<(ChunkEntry, Opened)>,
    bytes: usize,
}

impl Inflow {
    /// Take a chunk that belongs to `place`. False: it is not what was stored.
    pub fn add(&mut self, device: &Device, place: Option<ChunkEntry>, contents: Opened) -> bool {
        let Some(place) = place.filter(|place| device.forward.takes(*place, contents.layers().map(<[u8]>::len))) else {
            return false;
        };
        self.bytes += contents.bytes();
        self.waiting.push((place, contents));
        true
    }

    /// Enough waits for a submission to be worth its cost.
    pub fn is_full(&self) -> bool {
        self.bytes >= DELIVERY_BYTES
    }

    /// Submit what waits.
    pub fn deliver(&mut self, device: &mut Device, pool: &Pool) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let chunks: Vec<(ChunkEntry, Vec<&[u8]>)> =
            self.waiting.iter().map(|(place, contents)| (*place, contents.layers().collect())).collect();
        device.forward.write_chunks(&mut device.backend, &chunks)?;
        device.backend.deliver(0)?;
        self.bytes = 0;
        self.waiting.drain(..).for_each(|(_, contents)| pool.give(contents.into_buffer()));
        Ok(())
    }
}
