//! The elastic model (ELMS / ElastiLM, arXiv 2409.09071): units in order of importance, and sub-models as prefixes of
//! them. Geometry only: no GPU, no weights.

mod container;
mod error;
pub mod heads;
mod order;
pub mod package;
pub mod prompt;
mod submodel;

pub use error::Error;
pub use order::{LayerOrder, LayerScores};
pub use submodel::{LayerShape, LayerUnits, SubModel};
