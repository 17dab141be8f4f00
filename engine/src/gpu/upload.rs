//! Large writes through a ring of staging buffers that stay mapped between uses: `write_buffer` makes and fills a new one for
//! each call, which on llvmpipe runs at less than half the speed.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::backend::Counters;
use crate::{Error, Result};

/// Bytes of a staging buffer.
const BUFFER_BYTES: u64 = 4 << 20;
/// Buffers that are kept; a burst may have more.
const KEPT: usize = 4;

/// Writes that wait for the next delivery, in mapped buffers.
pub struct Upload {
    filling: Vec<Filling>,
    /// Mapped and empty.
    ready: Vec<wgpu::Buffer>,
    /// Buffers come back here when the device is done with them and they are mapped again.
    returned: Receiver<wgpu::Buffer>,
    give_back: Sender<wgpu::Buffer>,
}

struct Filling {
    buffer: wgpu::Buffer,
    used: u64,
    /// Destination, its offset, offset here, bytes.
    pieces: Vec<(wgpu::Buffer, u64, u64, u64)>,
}

impl Default for Upload {
    fn default() -> Self {
        let (give_back, returned) = channel();
        Self { filling: Vec::new(), ready: Vec::new(), returned, give_back }
    }
}

impl Upload {
    /// Bytes that wait.
    pub fn waiting(&self) -> u64 {
        self.filling.iter().map(|filling| filling.used).sum()
    }

    /// Write `parts`, each a whole number of words, one after the other when the next delivery is submitted: one copy, unless
    /// a staging buffer ends among them.
    pub fn put(
        &mut self,
        device: &wgpu::Device,
        to: &wgpu::Buffer,
        mut offset: u64,
        parts: &[&[u8]],
        counters: &mut Counters,
    ) -> Result<()> {
        let mut left: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut parts = parts.iter().copied();
        let mut part: &[u8] = &[];
        while left > 0 {
            if self.filling.last().is_none_or(|filling| filling.used == BUFFER_BYTES) {
                let buffer = self.take(device, counters);
                self.filling.push(Filling { buffer, used: 0, pieces: Vec::new() });
            }
            let Some(filling) = self.filling.last_mut() else { break };
            let n = left.min(BUFFER_BYTES - filling.used);
            // Ranges that are mapped begin at multiples of 8; the gap is left as it is.
            let range = filling.used..filling.used + n;
            let mut view = filling
                .buffer
                .get_mapped_range_mut(range.clone())
                .map_err(|e| Error::Gpu(format!("a staging buffer: {e:?}")))?;
            let (mut at, n) = (0, n as usize);
            while at < n {
                if part.is_empty() {
                    part = parts.next().expect("there are as many bytes as were counted");
                    continue;
                }
                let (now, later) = part.split_at(part.len().min(n - at));
                view.slice(at..at + now.len()).copy_from_slice(now);
                (at, part) = (at + now.len(), later);
            }
            filling.pieces.push((to.clone(), offset, filling.used, n as u64));
            filling.used = range.end.next_multiple_of(8).min(BUFFER_BYTES);
            (left, offset) = (left - n as u64, offset + n as u64);
        }
        Ok(())
    }

    fn take(&mut self, device: &wgpu::Device, counters: &mut Counters) -> wgpu::Buffer {
        self.ready.extend(self.returned.try_iter());
        self.ready.pop().unwrap_or_else(|| {
            counters.buffers += 1;
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: BUFFER_BYTES,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            })
        })
    }

    /// Record the copies of what waits. After the submission call [`Upload::submitted`] with what is returned.
    pub fn deliver(&mut self, encoder: &mut wgpu::CommandEncoder) -> Vec<wgpu::Buffer> {
        let filled = std::mem::take(&mut self.filling);
        let unmap = |filling: Filling| {
            filling.buffer.unmap();
            for (to, offset, at, len) in &filling.pieces {
                encoder.copy_buffer_to_buffer(&filling.buffer, *at, to, *offset, *len);
            }
            filling.buffer
        };
        filled.into_iter().map(unmap).collect()
    }

    /// The copies were submitted: have the buffers mapped again.
    pub fn submitted(&mut self, buffers: Vec<wgpu::Buffer>) {
        self.ready.extend(self.returned.try_iter());
        let keep = KEPT.saturating_sub(self.ready.len());
        for buffer in buffers.into_iter().take(keep) {
            let (give_back, mapped) = (self.give_back.clone(), buffer.clone());
            buffer.slice(..).map_async(wgpu::MapMode::Write, move |result| {
                if result.is_ok() {
                    let _ = give_back.send(mapped);
                }
            });
        }
    }
}
