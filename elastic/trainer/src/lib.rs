//! Offline: from a model to its elastic package.
//!
//! Gradients on calibration text order the units of a model by importance; a search decides what each level keeps; small
//! adapters are fitted and trained to give back what a cut took. Nothing here runs when a model answers.

pub mod anchors;
pub mod compare;
pub mod data;
pub mod elasticize;
pub mod evaluate;
pub mod exam;
pub mod file;
pub mod further;
pub mod golden;
pub mod halves;
pub mod heads;
pub mod importance;
pub mod levels;
pub mod minilm;
pub mod net;
pub mod ops;
pub mod optimise;
mod permute;
pub mod random;
mod records;
pub mod recover;
pub mod rewrite;
pub mod stats;
pub mod teacher;
pub mod watch;
pub mod workshop;
