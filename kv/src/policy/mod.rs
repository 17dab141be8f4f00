//! What to keep, in which width, what to drop, and how to bring it back. Decisions only: the engine and the simulator carry
//! them out, with the same code.

mod budget;
mod features;
mod fit;
mod lctru;
mod manager;
mod planner;
mod tolerance;

pub use budget::{Budget, OverBudget};
pub use features::{Compression, Features, Policy};
pub use fit::LineFit;
pub use lctru::{ChunkKey, Lctru};
pub use manager::{ChunkBytes, Eviction, Manager, Return, Switch, TooLarge};
pub use planner::{Choice, MissingChunk, Rates, RestorePlan, Split, plan};
pub use tolerance::{ChunkTolerance, WidthErrors, choose_widths};

use crate::Width;

/// All widths, heaviest first.
pub const WIDTHS: [Width; 4] = [Width::W16, Width::W8, Width::W4, Width::W2];

/// Nominal bits of an element. Scales come on top and are counted in bytes, where the formats are known.
pub fn nominal_bits(width: Width) -> u32 {
    width.bits() as u32
}
