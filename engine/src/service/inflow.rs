//! Chunks on their way from the disk to the device: lanes read and open them, batches of them are delivered.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

/// A chunk whose extents were read and not yet opened.
type Sealed = (ChunkReader, std::result::Result<Vec<u8>, Missing>);

/// What was read and waits for a lane that opens it.
#[derive(Default)]
struct Shelf {
    state: Mutex<OnShelf>,
    changed: Condvar,
}

#[derive(Default)]
struct OnShelf {
    sealed: VecDeque<Sealed>,
    /// Nothing more will come.
    ended: bool,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, OnShelf> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, sealed: Sealed) {
        self.state().sealed.push_back(sealed);
        self.changed.notify_one();
    }

    /// The next one; waits for it. `None` where nothing will come.
    fn take(&self) -> Option<Sealed> {
        let mut state = self.state();
        loop {
            if let Some(sealed) = state.sealed.pop_front() {
                return Some(sealed);
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Ends a shelf when it goes, however its reader ended: nobody waits for ever.
struct Filling(Arc<Shelf>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

/// Have one lane read chunks in order, and the others open them; the reader helps when it has read all. Only one reads: a system
/// that reads ahead of a file's reader loses its thread where two of them take turns, and while one waits for the other to wake
/// the disk stands still.
pub fn start_reading(lanes: &[Lane], pool: &Pool, readers: VecDeque<ChunkReader>) -> UnboundedReceiver<Arrival> {
    let (sender, arrivals) = unbounded();
    let shelf = Arc::new(Shelf::default());
    let count = readers.len();
    let mut filling = Some((Filling(Arc::clone(&shelf)), readers));
    for lane in &lanes[..lanes.len().min(count)] {
        // The first one reads. Where there are no threads it has opened all before the next one is asked.
        let (shelf, sender, pool, filling) = (Arc::clone(&shelf), sender.clone(), pool.clone(), filling.take());
        lane.run(move || {
            if let Some((filling, readers)) = filling {
                for reader in readers {
                    // Nobody listens any more where the call was dropped.
                    if sender.is_closed() {
                        break;
                    }
                    let sealed = reader.read_sealed(pool.take());
                    shelf.put((reader, sealed));
                }
                drop(filling);
            }
            while let Some((reader, sealed)) = shelf.take() {
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
