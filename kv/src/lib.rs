//! Contexts as 16-token KV chunks (LLMS, arXiv 2403.11805): how large a chunk is, which slot of which pool holds it, and
//! the table through which kernels find it. Policy only: no GPU, no file, no clock.

#![forbid(unsafe_code)]

mod geometry;
pub mod policy;
pub mod random;
pub mod sim;
mod slots;
pub mod store;
mod table;

pub use geometry::{CHUNK_TOKENS, KvGeometry, Width};
pub use slots::{OutOfSlots, SlotPool};
pub use table::{ChunkEntry, ChunkTable};
