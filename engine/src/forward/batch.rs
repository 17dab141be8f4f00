//! One replay: what is written before it, which recordings run, what is read after it.

use bytemuck::cast_slice;
use concertina_kv::{CHUNK_TOKENS, Widths};
use concertina_shaders::{Sampler, Step};

use super::Forward;
use super::buffers::RECENT;
use crate::cost::Load;
use crate::record::Slice;
use crate::{Backend, Result, Timing};

/// One token of one context.
#[derive(Debug, Clone, Copy)]
pub struct BatchRow {
    /// The token, or `None` where the last replay's sampling left it on the device.
    pub token: Option<u32>,
    /// Its position in its context.
    pub position: u32,
    /// First entry of its context's chunk table.
    pub table: u32,
}

/// How a batch is run.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// The sub-model.
    pub level: u32,
    /// Collect the chunks' shares of attention.
    pub density: bool,
    /// Widths of the chunks that the rows' contexts have, the ones that are written to included.
    pub widths: Widths,
    /// Attention goes as in a batch of several rows of a context: to make that ready.
    pub together: bool,
}

/// A row that gets logits.
#[derive(Debug, Clone, Copy)]
pub struct OutRow {
    /// Row of the batch.
    pub row: u32,
    /// Sampler of its context.
    pub sampler: u32,
    /// Token whose likelihood is wanted.
    pub wanted: u32,
    /// Row of the next batch that gets the sampled token, or `u32::MAX`.
    pub feed: u32,
}

/// What happens after the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: keys and values are all that is wanted.
    None,
    /// Logits, read back: `out_rows × vocab` f32.
    Logits,
    /// A sampled token a row, read back: `out_rows` u32.
    Sample,
    /// Likelihood of the wanted token a row, read back: `out_rows` f32.
    Nll,
}

impl Forward {
    /// Run `rows` through the layers and then `outs` through the tail. Returns the tail's bytes.
    ///
    /// # Panics
    /// If the batch is larger than the capacity; rows of one context must lie together, in order.
    pub async fn run(
        &mut self,
        backend: &mut Backend,
        pass: Pass,
        rows: &[BatchRow],
        outs: &[OutRow],
        tail: Tail,
    ) -> Result<Vec<u8>> {
        assert!(!rows.is_empty() && rows.len() <= self.capacity.rows, "{} rows", rows.len());
        let key = self.ready(backend, pass.level, rows.len(), pass.widths)?;
        self.write_rows(backend, rows);
        let mut step = self.step(rows);
        step.density = u32::from(pass.density);
        step.apart &= u32::from(!pass.together);
        step.jobs = std::mem::take(&mut self.jobs) as u32;
        let quant = self.quant.as_ref().filter(|_| step.jobs > 0);
        if tail == Tail::None || outs.is_empty() {
            let recordings: Vec<_> = quant.into_iter().chain([&self.layers[&key]]).collect();
            return backend.run(&step, &recordings, None).await;
        }
        let mut out = Vec::new();
        for (i, outs) in outs.chunks(self.capacity.out_rows).enumerate() {
            let of_head = self.kernels.family(outs.len());
            self.ready_head(backend, of_head)?;
            self.write_outs(backend, outs);
            step.out_rows = outs.len() as u32;
            let n = outs.len() as u64;
            let (last, read) = match tail {
                Tail::None | Tail::Logits => (None, self.buffers.logits.prefix(n * 4 * self.spec.vocab as u64)),
                Tail::Sample => (Some(&self.sample), self.buffers.sampled.prefix(n * 4)),
                Tail::Nll => (Some(&self.nll), self.buffers.nll.prefix(n * 4)),
            };
            let layers = (i == 0).then(|| &self.layers[&key]);
            let quant = self.quant.as_ref().filter(|_| i == 0 && step.jobs > 0);
            let recordings: Vec<_> =
                quant.into_iter().chain(layers).chain([&self.head[&of_head]]).chain(last).collect();
            out.extend(backend.run(&step, &recordings, Some(read)).await?);
        }
        Ok(out)
    }

    /// GPU time of each dispatch of a batch, layers, head, and sampling of its last row, and nanoseconds of them all without the
    /// timestamps between them.
    pub async fn profile(
        &mut self,
        backend: &mut Backend,
        level: u32,
        rows: &[BatchRow],
        widths: Widths,
    ) -> Result<(Vec<Timing>, f64, Load)> {
        let of_head = self.kernels.family(1);
        let key = self.ready(backend, level, rows.len(), widths)?;
        self.ready_head(backend, of_head)?;
        self.write_rows(backend, rows);
        let out = OutRow { row: rows.len() as u32 - 1, sampler: 0, wanted: 0, feed: u32::MAX };
        self.write_outs(backend, &[out]);
        let mut step = self.step(rows);
        step.out_rows = 1;
        let recordings = [&self.layers[&key], &self.head[&of_head], &self.sample];
        let timings = backend.profile(&step, &recordings).await?;
        let whole_ns = backend.time(&step, &recordings).await?;
        Ok((timings, whole_ns, Load { step, positions: rows.iter().map(|row| row.position).collect() }))
    }

    /// Set how a context samples, and the tokens that its repetition penalty looks back on: `history` ends at the token
    /// before the next one to be sampled.
    pub fn set_sampler(
        &mut self,
        backend: &mut Backend,
        sampler: u32,
        settings: &Sampler,
        history: &[u32],
    ) -> Result<()> {
        backend.write(part(self.buffers.samplers, sampler, size_of::<Sampler>()), bytemuck::bytes_of(settings))?;
        let mut ring = [u32::MAX; RECENT as usize];
        let skip = history.len().saturating_sub(RECENT as usize);
        for (position, token) in history.iter().enumerate().skip(skip) {
            ring[position % RECENT as usize] = *token;
        }
        backend.write(part(self.buffers.recent, sampler, 4 * RECENT as usize), cast_slice(&ring))
    }

    /// Write chunk table entries from entry `first` on.
    pub fn set_table(&mut self, backend: &mut Backend, first: u32, entries: &[u32]) {
        let offset = self.buffers.tables.offset + 4 * u64::from(first);
        let len = 4 * entries.len() as u64;
        backend.stage(Slice { offset, len, ..self.buffers.tables }, cast_slice(entries));
    }

    /// Set the collected shares of `count` chunks to zero.
    pub fn clear_density(&mut self, backend: &mut Backend, first: u32, count: usize) -> Result<()> {
        let zeros = vec![0u32; count];
        let offset = self.buffers.density.offset + 4 * u64::from(first);
        backend.write(Slice { offset, len: 4 * count as u64, ..self.buffers.density }, cast_slice(&zeros))
    }

    /// The collected shares of chunks: summed over rows, heads and layers since the last clearing.
    pub async fn density(&mut self, backend: &mut Backend, first: u32, count: usize) -> Result<Vec<f32>> {
        let offset = self.buffers.density.offset + 4 * u64::from(first);
        let bytes = backend.read(Slice { offset, len: 4 * count as u64, ..self.buffers.density }).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    pub(super) fn write_rows(&mut self, backend: &mut Backend, rows: &[BatchRow]) {
        // Runs of rows whose tokens the host knows; the others' lie on the device.
        let mut first = 0;
        for run in rows.chunk_by(|a, b| a.token.is_some() == b.token.is_some()) {
            let tokens: Vec<u32> = run.iter().filter_map(|row| row.token).collect();
            let offset = self.buffers.tokens.offset + 4 * first as u64;
            if !tokens.is_empty() {
                let at = Slice { offset, len: 4 * tokens.len() as u64, ..self.buffers.tokens };
                backend.stage(at, cast_slice(&tokens));
            }
            first += run.len();
        }
        let places: Vec<[u32; 4]> = rows.iter().map(|row| [row.position, row.table, 0, 0]).collect();
        backend.stage(self.buffers.rows, cast_slice(&places));
        // Angles in f64 on the host: sine and cosine of large arguments are poor on many GPUs.
        for (i, inv_freq) in self.inv_freq.iter().enumerate() {
            let angles: Vec<[f32; 2]> = rows
                .iter()
                .flat_map(|row| inv_freq.iter().map(|f| f * f64::from(row.position)))
                .map(|angle| [angle.cos() as f32, angle.sin() as f32])
                .collect();
            let stride = (self.capacity.rows * self.spec.head_dim * 4) as u64;
            let at = Slice { offset: self.buffers.rope.offset + i as u64 * stride, len: stride, ..self.buffers.rope };
            backend.stage(at, cast_slice(&angles));
        }
    }

    fn write_outs(&mut self, backend: &mut Backend, outs: &[OutRow]) {
        let words: Vec<[u32; 4]> = outs.iter().map(|o| [o.row, o.sampler, o.wanted, o.feed]).collect();
        backend.stage(self.buffers.outs, cast_slice(&words));
    }

    /// Splits: enough workgroups to fill the device, within the room for partial results.
    pub(super) fn step(&self, rows: &[BatchRow]) -> Step {
        let chunks = rows.iter().map(|row| row.position as usize / CHUNK_TOKENS + 1).max().unwrap_or(1);
        let one = rows.iter().all(|row| row.table == rows[0].table);
        let span = if one { rows.len() } else { 1 };
        let (groups, per_group) = (self.spec.n_groups, self.spec.n_heads / self.spec.n_groups);
        let tasks = groups * (span * per_group).div_ceil(4) * (rows.len() / span);
        let whole = chunks <= self.kernels.whole_chunks;
        let want = if whole { 1 } else { (self.kernels.tasks as usize).div_ceil(tasks) };
        let mut tables: Vec<u32> = rows.iter().map(|row| row.table).collect();
        tables.sort_unstable();
        tables.dedup();
        let room = self.capacity.row_splits() / rows.len();
        let splits = want.min(room).clamp(1, chunks);
        let per_split = chunks.div_ceil(splits);
        Step {
            rows: rows.len() as u32,
            splits: chunks.div_ceil(per_split) as u32,
            chunks_per_split: per_split as u32,
            batch_chunks: chunks as u32,
            span: span as u32,
            apart: u32::from(whole && tables.len() == rows.len()),
            ..Default::default()
        }
    }
}

fn part(all: Slice, index: u32, bytes: usize) -> Slice {
    Slice { offset: all.offset + u64::from(index) * bytes as u64, len: bytes as u64, ..all }
}
