//! MiniLM (Wang et al., arXiv 2002.10957), a small BERT: the encoder that prompts are read with.

mod bottom;
mod layer;
mod pieces;

pub use bottom::MiniLm;
pub use layer::{Dense, Layer, Norm};
pub use pieces::{Pieces, Read, WINDOW};
