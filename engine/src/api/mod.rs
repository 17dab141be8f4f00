//! The public face: an engine with one resident model, contexts, answers.

mod answer;
mod call;
mod context;
mod density;
mod encode;
mod engine;
mod levels;
mod options;
mod requantise;
mod score;
mod tuning;

pub use answer::{Answer, Finish};
pub(crate) use call::Call;
pub use context::Context;
pub use engine::Engine;
pub(crate) use engine::yield_now;
pub(crate) use levels::check_level;
pub use options::{GenerateOptions, Options, Sampling};
