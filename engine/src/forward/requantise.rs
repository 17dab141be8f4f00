//! Chunks that change their width on the device.

use bytemuck::cast_slice;
use concertina_kv::{ChunkEntry, Width};
use concertina_shaders::Step;

use super::{Forward, JOBS, layers};
use crate::record::Slice;
use crate::{Backend, Result};

/// A chunk that changes its width.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Its number in its context.
    pub chunk: usize,
    /// Its tokens. Behind them a page has what was there before, which is not copied.
    pub tokens: usize,
    /// Where it is.
    pub from: ChunkEntry,
    /// Where it goes.
    pub to: ChunkEntry,
}

impl Forward {
    /// Copy chunks of all layers from one place and width to another with the next batch, before its first layer. The
    /// tables are the caller's to write; the old places may be given away as soon as the batch was submitted.
    ///
    /// # Panics
    /// If there are more than `JOBS`, or a chunk becomes neither narrower nor as wide as the forward pass writes.
    pub fn requantise_with_next(&mut self, backend: &mut Backend, jobs: &[Job]) -> Result<()> {
        assert!(jobs.len() <= JOBS, "{} jobs", jobs.len());
        self.jobs = 0;
        if jobs.is_empty() {
            return Ok(());
        }
        let widths = &self.capacity.widths;
        let narrower = |from: Width, to: Width| to.is_quantised() && to > from && widths.contains(&to);
        let reopened = |from: Width, to: Width| from.is_quantised() && to == Width::W16;
        let known = |job: &Job| {
            let (from, to) = (job.from.width, job.to.width);
            narrower(from, to) || reopened(from, to)
        };
        assert!(jobs.iter().all(known), "{jobs:?}");
        if self.quant.is_none() {
            let recording = layers::requantise(&self.spec, &self.kernels, &self.buffers);
            self.quant = Some(backend.prepare(recording)?);
        }
        let word = |job: &Job| [job.from.word(), job.to.word(), job.chunk as u32, job.tokens as u32];
        let words: Vec<[u32; 4]> = jobs.iter().map(word).collect();
        let at = Slice { len: 16 * jobs.len() as u64, ..self.buffers.jobs };
        backend.stage(at, cast_slice(&words));
        self.jobs = jobs.len();
        Ok(())
    }

    /// Copy chunks now, in a submission of their own.
    ///
    /// # Panics
    /// As [`Forward::requantise_with_next`].
    pub async fn requantise(&mut self, backend: &mut Backend, jobs: &[Job]) -> Result<()> {
        for jobs in jobs.chunks(JOBS) {
            self.requantise_with_next(backend, jobs)?;
            let step = Step { jobs: std::mem::take(&mut self.jobs) as u32, ..Step::default() };
            let quant: Vec<_> = self.quant.iter().collect();
            backend.run(&step, &quant, None).await?;
        }
        Ok(())
    }
}
