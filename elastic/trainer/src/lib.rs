//! Offline: from a model to its elastic package.
//!
//! Gradients on calibration text order the units of a model by importance; a search decides what each level keeps; small
//! adapters are fitted and trained to give back what a cut took. Nothing here runs when a model answers.

pub mod file;
pub mod net;
pub mod ops;
