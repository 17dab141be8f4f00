//! One file for each command: its arguments, its help, its body.

pub mod bench;
pub mod chat;
pub mod doctor;
pub mod eval;
pub mod list;
pub mod pull;
pub mod run;
pub mod sampling;

use anyhow::{Result, bail};

/// The body of the commands that are filled in when the engine is merged.
fn needs_engine(command: &str) -> Result<()> {
    bail!("`concertina {command}` needs the engine, which this build does not have")
}
