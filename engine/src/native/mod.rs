//! What a browser replaces: files, threads, the environment. Nothing outside this folder names them.

mod file;
mod store;
mod tune_files;
mod worker;

pub use file::{MappedFile, blake3_of, open_encoder, open_heads, open_model};
pub use store::Directory;
pub use tune_files::TuneFiles;
pub use worker::Worker;

/// Value of an environment variable.
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
