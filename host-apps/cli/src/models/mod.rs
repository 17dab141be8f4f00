//! Which models there are, where they lie, and how a name becomes a file.

pub mod cache;
pub mod catalogue;
pub mod resolve;
