//! From bytes to a checked [`Model`].

use crate::{ByteSource, ChatTemplate, ModelSpec, ModelTensors, Result, Tokenizer};

/// A model file, understood and checked, its weights still where they were.
pub struct Model {
    /// Hyperparameters.
    pub spec: ModelSpec,
    /// Where each tensor lies.
    pub tensors: ModelTensors,
    /// The files that [`crate::TensorInfo::source`] counts.
    pub sources: Vec<Box<dyn ByteSource>>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How a conversation becomes a prompt; `None` when the file has no template (base models).
    pub chat: Option<ChatTemplate>,
}
