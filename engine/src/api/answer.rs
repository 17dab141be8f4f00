//! What a call gives back.

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// The caller cancelled it.
    Cancelled,
}

/// An answer, and where it stands between context, accuracy and performance (CAP, arXiv 2405.11299).
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text, without the token that ended it.
    pub text: String,
    /// The generated tokens, the one that ended it included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens in the context before the answer: all of them are kept.
    pub context_tokens: usize,
    /// Of those, tokens that had to be prefilled by this call.
    pub prefill_tokens: usize,
    /// Size of the sub-model that answered, in percent.
    pub level: u32,
    /// Milliseconds from the call to the first token.
    pub ttft_ms: f64,
    /// Milliseconds a token after the first; 0 for answers of one token.
    pub tpot_ms: f64,
    /// Kernels were compiled while it was made, which these times contain and the next call's will not; see
    /// [`Engine::make_ready`](crate::Engine::make_ready).
    pub compiled: bool,
}
