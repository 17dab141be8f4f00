//! Giving back what a cut took: adapters fitted in closed form, then trained.

pub mod fit;
pub mod linalg;
pub mod package;
pub mod train;
