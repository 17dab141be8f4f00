//! The model in f32 on the processor, for gradients.

mod adapters;
mod forward;
mod trees;
mod weights;

pub use adapters::{Adapter, Adapters, LayerAdapters, repaired};
pub use forward::{Batch, Pass, Site};
pub use trees::{Asked, Branch, Tree};
pub use weights::{LayerNet, Net};
