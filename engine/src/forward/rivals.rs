//! A pass with other kernels in the place of each of its products: the same work, on weights that are as cold.

use std::ptr;

use concertina_kv::Widths;
use concertina_shaders::{Role, VARIANTS, Variant};

use super::{BatchRow, Forward};
use crate::cost::Load;
use crate::record::{Op, Recording};
use crate::{Backend, Prepared, Result, Timing};

/// A kind of product of a pass: its kernel, its params, and how often the pass has it.
struct Kind {
    variant: &'static Variant,
    params: Vec<u8>,
    count: usize,
}

impl Kind {
    fn is(&self, op: &Op) -> bool {
        ptr::eq(op.variant, self.variant) && op.params == self.params
    }
}

/// A kernel in the place of a kind of product.
pub struct Rival {
    /// The kernel that the pass has there.
    pub own: &'static Variant,
    /// Dispatches of the kind in a pass.
    pub count: usize,
    /// The mean of these dispatches, in each round.
    pub rounds: Vec<Timing>,
}

impl Forward {
    /// Time each kind of product of the layers with every kernel that can stand in its place, in turn, `rounds` times.
    pub async fn rivals(
        &mut self,
        backend: &mut Backend,
        level: u32,
        rows: &[BatchRow],
        widths: Widths,
        rounds: usize,
    ) -> Result<(Vec<Rival>, Load)> {
        let key = self.key(level, rows.len(), widths)?;
        self.write_rows(backend, rows);
        let step = self.step(rows);
        let recording = self.record(key)?;
        let mut kinds: Vec<Kind> = Vec::new();
        for op in recording.ops.iter().filter(|op| op.variant.params == "MatmulParams") {
            match kinds.iter_mut().find(|kind| kind.is(op)) {
                Some(kind) => kind.count += 1,
                None => kinds.push(Kind { variant: op.variant, params: op.params.clone(), count: 1 }),
            }
        }
        let mut found = Vec::new();
        for kind in &kinds {
            let mut prepared: Vec<(Rival, Prepared)> = Vec::new();
            for variant in rivals_of(kind.variant, backend) {
                let with = |op: &Op| if kind.is(op) { Op { variant, ..op.clone() } } else { op.clone() };
                let ops = recording.ops.iter().map(with).collect();
                let rival = Rival { own: kind.variant, count: kind.count, rounds: Vec::new() };
                prepared.push((rival, backend.prepare(Recording { ops })?));
            }
            // The first round compiles, and does not count.
            for round in 0..=rounds {
                for ((rival, prepared), variant) in prepared.iter_mut().zip(rivals_of(kind.variant, backend)) {
                    let mut timings = backend.profile(&step, &[&*prepared]).await?;
                    timings.retain(|t| ptr::eq(t.kernel, variant) && t.params == kind.params);
                    let ns = timings.iter().map(|t| t.ns).sum::<f64>() / timings.len().max(1) as f64;
                    rival.rounds.extend(timings.into_iter().next().filter(|_| round > 0).map(|t| Timing { ns, ..t }));
                }
            }
            found.extend(prepared.into_iter().map(|(rival, _)| rival));
        }
        Ok((found, Load { step, positions: rows.iter().map(|row| row.position).collect() }))
    }
}

/// A kernel and what may stand in its place; on software adapters without those that lose by a factor of ten and more there.
fn rivals_of(own: &'static Variant, backend: &Backend) -> Vec<&'static Variant> {
    let slow = |v: &Variant| backend.is_software() && v.kernel != own.kernel && v.source.contains("var<workgroup>");
    let alike = |v: &Variant| if own.role == Role::Matrix { v.role == Role::Matrix } else { v.kernel == own.kernel };
    VARIANTS.iter().filter(|v| v.format == own.format && alike(v) && v.exact() && backend.runs(v) && !slow(v)).collect()
}
