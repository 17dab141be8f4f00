//! Chunks of a context brought to narrower widths on request.

use concertina_kv::Width;

use super::{Context, Engine};
use crate::Result;
use crate::forward::JOBS;

impl Engine {
    /// Bring chunks of `context` to narrower widths: pairs of a chunk's number and its new width. Chunks that are that narrow
    /// already, or find no room, stay as they are, and so do those that are asked for a width which
    /// [`Options::kv_width`](crate::Options) does not provide for. One that is not full is widened again when it is continued.
    /// Returns how many changed.
    ///
    /// # Errors
    /// If the device fails; the context's keys and values are dropped then and computed anew when needed.
    pub async fn requantise(&mut self, context: &mut Context, widths: &[(usize, Width)]) -> Result<usize> {
        let generation = self.generation;
        let device = self.device().await?;
        if context.generation != generation {
            return Ok(0);
        }
        let known = device.forward.capacity().widths.clone();
        let wanted = |chunk: usize| widths.iter().find(|(c, w)| *c == chunk && known.contains(w)).map(|(_, w)| *w);
        let mut changed = 0;
        loop {
            let moves = context.begin_moves(JOBS, wanted);
            if moves.is_empty() {
                return Ok(changed);
            }
            changed += moves.len();
            let done = match device.forward.requantise(&mut device.backend, &moves).await {
                Ok(()) => device.write_moves(context, &moves),
                Err(e) => Err(e),
            };
            context.end_moves(&moves);
            if let Err(e) = done {
                context.drop_kv(0);
                return Err(e);
            }
        }
    }
}
