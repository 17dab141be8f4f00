//! Latency targets: what a call asks for, what the device was measured to take, and which prompt level and model level meet
//! the one by the other (ElastiLM, arXiv 2409.09071, §3.3). Time goes in and out as numbers: nothing here has a clock.

mod decide;
mod drift;
mod profile;
mod target;

pub use decide::{Decision, Hints, MayGo, PROMPT_LEVELS, Pair, Request, Restriction, Ways, Words, decide};
pub use drift::{Drift, Kind};
pub use profile::{Curve, LevelCost, Profile, Profiled};
pub use target::{Class, Target};
