//! Reading bytes back: a reused staging buffer, mapped when the queue reaches it.

use futures::channel::oneshot;

use super::fault::FaultSlot;
use crate::backend::Counters;
use crate::{Error, Result};

/// Staging buffers by size, and on native targets the thread that drives the device while somebody waits.
pub struct Readback {
    staging: Vec<wgpu::Buffer>,
    #[cfg(not(target_arch = "wasm32"))]
    poller: crate::native::Worker,
}

impl Readback {
    pub fn new() -> Result<Self> {
        Ok(Self {
            staging: Vec::new(),
            #[cfg(not(target_arch = "wasm32"))]
            poller: crate::native::Worker::start("concertina-gpu")
                .map_err(|e| Error::Gpu(format!("no thread to wait for the device: {e}")))?,
        })
    }

    /// A staging buffer of at least `bytes`; give it back with [`Readback::keep`].
    pub fn staging(&mut self, device: &wgpu::Device, bytes: u64, counters: &mut Counters) -> wgpu::Buffer {
        if let Some(at) = self.staging.iter().position(|b| b.size() >= bytes && b.size() <= 4 * bytes.max(256)) {
            return self.staging.swap_remove(at);
        }
        counters.buffers += 1;
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes.next_multiple_of(256),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Keep a few small ones for the next call.
    pub fn keep(&mut self, buffer: wgpu::Buffer) {
        if self.staging.len() < 4 && buffer.size() <= 1 << 20 {
            self.staging.push(buffer);
        }
    }

    /// Wait for a submission.
    pub async fn wait(&self, device: &wgpu::Device, queue: &wgpu::Queue, faults: &FaultSlot) -> Result<()> {
        let (done, wait) = oneshot::channel();
        queue.on_submitted_work_done(move || {
            let _ = done.send(());
        });
        self.drive(device, faults);
        // A dropped sender means that the device went away.
        let _ = wait.await;
        faults.check()
    }

    /// Map `bytes` of a staging buffer once the queue has filled it, and copy them out.
    pub async fn map(
        &self,
        device: &wgpu::Device,
        buffer: &wgpu::Buffer,
        bytes: u64,
        faults: &FaultSlot,
    ) -> Result<Vec<u8>> {
        let (done, wait) = oneshot::channel();
        let slice = buffer.slice(..bytes);
        slice.map_async(wgpu::MapMode::Read, move |result| {
            let _ = done.send(result);
        });
        self.drive(device, faults);
        let mapped = wait.await;
        faults.check()?;
        match mapped {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Error::Gpu(format!("mapping a readback buffer: {e}"))),
            Err(_) => return Err(Error::DeviceLost("while reading back".into())),
        }
        let view = slice.get_mapped_range().map_err(|e| Error::Gpu(format!("mapped range: {e:?}")))?;
        let out = view.to_vec();
        drop(view);
        buffer.unmap();
        Ok(out)
    }

    /// Have callbacks called. Browsers do it from their event loop.
    pub(super) fn drive(&self, device: &wgpu::Device, faults: &FaultSlot) {
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (device, faults) = (device.clone(), faults.clone());
            self.poller.run(move || {
                if let Err(e) = device.poll(wgpu::PollType::wait_indefinitely()) {
                    faults.lose(&format!("waiting for the device: {e}"));
                }
            });
        }
        #[cfg(target_arch = "wasm32")]
        let _ = (device, faults);
    }
}
