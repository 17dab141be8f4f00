//! The parity harness: every kernel variant runs on an adapter and on its CPU twin with the same bytes, and every word of
//! every buffer is accounted for.
//!
//! A [`Case`] is one dispatch with its buffers. Outputs begin as NaN and say word by word what the kernel must write;
//! inputs are NaN wherever the kernel must not read; each buffer ends in slack and lies between guards. [`Runner::run`]
//! runs a case and [`check()`] judges it. [`MUTANTS`] are wrong kernels that the same checks must catch.

mod buffer;
mod case;
mod cases;
mod check;
mod image;
mod mutants;
mod params;
mod runner;
mod weights;

pub use buffer::{Buffer, Compare, Out, POISON, POISON_F16, UNREAD};
pub use case::{Case, Verify};
pub use cases::cases;
pub use check::{Failure, Report, check};
pub use image::{GUARD, Image};
pub use mutants::{MUTANTS, Mutant};
pub use params::{Layout, layouts, mismatch};
pub use runner::{Outcome, Runner, seed, test_adapters};
pub use weights::{packed, random_block};
