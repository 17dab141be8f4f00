//! The only place that names wgpu: adapters, the device, its buffers, and the replay of recordings.

mod adapter;
mod device;
mod fault;
mod inbox;
mod profile;
mod readback;
mod upload;
mod window;

pub use adapter::{AdapterInfo, list_adapters};
pub use device::{Gpu, Prepared};
pub use profile::Timing;
