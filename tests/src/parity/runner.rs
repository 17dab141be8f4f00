//! Runs cases on an adapter and on the twins, through the engine's own backend and recordings.

use std::time::{SystemTime, UNIX_EPOCH};

use concertina::record::Slice;
use concertina::{Backend, Cpu, Error, Gpu, Prepared, Result};
use concertina_shaders::Variant;

use super::{Case, Failure, Image, Report, check};

/// What came of a case.
pub type Outcome = std::result::Result<Report, Failure>;

/// An adapter and the twins, with arenas that are used again from case to case.
pub struct Runner {
    gpu: Side,
    cpu: Side,
    align: u64,
}

struct Side {
    backend: Backend,
    arenas: [Option<Slice>; 2],
}

impl Runner {
    /// Open the best adapter, or the one that `adapter` names by number or by a part of its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(adapter: Option<&str>) -> Result<Self> {
        let gpu = Backend::Gpu(pollster::block_on(Gpu::open(adapter))?);
        let align = gpu.buffer_limits().align;
        Ok(Self { gpu: Side::new(gpu), cpu: Side::new(Backend::Cpu(Cpu::default())), align })
    }

    /// Name of the adapter.
    pub fn name(&self) -> String {
        self.gpu.backend.name()
    }

    /// Threads of the adapter's largest subgroup.
    pub fn subgroup_size(&self) -> u32 {
        match &self.gpu.backend {
            Backend::Gpu(gpu) => gpu.info().subgroup_size.1,
            Backend::Cpu(_) => 1,
        }
    }

    /// Why the adapter cannot run a variant.
    pub fn lacks(&self, variant: &Variant) -> Option<&'static str> {
        let Backend::Gpu(gpu) = &self.gpu.backend else { return None };
        let storage = variant.bindings.len() - 2;
        if variant.subgroups && !gpu.info().subgroups {
            Some("no subgroup operations")
        } else if variant.subgroups && gpu.info().subgroup_size.0 < variant.min_subgroup {
            Some("too small subgroups")
        } else if variant.subgroups && variant.max_subgroup > 0 && gpu.info().subgroup_size.1 > variant.max_subgroup {
            Some("too large subgroups")
        } else if variant.f16 && !gpu.info().f16 {
            Some("no f16 arithmetic")
        } else if variant.coop && !gpu.info().coop {
            Some("no cooperative matrices of 16 x 16 f16 that add up in f32")
        } else if storage > gpu.info().max_storage_buffers as usize {
            Some("too few storage buffers a stage")
        } else {
            None
        }
    }

    /// Run a case on both and compare.
    ///
    /// # Errors
    /// If the device fails or refuses the shader; a wrong result is an [`Outcome`].
    pub fn run(&mut self, case: &Case) -> Result<Outcome> {
        let before = Image::of(case, self.align);
        let want = self.cpu.run(case, &before)?;
        let got = self.gpu.run(case, &before)?;
        Ok(check(case, &before, &want, &got))
    }
}

impl Side {
    fn new(backend: Backend) -> Self {
        Self { backend, arenas: [None, None] }
    }

    fn arena(&mut self, which: usize, bytes: u64) -> Result<Slice> {
        if let Some(slice) = self.arenas[which] {
            if slice.len >= bytes {
                return Ok(slice.prefix(bytes));
            }
            self.backend.free(slice.buf);
        }
        let label = ["read-only arena", "read-write arena"][which];
        let slice = self.backend.alloc(label, bytes.next_power_of_two())?;
        self.arenas[which] = Some(slice);
        Ok(slice.prefix(bytes))
    }

    fn run(&mut self, case: &Case, before: &Image) -> Result<Image> {
        let mut slices = Vec::new();
        for (which, words) in before.arenas.iter().enumerate() {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            let slice = self.arena(which, bytes.len() as u64)?;
            self.backend.write(slice, bytes)?;
            slices.push(slice);
        }
        let args: Vec<Slice> = before
            .places
            .iter()
            .map(|p| Slice { offset: 4 * p.first as u64, len: 4 * p.len as u64, ..slices[p.arena] })
            .collect();
        let prepared: Prepared = self.backend.prepare(case.recording(&args))?;
        let written = pollster::block_on(self.backend.run(&case.step, &[&prepared], Some(slices[1])))?;
        let read = pollster::block_on(self.backend.read(slices[0]))?;
        Ok(before.with([read, written].map(|bytes| bytemuck::pod_collect_to_vec(&bytes))))
    }
}

/// Seed of this run: `CONCERTINA_SEED`, or a fresh one.
///
/// # Panics
/// If the variable is no number.
pub fn seed() -> u64 {
    match std::env::var("CONCERTINA_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("CONCERTINA_SEED={text:?}: {e}")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64 & 0xffff_ffff),
    }
}

/// Adapters to test, by `CONCERTINA_TEST_ADAPTERS` (names or numbers, with commas between); else the best one.
///
/// # Errors
/// If one cannot be opened.
pub fn test_adapters() -> Result<Vec<Runner>> {
    match std::env::var("CONCERTINA_TEST_ADAPTERS").ok().filter(|list| !list.trim().is_empty()) {
        None => Ok(vec![Runner::open(None)?]),
        Some(list) => list
            .split(',')
            .map(|name| {
                let runner = Runner::open(Some(name.trim()));
                runner.map_err(|e| Error::NoAdapter(format!("CONCERTINA_TEST_ADAPTERS: {name}: {e}")))
            })
            .collect(),
    }
}
