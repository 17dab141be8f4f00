//! Files that `eval` reads and writes, and the statistics it reports. Nothing here needs a GPU.

pub mod choices;
pub mod npy;
pub mod stats;
pub mod tokens;
