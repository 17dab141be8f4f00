//! The public face: an engine with one resident model, contexts, answers.

mod answer;
mod context;
mod density;
mod engine;
mod levels;
mod options;
mod requantise;
mod score;
mod tuning;

pub use answer::{Answer, Finish};
pub use context::Context;
pub use engine::Engine;
pub use options::{GenerateOptions, Options, Sampling};
