//! What the tests of the whole system share: the parity harness for kernels; models to run, an oracle to compare with,
//! ways to break a model on purpose.

pub mod parity;
pub mod system;
