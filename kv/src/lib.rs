//! Contexts as 16-token KV chunks (LLMS, arXiv 2403.11805): how large a chunk is, where in the arena it lies, and
//! the table through which kernels find it. Policy only: no GPU, no file, no clock.

mod arena;
mod geometry;
mod slots;
mod table;

pub use arena::{Arena, OutOfRoom};
pub use geometry::{CHUNK_TOKENS, KvGeometry, Width};
pub use slots::{OutOfSlots, SlotPool};
pub use table::{ChunkEntry, ChunkTable};
