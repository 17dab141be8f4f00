//! Helpers of the tests that run whole models.

mod compare;
mod contexts;
mod encoders;
mod models;
mod oracle;
mod process;
mod surgery;

pub use compare::{Deviation, max_abs, relative, top_index};
pub use contexts::{ask, by, greedy, serve, store};
pub use encoders::{Expected, encoder, expected, real_encoder, untrained_heads};
pub use models::{SMALL_ARCHS, data_model, ids, load, options, real_model, tiny};
pub use oracle::{Oracle, Prompt};
pub use process::{Memory, mapped, memory};
pub use surgery::{Units, cut_units, zero_elements, zero_rows};

use std::io::Write;

/// Print a line that the test harness does not capture: measured figures, and why a test is skipped.
pub fn note(text: impl std::fmt::Display) {
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
