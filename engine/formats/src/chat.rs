//! Chat templates: the Jinja text that a model file carries, rendered with a bound on work.

use crate::Result;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A parsed chat template.
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Parse the template's source. `bos` and `eos` are the texts of those tokens, which templates name.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let _ = (source, bos, eos);
        Ok(Self {})
    }

    /// The prompt for a conversation; with `open_answer` it ends where the assistant's answer begins.
    pub fn render(&self, messages: &[ChatMessage], open_answer: bool) -> Result<String> {
        let _ = (messages, open_answer);
        Err(crate::Error::Unsupported("templates".into()))
    }
}
