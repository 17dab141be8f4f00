//! Which variant of a kernel runs on a device.

use concertina_shaders::{Variant, WeightFormat, variant};

use crate::Backend;

/// The choice of variants for a device.
#[derive(Debug, Clone)]
pub struct Kernels {
    matvec: &'static str,
    subgroups: bool,
    /// Threads that fill the device; attention is split until it has them.
    pub threads: u32,
}

impl Kernels {
    /// Few wide cores want one thread an output feature and no barrier, many cores want the panels dealt out.
    pub fn for_backend(backend: &Backend) -> Self {
        let software = backend.is_software();
        Self {
            matvec: if software { "matvec" } else { "matvec_wide" },
            subgroups: backend.has_subgroups(),
            threads: if software { 256 } else { 16_384 },
        }
    }

    /// Matrix times a few vectors, or (`wide`) times a batch.
    pub fn matrix(&self, format: WeightFormat, wide: bool) -> &'static Variant {
        let kernel = if wide { "matmul" } else { self.matvec };
        self.best(&format!("{kernel}.{}", format.name()))
    }

    /// The variant with subgroups where there is one and the device runs it, else the plain one.
    pub fn best(&self, name: &str) -> &'static Variant {
        let plain = || variant(name).unwrap_or_else(|| panic!("no kernel {name}"));
        if !self.subgroups {
            return plain();
        }
        variant(&format!("{name}.subgroups")).unwrap_or_else(plain)
    }
}
