//! Which variant of a kernel runs on a device.

use concertina_shaders::{VARIANTS, Variant, WeightFormat, variant};

use crate::Backend;

/// The choice of variants for a device.
#[derive(Debug, Clone)]
pub struct Kernels {
    /// The kernel for a matrix times a row or two.
    narrow: &'static str,
    /// What the device runs.
    runs: Vec<&'static Variant>,
    /// Keys and values are kept as f32.
    exact: bool,
    /// Threads that fill the device; attention is split until it has them.
    pub threads: u32,
}

impl Kernels {
    /// Few wide cores want one thread a few output features and no barrier, many cores want the panels dealt out.
    pub fn for_backend(backend: &Backend, exact: bool) -> Self {
        let software = backend.is_software();
        Self {
            narrow: if software { "matvec" } else { "matvec_wide" },
            exact,
            runs: VARIANTS.iter().filter(|v| backend.runs(v)).collect(),
            threads: if software { 256 } else { 16_384 },
        }
    }

    /// Matrix times a few vectors, or (`wide`) times a batch.
    pub fn matrix(&self, format: WeightFormat, wide: bool) -> &'static Variant {
        let kernel = if wide { "matmul" } else { self.narrow };
        self.best(&format!("{kernel}.{}", format.name()))
    }

    /// The variant for f32 pages where there is one and they are kept, that with subgroups where there is one and the device
    /// runs it, else the plain one.
    pub fn best(&self, name: &str) -> &'static Variant {
        if let Some(exact) = variant(&format!("{name}.kv32")).filter(|_| self.exact) {
            return exact;
        }
        let plain = || variant(name).unwrap_or_else(|| panic!("no kernel {name}"));
        variant(&format!("{name}.subgroups")).filter(|v| self.has(v)).unwrap_or_else(plain)
    }

    fn has(&self, variant: &Variant) -> bool {
        self.runs.iter().any(|v| std::ptr::eq(*v, variant))
    }
}
