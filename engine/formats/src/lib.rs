//! What a model file says, checked before anything believes it.
//!
//! Reads GGUF files and Hugging Face safetensors directories into one [`Model`]: hyperparameters ([`ModelSpec`]),
//! where each tensor lies ([`TensorInfo`]), the tokenizer and the chat template. Nothing here knows a GPU, a thread or a
//! file system: bytes come through [`ByteSource`], which a browser can provide as well as an mmap can.
//!
//! Every offset, size, count and type is checked against the source's length; malformed input gives an [`Error`] that
//! names the field, never a panic, and nothing is allocated beyond a small constant times the source's size.

pub mod arch;
mod bert;
mod chat;
mod chat_vet;
pub mod dequant;
mod dtype;
mod error;
pub mod gguf;
mod load;
pub mod quant;
pub mod safetensors;
mod source;
mod spec;
mod table;
#[doc(hidden)]
pub mod testing;
mod tokenizer;

pub use bert::{Bert, BertLayer, BertPair, BertSpec, open_bert};
pub use chat::{ChatMessage, ChatTemplate};
pub use dtype::DType;
pub use error::{Error, Result};
pub use load::{Model, open_gguf, open_safetensors};
pub use source::{ByteSource, MemorySource};
pub use spec::{Activation, LayerSpec, LayerTensors, ModelSpec, ModelTensors, RopeSpec, RopeStyle, TensorInfo};
pub use table::StoredTensor;
pub use tokenizer::{StreamState, TokenStream, Tokenizer};
