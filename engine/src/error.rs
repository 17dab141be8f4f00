//! Errors of the engine.

/// What went wrong. A lost device and exhausted memory are values: the next call works on a new device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file was refused.
    #[error(transparent)]
    Format(#[from] concertina_formats::Error),
    /// No adapter, or not the one asked for.
    #[error("{0}")]
    NoAdapter(String),
    /// The device went away (driver reset, unplugged, destroyed).
    #[error("the GPU device was lost: {0}; the next call opens a new one")]
    DeviceLost(String),
    /// Not enough memory on the device.
    #[error("out of GPU memory: {0}")]
    OutOfMemory(String),
    /// The driver or wgpu refused an operation: an error of this program.
    #[error("GPU: {0}")]
    Gpu(String),
    /// The model cannot run here.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A request that makes no sense, with what to change.
    #[error("{0}")]
    Invalid(String),
    /// A context has no room for what was asked.
    #[error(
        "the context is full: {tokens} tokens asked for, {limit} fit; start a new context or raise the context length"
    )]
    ContextFull {
        /// Tokens that the request needs.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// All KV memory is in use by other contexts.
    #[error("out of KV memory: {0}")]
    KvFull(#[from] concertina_kv::OutOfRoom),
    /// The context that runs does not fit the budget of KV memory.
    #[error("out of KV memory: {0}; raise the budget or unpin contexts")]
    OverBudget(#[from] concertina_kv::policy::TooLarge),
    /// The store of contexts refused or failed.
    #[error("contexts on disk: {0}")]
    Store(#[from] concertina_kv::store::Error),
    /// An app has as many contexts as it may.
    #[error("this app has {limit} contexts already: delete one, or raise the limit")]
    TooManyContexts {
        /// Contexts that an app may have.
        limit: usize,
    },
    /// A file that makes a model elastic was refused.
    #[error(transparent)]
    Elastic(#[from] concertina_elastic::Error),
    /// A file could not be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Result of the engine.
pub type Result<T> = std::result::Result<T, Error>;
