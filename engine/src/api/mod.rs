//! The public face: an engine with one resident model, contexts, answers.

mod answer;
mod call;
mod context;
mod density;
mod encode;
pub(crate) mod engine;
mod key_medians;
mod latency;
mod levels;
mod options;
mod plan;
mod ready;
mod requantise;
mod score;
mod tuning;

pub use answer::{Answer, Finish};
pub(crate) use call::Call;
pub use context::Context;
pub use engine::Engine;
pub(crate) use engine::yield_now;
pub use latency::Planner;
pub use levels::package_hash;
pub use options::{GenerateOptions, Options, Sampling};
pub use plan::{EncoderUse, Plan, Prompt, Stay, Wish};
pub use tuning::{Profiled, Rival};
