//! How attention spreads over the chunks of a context.

use super::engine::Device;
use super::{Context, Engine};
use crate::Result;

impl Engine {
    /// Each chunk's share of the attention of all tokens that were run on `context` with
    /// [`GenerateOptions::collect_density`](crate::GenerateOptions): its probability averaged over those tokens (rows),
    /// the sub-model's heads, and layers. One entry a chunk of 16 tokens; they add up to 1. A token that comes before a
    /// chunk gives it nothing, so early chunks gather more: divide by the share of rows at or past a chunk to get the
    /// density of LLMS (arXiv 2403.11805), which averages over the rows that can see it.
    ///
    /// Empty if nothing was collected, or if collected rows were dropped since: by [`Context::truncate`], by another
    /// level, or with a lost device.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn density(&mut self, context: &Context) -> Result<Vec<f32>> {
        let generation = self.generation;
        let device = self.device().await?;
        let (Some(sub), true) = (&context.written_by, context.generation == generation) else { return Ok(Vec::new()) };
        if context.density_rows == 0 {
            return Ok(Vec::new());
        }
        let first = device.first_entry(context);
        let chunks = context.table.entries().len();
        let shares = device.forward.density(&mut device.backend, first, chunks).await?;
        let times = context.density_rows as f32 * device.forward.heads(sub) as f32;
        Ok(shares.into_iter().map(|share| share / times).collect())
    }
}

impl Device {
    /// The entry of a context's first chunk in the tables.
    pub fn first_entry(&self, context: &Context) -> u32 {
        context.region() * self.forward.capacity().chunks() as u32
    }

    /// Before the first row that is collected: whatever the region held belongs to nobody.
    pub fn begin_density(&mut self, context: &Context) -> Result<()> {
        if context.density_rows > 0 {
            return Ok(());
        }
        let (first, chunks) = (self.first_entry(context), self.forward.capacity().chunks());
        self.forward.clear_density(&mut self.backend, first, chunks)
    }
}
