//! GPU time of every dispatch of a replay, by timestamps.

use bytemuck::bytes_of;
use concertina_shaders::Step;

use super::device::{Gpu, Prepared};
use crate::{Error, Result};

/// Time of one dispatch.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Name of the variant.
    pub variant: &'static str,
    /// Workgroups along x and y.
    pub groups: [u32; 2],
    /// Nanoseconds from the end of what ran before it to its own end.
    pub ns: f64,
}

impl Gpu {
    /// Replay recordings with a timestamp after each dispatch. Slower than [`Gpu::run`]: for measurements only.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the adapter has no timestamps inside passes.
    pub async fn profile(&mut self, step: &Step, recordings: &[&Prepared]) -> Result<Vec<Timing>> {
        if !self.info().timestamps {
            return Err(Error::Unsupported(format!("{} has no timestamps inside passes", self.info())));
        }
        const PER_SET: usize = 4096;
        let ops: Vec<_> = recordings.iter().flat_map(|r| &r.ops).filter(|op| !op.groups(step).contains(&0)).collect();
        let mut timings = Vec::with_capacity(ops.len());
        self.queue.write_buffer(&self.step, 0, bytes_of(step));
        for ops in ops.chunks(PER_SET - 1) {
            let count = ops.len() as u32 + 1;
            let set = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let bytes = u64::from(count) * 8;
            let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: bytes.next_multiple_of(256),
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.write_timestamp(&set, 0);
                for (i, op) in ops.iter().enumerate() {
                    op.dispatch(&mut pass, step);
                    pass.write_timestamp(&set, i as u32 + 1);
                }
            }
            encoder.resolve_query_set(&set, 0..count, &resolved, 0);
            let staging = self.readback.staging(&self.device, bytes);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
            self.queue.submit([encoder.finish()]);
            self.faults.check()?;
            let read = self.readback.map(&self.device, &staging, bytes, &self.faults).await?;
            self.readback.keep(staging);
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&read);
            let period = f64::from(self.queue.get_timestamp_period());
            for (op, pair) in ops.iter().zip(ticks.windows(2)) {
                let ns = pair[1].saturating_sub(pair[0]) as f64 * period;
                timings.push(Timing { variant: op.variant().name, groups: op.groups(step), ns });
            }
        }
        Ok(timings)
    }
}
