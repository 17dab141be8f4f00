//! Contexts as 16-token KV chunks (LLMS, arXiv 2403.11805): how large a chunk is, where in the arena it lies, and
//! the table through which kernels find it; what to keep, drop and restore ([`policy`]); contexts on disk ([`store`]); and
//! days of calls in a moment ([`sim`]). No GPU, no file, no thread, no clock.

#![forbid(unsafe_code)]

mod arena;
mod geometry;
pub mod policy;
pub mod random;
pub mod sim;
mod slots;
pub mod store;
mod table;

pub use arena::{Arena, OutOfRoom};
pub use geometry::{CHUNK_TOKENS, KvGeometry, Width, Widths};
pub use slots::{OutOfSlots, SlotPool};
pub use table::{ChunkEntry, ChunkTable};
