//! An elastic LLM engine for one device, in WGSL compute shaders on any GPU through wgpu.
//!
//! Open a model, open a context, ask:
//!
//! ```
//! use concertina::{Engine, GenerateOptions, Options};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A model of a few kilobytes, so that the example runs where it is tested.
//! # let folder = std::env::temp_dir().join(format!("concertina-example-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # std::fs::write(folder.join("model.gguf"), concertina::formats::testing::TinyModel::new("llama").gguf())?;
//! # std::env::set_current_dir(&folder)?;
//! let mut engine = pollster::block_on(Engine::open("model.gguf", Options::default()))?;
//! let mut context = engine.context()?;
//! let options = GenerateOptions { max_tokens: 8, ..Default::default() };
//! let answer = engine.ask(&mut context, "Why is the sky blue?", &options, |_| ControlFlow::Continue(()));
//! println!("{}", pollster::block_on(answer)?.text);
//! # assert!(context.tokens().len() > 8);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```
//!
//! Calls are futures: nothing in the engine blocks. [`Engine`] holds one model on one device, [`Context`] the tokens of a
//! conversation with their keys and values, [`Answer`] what came of a call and what it cost. After a lost device
//! ([`Error::DeviceLost`]) the next call opens a new one; contexts keep their tokens.

mod adapters;
mod api;
mod backend;
mod cost;
mod cpu;
mod encoder;
mod error;
mod forward;
mod gpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod record;
mod roofline;
pub mod service;
pub mod tune;
mod weights;

pub use api::{
    Answer, Context, EncoderUse, Engine, Finish, GenerateOptions, Options, Plan, Planner, Profiled, Prompt, Rival,
    Sampling, Stay, Wish, package_hash,
};
pub use backend::{Backend, BufferLimits, Counters, Prepared, Restrictions};
pub use concertina_elastic as elastic;
pub use concertina_elastic::{LayerShape, LayerUnits, SubModel};
pub use concertina_formats as formats;
pub use concertina_kv as kv;
pub use concertina_kv::Width;
pub use concertina_shaders as shaders;
pub use cost::Dispatch;
pub use cpu::Cpu;
pub use encoder::{Decision, Encoded, Target};
pub use error::{Error, Result};
pub use forward::WeightBytes;
pub use gpu::{AdapterInfo, Gpu, Timing, list_adapters};
pub use roofline::{Ceilings, ceilings};
