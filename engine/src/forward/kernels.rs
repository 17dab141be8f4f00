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
    /// Bits of the pages that there may be.
    bits: Vec<usize>,
    /// Workgroups that fill the device; attention is split until it has them.
    pub tasks: u32,
}

impl Kernels {
    /// Few wide cores want one thread a few output features and no barrier, many cores want the panels dealt out.
    pub fn for_backend(backend: &Backend, bits: Vec<usize>) -> Self {
        let software = backend.is_software();
        Self {
            narrow: if software { "matvec" } else { "matvec_wide" },
            bits,
            runs: VARIANTS.iter().filter(|v| backend.runs(v)).collect(),
            tasks: if software { 24 } else { 512 },
        }
    }

    /// Matrix times a few vectors, or (`wide`) times a batch.
    pub fn matrix(&self, format: WeightFormat, wide: bool) -> &'static Variant {
        let kernel = if wide { "matmul" } else { self.narrow };
        self.best(&format!("{kernel}.{}", format.name()))
    }

    /// The variant with subgroups where there is one and the device runs it, else the plain one.
    pub fn best(&self, name: &str) -> &'static Variant {
        let plain = || variant(name).unwrap_or_else(|| panic!("no kernel {name}"));
        variant(&format!("{name}.subgroups")).filter(|v| self.has(v)).unwrap_or_else(plain)
    }

    /// Attention, over all widths that there may be: one dispatch, or one for each.
    pub fn attention(&self, head_dim: usize) -> Vec<&'static Variant> {
        let size = if head_dim <= 64 { ".d64" } else { "" };
        let of = |bits: &usize| variant(&format!("attn_split.subgroups.kv{bits}{size}")).filter(|v| self.has(v));
        self.bits.iter().map(of).collect::<Option<_>>().unwrap_or_else(|| vec![self.best("attn_split")])
    }

    fn has(&self, variant: &Variant) -> bool {
        self.runs.iter().any(|v| std::ptr::eq(*v, variant))
    }
}
