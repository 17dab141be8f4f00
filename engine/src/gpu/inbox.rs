//! Small writes that belong to the next submission: one staging write for all of them, copied into place on the device.
//! `write_buffer` makes a staging buffer for each call, and a decoded token has half a dozen things to write.

use crate::backend::Counters;

/// Writes that wait.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Destination, its offset, bytes.
    pieces: Vec<(wgpu::Buffer, u64, u64)>,
    buffer: Option<wgpu::Buffer>,
}

impl Inbox {
    /// Write `bytes`, a whole number of words, when the next submission begins.
    pub fn put(&mut self, to: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
            self.pieces.push((to.clone(), offset, bytes.len() as u64));
        }
    }

    /// Record the copies, in order, at the beginning of what `encoder` submits.
    pub fn deliver(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        encoder: &mut wgpu::CommandEncoder,
        counters: &mut Counters,
    ) {
        let len = self.bytes.len() as u64;
        if len == 0 {
            return;
        }
        if self.buffer.as_ref().is_none_or(|buffer| buffer.size() < len) {
            counters.buffers += 1;
            self.buffer = Some(device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("inbox"),
                size: len.next_power_of_two().max(16 << 10),
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
        let Some(buffer) = &self.buffer else { return };
        queue.write_buffer(buffer, 0, &self.bytes);
        counters.writes += 1;
        let mut at = 0;
        for (to, offset, len) in self.pieces.drain(..) {
            encoder.copy_buffer_to_buffer(buffer, at, &to, offset, len);
            at += len;
        }
        self.bytes.clear();
    }
}
