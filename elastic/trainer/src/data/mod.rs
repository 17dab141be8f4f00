//! Calibration and training text: where it comes from, and tokens cut from it.
//!
//! What measures a model later is never among it: questions come from train splits alone, and every tenth document of
//! each kind is held out for [`Split::HeldOut`].

mod archive;
mod catalogue;
mod questions;
mod texts;
mod windows;

pub use catalogue::{Package, fetch_all};
pub use questions::{Question, TASKS};
pub use texts::{Kind, Split, Text, read_all, read_questions};
pub use windows::{Windows, windows};
