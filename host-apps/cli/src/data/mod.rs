//! Files that `eval` reads and writes, and the statistics it reports. Nothing here needs a GPU.
#![allow(dead_code, reason = "called by `eval` once the engine is merged")]

pub mod choices;
pub mod npy;
pub mod stats;
pub mod tokens;
