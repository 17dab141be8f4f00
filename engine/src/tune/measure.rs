//! How long a product takes: the same dispatch several times in one submission, over copies of the weights.

use std::cell::Cell;

use concertina_shaders::{Step, Variant};

use super::MatrixRole;
use super::parity::{layout, params, push};
use super::random::Random;
use crate::record::{Recording, Slice};
use crate::weights::Cut;
use crate::{Backend, Prepared, Result};

/// Most bytes of weights that a measurement takes. Larger matrices are measured on their first rows.
const MOST_BYTES: usize = 24 << 20;
/// Bytes that copies of the weights take. Layer follows layer in a real pass, so a layer's weights are not in the caches near the
/// cores when it comes: the next measurement goes on at the next copy, and is back at the first after this many bytes.
const COLD_BYTES: u64 = 64 << 20;
/// Nanoseconds that a submission should take, so that what begins and ends it does not count.
const SUBMISSION_NS: f64 = 3e6;
/// Most dispatches of a submission.
const MOST_REPEATS: usize = 64;

/// A role's weights, input and output on the device.
pub struct Bed {
    weights: Slice,
    copy_bytes: u64,
    copies: usize,
    /// The copy that is next.
    next: Cell<usize>,
    x: Slice,
    y: Slice,
    shape: (concertina_shaders::PanelLayout, usize),
    rows: usize,
    /// Times of the part that is measured make the whole matrix's when multiplied by this.
    pub scale: f64,
}

impl Bed {
    /// Make room for `role` with at most `rows` rows, and fill it.
    pub async fn new(backend: &mut Backend, role: &MatrixRole, rows: usize) -> Result<Self> {
        let s = role.shape;
        let whole = layout(s.format, s.n, s.k, s.cut);
        let limits = backend.buffer_limits();
        let most = MOST_BYTES.min(limits.binding.min(limits.buffer) as usize);
        // A prefix of rows keeps the way it lies: all of them are one block where it is cut by columns.
        let n = match s.cut {
            _ if whole.bytes() <= most => s.n,
            Cut::Rows => (most / whole.row_block_bytes()).max(1) * whole.row_block,
            Cut::Cols => (most / (whole.panels() * s.format.block_bytes())).max(32) / 32 * 32,
        };
        let n = n.min(s.n);
        let part = layout(s.format, n, s.k, s.cut);
        let copy_bytes = (part.bytes() as u64).next_multiple_of(limits.align);
        let copies = (COLD_BYTES.min(limits.buffer) / copy_bytes).max(1) as usize;
        let mut random = Random(7);
        let x = random.floats(rows * s.k);
        let bytes: Vec<u8> = random.region(&part).into_iter().cycle().take(part.bytes()).collect();
        let mut held: Vec<Slice> = Vec::new();
        let sizes = [copy_bytes * copies as u64, 4 * x.len() as u64, 4 * (rows * n) as u64];
        let done = async {
            for size in sizes {
                held.push(backend.alloc("tuning", size)?);
            }
            for copy in 0..copies {
                let at = Slice { offset: copy as u64 * copy_bytes, len: bytes.len() as u64, ..held[0] };
                backend.write(at, &bytes)?;
            }
            backend.write(held[1], bytemuck::cast_slice(&x))?;
            backend.flush().await
        }
        .await;
        if let Err(e) = done {
            held.iter().for_each(|slice| backend.release(*slice));
            return Err(e);
        }
        let (scale, shape) = (s.n as f64 / n as f64, (part, n));
        let next = Cell::new(0);
        Ok(Self { weights: held[0], copy_bytes, copies, next, x: held[1], y: held[2], shape, rows, scale })
    }

    /// Give the memory back.
    pub fn free(self, backend: &mut Backend) {
        [self.weights, self.x, self.y].into_iter().for_each(|slice| backend.release(slice));
    }

    /// Products with the copies that are next.
    fn prepare(&self, backend: &mut Backend, variant: &'static Variant, repeats: usize) -> Result<Prepared> {
        let (layout, n) = &self.shape;
        let params = params(layout, *n, layout.panels(), layout.cols, *n);
        let mut recording = Recording::default();
        for _ in 0..repeats {
            let copy = self.next.replace((self.next.get() + 1) % self.copies);
            let offset = copy as u64 * self.copy_bytes;
            let w = Slice { offset, len: layout.bytes() as u64, ..self.weights };
            push(&mut recording, variant, &params, [self.x, w, self.x, self.x, self.y]);
        }
        backend.prepare(recording)
    }

    /// A variant, compiled and measured with `rows` rows, ready to be measured again and again. One that is slower than
    /// `limit_ns` at first sight is left at that.
    pub async fn candidate(
        &self,
        backend: &mut Backend,
        variant: &'static Variant,
        rows: usize,
        limit_ns: f64,
    ) -> Result<Runs> {
        assert!(rows <= self.rows, "{rows} rows in a bed for {}", self.rows);
        let step = Step { rows: rows as u32, ..Step::default() };
        let one = self.prepare(backend, variant, 1)?;
        // Drivers compile at the first dispatch; for that a row is enough.
        backend.time(&Step { rows: 1, ..step }, &[&one]).await?;
        let ns = backend.time(&step, &[&one]).await?;
        if ns * self.scale > limit_ns {
            return Ok(Runs { variant, repeats: 1, step, times: vec![ns * self.scale] });
        }
        let repeats = (SUBMISSION_NS / ns.max(1.0)).ceil().clamp(1.0, MOST_REPEATS as f64) as usize;
        let times = if repeats == 1 { vec![ns * self.scale] } else { Vec::new() };
        let mut runs = Runs { variant, repeats, step, times };
        runs.again(backend, self).await?;
        Ok(runs)
    }
}

/// Measurements of one variant.
pub struct Runs {
    variant: &'static Variant,
    repeats: usize,
    step: Step,
    times: Vec<f64>,
}

impl Runs {
    /// Measure once more, in the bed that it was measured in.
    pub async fn again(&mut self, backend: &mut Backend, bed: &Bed) -> Result<()> {
        let prepared = bed.prepare(backend, self.variant, self.repeats)?;
        // Params are written before the clock starts.
        backend.flush().await?;
        let ns = backend.time(&self.step, &[&prepared]).await?;
        self.times.push(ns / self.repeats as f64 * bed.scale);
        Ok(())
    }

    /// Nanoseconds of one product: the least, which other work on the machine disturbs the least.
    pub fn ns(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }
}
