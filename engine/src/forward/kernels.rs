//! Which variant of a kernel runs on a device.

use concertina_kv::Widths;
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
    /// No kernel rounds activations.
    exact: bool,
    /// Widths of the pages that there may be.
    widths: Widths,
    /// Workgroups that fill the device; attention is split until it has them.
    pub tasks: u32,
    /// Chunks up to which attention is not split: merging costs more.
    pub whole_chunks: usize,
}

impl Kernels {
    /// What was measured, and without it: few wide cores want one thread a few output features and no barrier, many cores
    /// want the panels dealt out, or tiles in workgroup memory. `widths`: of the pages that there may be.
    pub fn for_backend(backend: &Backend, exact: bool, widths: Widths, table: Table) -> Self {
        let software = backend.is_software();
        Self {
            narrow: if software { "matvec" } else { "matvec_wide" },
            wide: if software { "matmul" } else { "matmul_tile" },
            table,
            wanted: Wanted::by_environment(),
            exact,
            widths,
            runs: VARIANTS.iter().filter(|v| backend.runs(v)).collect(),
            tasks: if software { 24 } else { 512 },
            whole_chunks: if software { 24 } else { 2 },
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

    /// Most rows of a batch of the family for a row or so.
    pub fn narrow_rows(&self) -> usize {
        (1..).take_while(|rows| self.family(*rows) == Family::Narrow).take(64).last().unwrap_or(1)
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
        // A few hundred features are too few for large workgroups.
        let tile = if kernel == "matvec" && shape.n < 1024 { ".t8" } else { "" };
        self.tiled(&format!("{kernel}.{}", shape.format.name()), tile)
    }

    /// The kernel that does what `variant` does, and adds what an adapter beside the matrix makes of x.
    pub fn adapted(&self, variant: &Variant) -> Option<&'static Variant> {
        let format = variant.format.filter(|_| variant.kernel == "matvec")?;
        Some(self.best(&format!("matvec_adapted.{}", format.name())))
    }

    /// The variant with subgroups where there is one and the device runs it, else the plain one.
    pub fn best(&self, name: &str) -> &'static Variant {
        self.tiled(name, "")
    }

    fn tiled(&self, name: &str, tile: &str) -> &'static Variant {
        let plain = || variant(&format!("{name}{tile}")).unwrap_or_else(|| panic!("no kernel {name}{tile}"));
        variant(&format!("{name}.subgroups{tile}")).filter(|v| self.has(v)).unwrap_or_else(plain)
    }

    /// Rotary embedding with a transform in blocks of so many dimensions: eight lanes hold 64.
    pub fn rope_kv(&self, rotate: u32) -> &'static Variant {
        if rotate > 64 { variant("rope_kv").expect("in the table") } else { self.best("rope_kv") }
    }

    /// Attention over pages of these widths, lane by lane for small heads on adapters that take them so.
    pub fn attention(&self, head_dim: usize, widths: Widths) -> &'static Variant {
        let lanes = if self.lanes(head_dim) { self.reading("attn_split", widths) } else { None };
        lanes.unwrap_or_else(|| self.best("attn_split"))
    }

    /// What does the rotary embedding and attention of single tokens in one dispatch, over pages of these widths.
    pub fn attn_token(&self, head_dim: usize, widths: Widths) -> Option<&'static Variant> {
        if self.lanes(head_dim) { self.reading("attn_token", widths) } else { None }
    }

    /// The variant of a kernel that reads pages of these widths and the fewest others: each costs a loop.
    fn reading(&self, kernel: &str, widths: Widths) -> Option<&'static Variant> {
        let reads = |v: &Variant| widths.iter().all(|width| v.reads(width.bits()));
        let all = self.runs.iter().copied().filter(|v| v.kernel == kernel && !v.pages.is_empty() && reads(v));
        all.min_by_key(|v| v.pages.len())
    }

    /// Of widths in use, those that make a recording another one.
    pub fn recorded(&self, head_dim: usize, used: Widths) -> Widths {
        if self.lanes(head_dim) { used.and(self.widths) } else { self.widths }
    }

    /// Whether attention goes lane by lane.
    fn lanes(&self, head_dim: usize) -> bool {
        head_dim <= 64 && self.reading("attn_split", self.widths).is_some()
    }

    fn has(&self, variant: &Variant) -> bool {
        self.runs.iter().any(|v| std::ptr::eq(*v, variant))
    }
}
