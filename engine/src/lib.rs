//! An elastic LLM engine for one device, in WGSL compute shaders on any GPU through wgpu.

mod backend;
mod cpu;
mod error;
mod gpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod record;

pub use backend::{Backend, BufferLimits, Prepared};
pub use cpu::Cpu;
pub use error::{Error, Result};
pub use gpu::{AdapterInfo, Gpu, list_adapters};
