//! Kernels made ready before a call's clock runs: pipelines are compiled when they are first used, which can take longer than
//! the call itself.

use concertina_kv::Widths;
use web_time::Instant;

use super::engine::Device;
use super::{Context, Engine};
use crate::Result;
use crate::forward::{BatchRow, OutRow, Pass, Tail};
use crate::tune::Family;

/// What a batch was run with: level, family of kernels, whether it had several rows, widths of pages, whether a token was
/// sampled. A second batch alike compiles nothing.
pub(crate) type Warm = (u32, Family, bool, Widths, bool);

impl Device {
    /// A batch was run.
    pub fn ran(&mut self, level: u32, rows: usize, widths: Widths, samples: bool) {
        self.warm.insert(self.alike(level, rows, widths, samples));
    }

    fn alike(&self, level: u32, rows: usize, widths: Widths, samples: bool) -> Warm {
        (level, self.forward.table().family(rows), rows > 1, widths, samples)
    }
}

impl Engine {
    /// Compile what a call needs that appends `tokens` tokens to `context` at `level`, by running rows that nobody reads.
    /// Returns the milliseconds that it took: 0 where all is ready. The context stays as it is.
    ///
    /// It is done as well as it can be: without room for a chunk of scratch the call itself compiles, and its
    /// [`Answer`](crate::Answer) says so.
    ///
    /// # Errors
    /// If the level is not between 1 and 100, or the device fails.
    pub async fn make_ready(&mut self, context: &mut Context, level: u32, tokens: usize, piece: usize) -> Result<f64> {
        let widths = context.table.widths();
        let density = context.density_rows > 0;
        // Its part of the tables is lent to the scratch.
        context.park();
        let made = self.ready_for(level, tokens, piece, widths, density).await;
        context.unpark()?;
        made
    }

    /// As [`Engine::make_ready`], for contexts whose chunks have `widths` beside the one that is written.
    pub(crate) async fn ready_for(
        &mut self,
        level: u32,
        tokens: usize,
        piece: usize,
        widths: Widths,
        density: bool,
    ) -> Result<f64> {
        let start = Instant::now();
        let level = self.level_run(level)?;
        let device = self.device().await?;
        let capacity = device.forward.capacity();
        let most = if piece == 0 { capacity.rows } else { piece.min(capacity.rows) };
        let widths: Widths = widths.iter().chain([capacity.widths[0]]).collect();
        // Rows of the pieces: full ones, what is left, which gives the first token, and the tokens after it.
        let full = (tokens > most).then_some((most, false));
        let rest = tokens.saturating_sub(1) % most + 1;
        let last = device.piece_of(rest, most);
        let pieces = [full, Some((last, last == rest)), Some((1, true))];
        let mut wanted: Vec<(usize, bool)> = Vec::new();
        for (rows, samples) in pieces.into_iter().flatten() {
            let key = device.alike(level, rows, widths, samples);
            // As few as compile the same.
            let alike = |n: &usize| device.alike(level, *n, widths, samples) == key;
            let least = (1..=rows).find(alike).unwrap_or(rows);
            if !device.warm.contains(&key) && !wanted.contains(&(least, samples)) {
                wanted.push((least, samples));
            }
        }
        if wanted.is_empty() {
            return Ok(0.0);
        }
        let Ok(mut scratch) = self.context() else { return Ok(0.0) };
        let longest = wanted.iter().map(|(rows, _)| *rows).max().unwrap_or(1);
        if scratch.grow(longest).is_err() {
            return Ok(0.0);
        }
        let sampler = super::Sampling::greedy().sampler()?;
        let device = self.device().await?;
        let (base, region) = (device.first_entry(&scratch), scratch.region());
        device.forward.set_sampler(&mut device.backend, region, &sampler, &[])?;
        device.forward.set_table(&mut device.backend, base, &scratch.table.words(0));
        for (rows, samples) in wanted {
            let row = |position| BatchRow { token: Some(0), position, table: base };
            let batch: Vec<BatchRow> = (0..rows as u32).map(row).collect();
            let out = OutRow { row: 0, sampler: region, wanted: 0, feed: u32::MAX };
            let (outs, tail) = if samples { (vec![out], Tail::Sample) } else { (Vec::new(), Tail::None) };
            // A single row, as here and as behind a longer context.
            for together in [false, true].into_iter().take(if rows == 1 { 2 } else { 1 }) {
                let pass = Pass { level, density, widths, together };
                device.forward.run(&mut device.backend, pass, &batch, &outs, tail).await?;
            }
            device.ran(level, rows, widths, samples);
        }
        device.backend.flush().await?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}
