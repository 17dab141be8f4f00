//! Device buffers that the host writes in place, where host and device share their memory: what is read from disk lands where it
//! belongs, with no copy on the device behind it.
//!
//! A buffer cannot be in use by the device while it is mapped, so a window is open between two submissions only, and whatever
//! submits next closes it.

use futures::channel::oneshot;

use super::fault::FaultSlot;
use super::readback::Readback;
use crate::{Error, Result};

/// Buffers that are mapped, or about to be.
#[derive(Default)]
pub struct Window {
    buffers: Vec<wgpu::Buffer>,
}

impl Window {
    /// Map buffers for writing once the device is done with them. Where that is refused, none is.
    pub async fn open(
        &mut self,
        buffers: Vec<wgpu::Buffer>,
        device: &wgpu::Device,
        readback: &Readback,
        faults: &FaultSlot,
    ) -> Result<()> {
        self.close();
        // Known before it is waited for: whoever drops this future leaves buffers that are about to be mapped.
        self.buffers = buffers;
        let map = |buffer: &wgpu::Buffer| {
            let (done, wait) = oneshot::channel();
            buffer.slice(..).map_async(wgpu::MapMode::Write, move |result| {
                let _ = done.send(result);
            });
            wait
        };
        let waits: Vec<_> = self.buffers.iter().map(map).collect();
        readback.drive(device, faults);
        for wait in waits {
            let mapped = wait.await;
            faults.check()?;
            match mapped {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    // Staging buffers do as well.
                    log::warn!("pages cannot be mapped: {e}");
                    self.close();
                    return Ok(());
                }
                Err(_) => return Err(Error::DeviceLost("while pages were mapped".into())),
            }
        }
        Ok(())
    }

    /// Whether a buffer can be written in place now.
    pub fn shows(&self, buffer: &wgpu::Buffer) -> bool {
        self.buffers.contains(buffer)
    }

    /// Write `parts` one after the other from `offset` on, which is a multiple of 8.
    pub fn put(&self, to: &wgpu::Buffer, offset: u64, parts: &[&[u8]]) -> Result<()> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut view =
            to.get_mapped_range_mut(offset..offset + len).map_err(|e| Error::Gpu(format!("mapped pages: {e:?}")))?;
        let mut at = 0;
        for part in parts {
            view.slice(at..at + part.len()).copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }

    /// Give the buffers back to the device.
    pub fn close(&mut self) {
        self.buffers.drain(..).for_each(|buffer| buffer.unmap());
    }
}
