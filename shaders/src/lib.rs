//! Concertina's compute kernels: WGSL sources and their variants, the structs that parametrise them, the layout of
//! weights on the device, and a CPU twin for every kernel.
//!
//! The build validates every variant with naga and records its bindings ([`VARIANTS`]); nothing here talks to a GPU.
//! A kernel's twin has its name, takes the same params and the same buffers, and is what the kernel is tested against.

mod layout;
mod params;
pub mod preprocess;
mod table;
pub mod twins;

pub use layout::{PanelLayout, WeightFormat};
pub use params::*;
pub use table::{Binding, BindingKind, Member, Override, Role, SOURCES_HASH, VARIANTS, Variant, variant};
