//! GPU time: of every dispatch of a replay, of a replay as a whole, and of copies.

use concertina_shaders::{Step, Variant};
use web_time::Instant;

use super::device::{Gpu, Prepared};
use crate::record::Slice;
use crate::{Error, Result};

/// Time of one dispatch.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The variant.
    pub kernel: &'static Variant,
    /// Its params, as bytes.
    pub params: Vec<u8>,
    /// Workgroups along x and y.
    pub groups: [u32; 2],
    /// Nanoseconds from the end of what ran before it to its own end.
    pub ns: f64,
}

/// Dispatches between two timestamps of one query set.
const PER_SET: usize = 4096;

impl Gpu {
    /// Replay recordings with a timestamp after each dispatch. Slower than [`Gpu::run`]: for measurements only.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the adapter has no timestamps inside passes.
    pub async fn profile(&mut self, step: &Step, recordings: &[&Prepared]) -> Result<Vec<Timing>> {
        let ops: Vec<_> = recordings.iter().flat_map(|r| &r.ops).filter(|op| !op.groups(step).contains(&0)).collect();
        let mut timings = Vec::with_capacity(ops.len());
        for ops in ops.chunks(PER_SET - 1) {
            let ticks = self.stamped(step, ops.len(), |pass, set, first| {
                for (i, op) in ops.iter().enumerate() {
                    op.dispatch(pass, step);
                    pass.write_timestamp(set, first + i as u32);
                }
            });
            for (op, ns) in ops.iter().zip(ticks.await?) {
                let (kernel, params) = (op.variant(), op.params().to_vec());
                timings.push(Timing { kernel, params, groups: op.groups(step), ns });
            }
        }
        Ok(timings)
    }

    /// Nanoseconds that a replay takes: between timestamps at its two ends where the adapter has them, else of a
    /// submission and the wait for it.
    pub async fn time(&mut self, step: &Step, recordings: &[&Prepared]) -> Result<f64> {
        if self.info().timestamps {
            let ticks = self.stamped(step, 1, |pass, set, first| {
                recordings.iter().flat_map(|r| &r.ops).for_each(|op| op.dispatch(pass, step));
                pass.write_timestamp(set, first);
            });
            return Ok(ticks.await?.first().copied().unwrap_or(0.0));
        }
        let begun = Instant::now();
        self.run(step, recordings, None).await?;
        self.flush().await?;
        Ok(begun.elapsed().as_nanos() as f64)
    }

    /// Nanoseconds of one of `repeats` copies from buffer to buffer, submission and wait shared among them.
    pub async fn time_copy(&mut self, from: Slice, to: Slice, repeats: u32) -> Result<f64> {
        let begun = Instant::now();
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..repeats {
            let (source, target) = (self.buffer(from.buf), self.buffer(to.buf));
            encoder.copy_buffer_to_buffer(source, from.offset, target, to.offset, from.len.min(to.len));
        }
        self.queue.submit([encoder.finish()]);
        self.counters.submits += 1;
        self.flush().await?;
        Ok(begun.elapsed().as_nanos() as f64 / f64::from(repeats))
    }

    /// Nanoseconds between the `count + 1` timestamps of a pass, the first of which stands at its beginning; `record` sets
    /// the others, from the given number on.
    async fn stamped(
        &mut self,
        step: &Step,
        count: usize,
        record: impl FnOnce(&mut wgpu::ComputePass<'_>, &wgpu::QuerySet, u32),
    ) -> Result<Vec<f64>> {
        if !self.info().timestamps {
            return Err(Error::Unsupported(format!("{} has no timestamps inside passes", self.info())));
        }
        let count = count as u32 + 1;
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
        let mut encoder = self.begin(Some(step));
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.write_timestamp(&set, 0);
            record(&mut pass, &set, 1);
        }
        encoder.resolve_query_set(&set, 0..count, &resolved, 0);
        let staging = self.readback.staging(&self.device, bytes, &mut self.counters);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
        self.queue.submit([encoder.finish()]);
        self.faults.check()?;
        let read = self.readback.map(&self.device, &staging, bytes, &self.faults).await?;
        self.readback.keep(staging);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&read);
        let period = f64::from(self.queue.get_timestamp_period());
        Ok(ticks.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period).collect())
    }
}
