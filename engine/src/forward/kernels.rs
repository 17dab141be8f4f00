//! Which variant of a kernel runs on a device.

use concertina_shaders::{VARIANTS, Variant, variant};

use crate::Backend;
use crate::tune::{Family, Shape, Table, Wanted};

/// The choice of variants for a device.
#[derive(Debug, Clone)]
pub struct Kernels {
    /// The kernel for a matrix times a row or two, where nothing was measured.
    narrow: &'static str,
    /// That for a matrix times more rows.
    wide: &'static str,
    /// What was measured.
    table: Table,
    /// What was asked for by name.
    wanted: Wanted,
    /// What the device runs.
    runs: Vec<&'static Variant>,
    /// Keys and values are kept as f32.
    exact: bool,
    /// Threads that fill the device; attention is split until it has them.
    pub threads: u32,
}

impl Kernels {
    /// What was measured, and without it: few wide cores want one thread a few output features and no barrier, many cores
    /// want the panels dealt out, or tiles in workgroup memory.
    pub fn for_backend(backend: &Backend, exact: bool, table: Table) -> Self {
        let software = backend.is_software();
        Self {
            narrow: if software { "matvec" } else { "matvec_wide" },
            wide: if software { "matmul" } else { "matmul_tile" },
            table,
            wanted: Wanted::by_environment(),
            exact,
            runs: VARIANTS.iter().filter(|v| backend.runs(v)).collect(),
            threads: if software { 256 } else { 16_384 },
        }
    }

    /// What was measured; without choices where nothing was.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The family of a batch of so many rows.
    pub fn family(&self, rows: usize) -> Family {
        self.table.family(rows)
    }

    /// A matrix times a batch of that family.
    pub fn matrix(&self, shape: Shape, family: Family) -> &'static Variant {
        let allowed = |v: &&'static Variant| self.has(v) && (!self.exact || v.exact());
        let runs = self.runs.iter().copied().filter(|v| allowed(v));
        if let Some(wanted) = self.wanted.pick(runs, &shape, family) {
            return wanted;
        }
        if let Some(measured) = self.table.pick(&shape, family).map(|choice| choice.variant).filter(allowed) {
            return measured;
        }
        let kernel = if family == Family::Narrow { self.narrow } else { self.wide };
        self.best(&format!("{kernel}.{}", shape.format.name()))
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
