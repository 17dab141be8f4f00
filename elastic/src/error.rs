//! Why a file is refused.

/// Why a file of this crate's formats is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not a safetensors file, or a cut one.
    #[error("the {file} is no whole safetensors file: {problem}")]
    Container {
        /// Which format was expected: `package`, `heads file`.
        file: &'static str,
        /// What the container says.
        problem: String,
    },
    /// A part of it is missing or contradicts another.
    #[error("the {file}'s {field}: {problem}")]
    Malformed {
        /// Which format was expected: `package`, `heads file`.
        file: &'static str,
        /// Which part.
        field: String,
        /// What was found, and what was expected.
        problem: String,
    },
}
