//! What the system's tests share: models to run, an oracle to compare with, ways to break a model on purpose.

pub mod system;
