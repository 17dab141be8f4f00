//! Errors of reading model files.

/// Why a model file was refused. Every message names the field and says what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends inside, or contradicts itself in, the named field.
    #[error("{field}: {problem}")]
    Malformed {
        /// Which field, as a path into the file, for example `tensor 'blk.0.attn_q.weight' offset`.
        field: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The file is well formed, but uses something that Concertina does not support.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The tokenizer could not be built or failed on a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template failed to parse or render.
    #[error("chat template: {0}")]
    Template(String),
    /// The source could not be read.
    #[error("reading the model: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// A [`Error::Malformed`] from a field and a problem.
    pub fn malformed(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Malformed { field: field.into(), problem: problem.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
