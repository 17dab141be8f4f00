//! An elastic LLM engine for one device, in WGSL compute shaders on any GPU through wgpu.
//!
//! ```no_run
//! use concertina::{Engine, GenerateOptions, Options};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> concertina::Result<()> {
//! let mut engine = pollster::block_on(Engine::open("model.gguf", Options::default()))?;
//! let mut context = engine.context()?;
//! let options = GenerateOptions::default();
//! let answer = engine.ask(&mut context, "Why is the sky blue?", &options, |_| ControlFlow::Continue(()));
//! println!("{}", pollster::block_on(answer)?.text);
//! # Ok(())
//! # }
//! ```

mod api;
mod backend;
mod cpu;
mod error;
mod forward;
mod gpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod record;
mod weights;

pub use api::{Answer, Context, Engine, Finish, GenerateOptions, Options, Sampling};
pub use backend::{Backend, BufferLimits, Counters, Prepared, Restrictions};
pub use concertina_elastic::{LayerShape, LayerUnits, SubModel};
pub use concertina_formats as formats;
pub use cpu::Cpu;
pub use error::{Error, Result};
pub use gpu::{AdapterInfo, Gpu, Timing, list_adapters};
