//! What an adapter can do at best: bytes and operations a second, and what a dispatch and a timestamp cost.

use concertina_shaders::{RoofParams, Step, Variant, variant};

use crate::record::{Recording, Slice, Work};
use crate::{Backend, Result};

/// Ceilings, measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ceilings {
    /// GB/s of a kernel that copies, bytes read and bytes written counted.
    pub copy_gb_s: f64,
    /// GB/s of a copy from buffer to buffer, likewise.
    pub buffer_copy_gb_s: f64,
    /// GFLOP/s of multiply-adds on f32 registers, two operations each.
    pub f32_gflop_s: f64,
    /// The same on f16; `None` without f16 arithmetic.
    pub f16_gflop_s: Option<f64>,
    /// Giga-operations a second of dot products of 8-bit integers: eight a dot product of four.
    pub int8_gop_s: f64,
    /// Microseconds that a dispatch of one workgroup takes in a row of its like.
    pub dispatch_us: f64,
    /// Microseconds that a timestamp after it adds.
    pub timestamp_us: f64,
}

impl Ceilings {
    /// GB/s that memory gives at best.
    pub fn gb_s(&self) -> f64 {
        self.copy_gb_s.max(self.buffer_copy_gb_s)
    }
}

/// Vectors of four words that are copied: more than caches hold, and workgroups enough for one dimension.
const COPY: u32 = 3 << 20;
/// Least nanoseconds of a measurement of operations.
const LEAST_NS: f64 = 4e6;
/// Most turns of a loop: past it, watchdogs of drivers bite.
const MOST_TURNS: u32 = 1 << 14;
/// Measurements of each, the best of which counts.
const ROUNDS: usize = 5;
/// Dispatches whose cost is measured together.
const MANY: usize = 64;

/// Measure the ceilings of an adapter.
///
/// # Errors
/// [`crate::Error::Unsupported`] on the CPU twins; else if the device fails or has no memory.
pub async fn ceilings(backend: &mut Backend) -> Result<Ceilings> {
    let limits = backend.buffer_limits();
    let count = COPY.min((limits.binding.min(limits.buffer) / 16) as u32);
    let x = backend.alloc("ceiling", 16 * u64::from(count))?;
    let y = match backend.alloc("ceiling", 16 * u64::from(count)) {
        Ok(y) => y,
        Err(e) => {
            backend.release(x);
            return Err(e);
        }
    };
    let done = measure(backend, x, y, count).await;
    [x, y].into_iter().for_each(|slice| backend.release(slice));
    done
}

async fn measure(backend: &mut Backend, x: Slice, y: Slice, count: u32) -> Result<Ceilings> {
    let threads = count.min(if backend.is_software() { 1 << 13 } else { 1 << 19 });
    let numbers: Vec<f32> = (0..4 * threads).map(|i| 0.25 + (i % 97) as f32 / 400.0).collect();
    backend.write(x, bytemuck::cast_slice(&numbers))?;
    backend.flush().await?;
    let bed = Bed { x, y };
    let copied = 32.0 * f64::from(count);
    let copy_ns = bed.best(backend, "roof_copy", count, 0, 1).await?;
    let mut buffer_ns = f64::INFINITY;
    for _ in 0..ROUNDS {
        buffer_ns = buffer_ns.min(backend.time_copy(x, y, 4).await?);
    }
    // Sixteen steps of four multiply-adds a turn; four of four dot products.
    let f32_gflop_s = bed.rate(backend, "roof_fma", threads, 128.0).await?;
    let has_half = variant("roof_fma.f16").is_some_and(|v| backend.runs(v));
    let f16_gflop_s = if has_half { Some(bed.rate(backend, "roof_fma.f16", threads, 128.0).await?) } else { None };
    let int8_gop_s = bed.rate(backend, "roof_dot8", threads, 128.0).await?;
    let dispatch_ns = bed.best(backend, "roof_copy", 64, 0, MANY).await?;
    let timestamp_us = match backend.adapter().is_some_and(|adapter| adapter.timestamps) {
        true => (bed.stamped(backend).await? - dispatch_ns).max(0.0) / 1e3,
        false => 0.0,
    };
    Ok(Ceilings {
        copy_gb_s: copied / copy_ns,
        buffer_copy_gb_s: copied / buffer_ns,
        f32_gflop_s,
        f16_gflop_s,
        int8_gop_s,
        dispatch_us: dispatch_ns / 1e3,
        timestamp_us,
    })
}

struct Bed {
    x: Slice,
    y: Slice,
}

impl Bed {
    fn recording(&self, variant: &'static Variant, count: u32, turns: u32, repeats: usize) -> Recording {
        let params = RoofParams { count, turns, ..RoofParams::default() };
        let mut recording = Recording::default();
        for _ in 0..repeats {
            recording.push(variant, &params, &[self.x, self.y], [Work::Fixed(count), Work::Fixed(1)]);
        }
        recording
    }

    /// Nanoseconds of one of `repeats` dispatches, the best of some rounds after one that does not count.
    async fn best(&self, backend: &mut Backend, name: &str, count: u32, turns: u32, repeats: usize) -> Result<f64> {
        let variant = variant(name).expect("in the table");
        let prepared = backend.prepare(self.recording(variant, count, turns, repeats))?;
        let mut best = f64::INFINITY;
        for round in 0..=ROUNDS {
            let ns = backend.time(&Step::default(), &[&prepared]).await?;
            best = if round == 0 { best } else { best.min(ns) };
        }
        Ok(best.max(1.0) / repeats as f64)
    }

    /// Giga-operations a second, `each` turn of a thread being so many.
    async fn rate(&self, backend: &mut Backend, name: &str, threads: u32, each: f64) -> Result<f64> {
        let mut turns = 256;
        loop {
            let ns = self.best(backend, name, threads, turns, 1).await?;
            if ns >= LEAST_NS || turns >= MOST_TURNS {
                return Ok(f64::from(threads) * f64::from(turns) * each / ns);
            }
            turns = (turns * 4).min(MOST_TURNS);
        }
    }

    /// Nanoseconds of a dispatch of one workgroup with a timestamp after it.
    async fn stamped(&self, backend: &mut Backend) -> Result<f64> {
        let variant = variant("roof_copy").expect("in the table");
        let prepared = backend.prepare(self.recording(variant, 64, 0, MANY))?;
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let timings = backend.profile(&Step::default(), &[&prepared]).await?;
            best = best.min(timings.iter().map(|t| t.ns).sum::<f64>() / timings.len().max(1) as f64);
        }
        Ok(best)
    }
}
