//! What executes recordings: a GPU, or the CPU twins.

use concertina_shaders::{Step, Variant};

use crate::cpu::Cpu;
use crate::gpu::{Gpu, Prepared as GpuPrepared};
use crate::record::{BufId, Recording, Slice};
use crate::{Error, Result, Timing};

/// Where buffers live and recordings run.
#[allow(clippy::large_enum_variant)] // there is one of it
pub enum Backend {
    /// A wgpu device.
    Gpu(Gpu),
    /// The CPU twins: slow, for comparison.
    Cpu(Cpu),
}

/// A recording made ready for a backend.
pub enum Prepared {
    /// Pipelines and bind groups.
    Gpu(GpuPrepared),
    /// The recording itself.
    Cpu(Recording),
}

impl Prepared {
    fn gpu(&self) -> Option<&GpuPrepared> {
        match self {
            Prepared::Gpu(prepared) => Some(prepared),
            Prepared::Cpu(_) => None,
        }
    }
}

/// Limits that decide how buffers are cut.
#[derive(Debug, Clone, Copy)]
pub struct BufferLimits {
    /// Most bytes of a binding.
    pub binding: u64,
    /// Most bytes of a buffer.
    pub buffer: u64,
    /// Offsets of bindings are multiples of this.
    pub align: u64,
}

/// Limits of tests, below what the device has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restrictions {
    /// Most bytes of a binding.
    pub binding_bytes: Option<u64>,
    /// Most bytes of all buffers allocated.
    pub device_bytes: Option<u64>,
}

/// What a backend was asked to do since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Buffers made, of every kind.
    pub buffers: u64,
    /// Bytes of the storage buffers that are held.
    pub buffer_bytes: u64,
    /// Writes that the device was handed, each with a staging buffer behind it.
    pub writes: u64,
    /// Bytes written from the host.
    pub written_bytes: u64,
    /// Bytes read back.
    pub read_bytes: u64,
    /// Recordings made ready.
    pub prepared: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines made.
    pub pipelines: u64,
    /// Submissions.
    pub submits: u64,
    /// Dispatches submitted.
    pub dispatches: u64,
    /// Nanoseconds that the host took to record passes.
    pub host_ns: u64,
}

impl Counters {
    /// What came to them since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        Counters {
            buffers: self.buffers - before.buffers,
            buffer_bytes: self.buffer_bytes.saturating_sub(before.buffer_bytes),
            writes: self.writes - before.writes,
            written_bytes: self.written_bytes - before.written_bytes,
            read_bytes: self.read_bytes - before.read_bytes,
            prepared: self.prepared - before.prepared,
            bind_groups: self.bind_groups - before.bind_groups,
            pipelines: self.pipelines - before.pipelines,
            submits: self.submits - before.submits,
            dispatches: self.dispatches - before.dispatches,
            host_ns: self.host_ns.saturating_sub(before.host_ns),
        }
    }
}

impl Backend {
    /// What it was asked to do so far.
    pub fn counters(&self) -> Counters {
        match self {
            Backend::Gpu(gpu) => gpu.counters,
            Backend::Cpu(cpu) => cpu.counters,
        }
    }

    fn count(&mut self) -> &mut Counters {
        match self {
            Backend::Gpu(gpu) => &mut gpu.counters,
            Backend::Cpu(cpu) => &mut cpu.counters,
        }
    }

    /// Pretend that bindings and memory are smaller than they are: for tests.
    pub fn restrict(&mut self, restrictions: Restrictions) {
        match self {
            Backend::Gpu(gpu) => gpu.restrictions = restrictions,
            Backend::Cpu(cpu) => cpu.restrictions = restrictions,
        }
    }

    fn restrictions(&self) -> Restrictions {
        match self {
            Backend::Gpu(gpu) => gpu.restrictions,
            Backend::Cpu(cpu) => cpu.restrictions,
        }
    }

    /// What the adapter is called.
    pub fn name(&self) -> String {
        match self {
            Backend::Gpu(gpu) => gpu.info().to_string(),
            Backend::Cpu(_) => "CPU twins (reference)".into(),
        }
    }

    /// Limits of buffers and bindings.
    pub fn buffer_limits(&self) -> BufferLimits {
        let mut limits = match self {
            Backend::Gpu(gpu) => gpu.buffer_limits(),
            Backend::Cpu(_) => BufferLimits { binding: 1 << 40, buffer: 1 << 40, align: 4 },
        };
        if let Some(bytes) = self.restrictions().binding_bytes {
            limits.binding = limits.binding.min(bytes);
        }
        limits
    }

    /// Whether it has few, wide cores (a CPU) rather than many.
    pub fn is_software(&self) -> bool {
        match self {
            Backend::Gpu(gpu) => gpu.info().software,
            Backend::Cpu(_) => true,
        }
    }

    /// Whether it has what a variant needs.
    pub fn runs(&self, variant: &Variant) -> bool {
        match self {
            Backend::Gpu(gpu) => gpu.info().runs(variant),
            Backend::Cpu(_) => true,
        }
    }

    /// A zeroed buffer of at least `bytes`.
    pub fn alloc(&mut self, label: &str, bytes: u64) -> Result<Slice> {
        self.make(label, bytes, false)
    }

    /// As [`Backend::alloc`]: a buffer that the host can write in place where memory is unified ([`Backend::open_buffers`]).
    pub fn alloc_shared(&mut self, label: &str, bytes: u64) -> Result<Slice> {
        self.make(label, bytes, true)
    }

    fn make(&mut self, label: &str, bytes: u64, shared: bool) -> Result<Slice> {
        let bytes = bytes.next_multiple_of(16).max(16);
        let held = self.counters().buffer_bytes;
        if let Some(most) = self.restrictions().device_bytes.filter(|most| held.saturating_add(bytes) > *most) {
            return Err(Error::OutOfMemory(format!("{label} needs {bytes} bytes; {held} of {most} are in use")));
        }
        let buf = match self {
            Backend::Gpu(gpu) => gpu.alloc(label, bytes, shared)?,
            Backend::Cpu(cpu) => {
                Cpu::check(bytes)?;
                cpu.alloc(bytes)
            }
        };
        let counters = self.count();
        counters.buffers += 1;
        counters.buffer_bytes += bytes;
        Ok(Slice { buf, offset: 0, len: bytes })
    }

    /// Free a buffer.
    pub fn free(&mut self, buf: BufId) {
        match self {
            Backend::Gpu(gpu) => gpu.free(buf),
            Backend::Cpu(cpu) => cpu.free(buf),
        }
    }

    /// Free a buffer that [`Backend::alloc`] gave, and count its bytes as free.
    pub fn release(&mut self, slice: Slice) {
        self.free(slice.buf);
        let counters = self.count();
        counters.buffer_bytes = counters.buffer_bytes.saturating_sub(slice.len);
    }

    /// Forget compiled kernels that no recording holds.
    pub fn forget_pipelines(&mut self) {
        if let Backend::Gpu(gpu) = self {
            gpu.forget_pipelines();
        }
    }

    /// Write `bytes`, a whole number of words, to the beginning of a slice when the next submission begins. All that is
    /// staged goes to the device in one piece: what each step has to write goes this way. Of a buffer that is staged to,
    /// nothing may be written with [`Backend::write`] before the next submission.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn stage(&mut self, to: Slice, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= to.len && bytes.len().is_multiple_of(4), "{} bytes into {to:?}", bytes.len());
        self.count().written_bytes += bytes.len() as u64;
        match self {
            Backend::Gpu(gpu) => gpu.stage(to, bytes),
            Backend::Cpu(cpu) => cpu.write(to, bytes),
        }
    }

    /// Until the next submission [`Backend::put`] writes these in place, where they allow it.
    pub async fn open_buffers(&mut self, slices: &[Slice]) -> Result<()> {
        match self {
            Backend::Gpu(gpu) => gpu.open_buffers(&slices.iter().map(|slice| slice.buf).collect::<Vec<_>>()).await,
            Backend::Cpu(_) => Ok(()),
        }
    }

    /// Write parts, each a whole number of words, one after the other from the beginning of a slice on, with the next
    /// [`Backend::deliver`]: for much that goes to many places. Each call is one copy on the device, or none where the buffer
    /// is open.
    pub fn put(&mut self, to: Slice, parts: &[&[u8]]) -> Result<()> {
        self.count().written_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        match self {
            Backend::Gpu(gpu) => gpu.put(to, parts),
            Backend::Cpu(cpu) => {
                let mut offset = to.offset;
                for part in parts {
                    let len = part.len() as u64;
                    cpu.write(Slice { offset, len, ..to }, part);
                    offset += len;
                }
                Ok(())
            }
        }
    }

    /// Submit what was put, if at least so many bytes wait.
    pub fn deliver(&mut self, at_least: u64) -> Result<()> {
        match self {
            Backend::Gpu(gpu) => gpu.deliver(at_least),
            Backend::Cpu(_) => Ok(()),
        }
    }

    /// Write `bytes`, a whole number of words, to the beginning of a slice.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, to: Slice, bytes: &[u8]) -> Result<()> {
        assert!(bytes.len() as u64 <= to.len && bytes.len().is_multiple_of(4), "{} bytes into {to:?}", bytes.len());
        self.count().written_bytes += bytes.len() as u64;
        match self {
            Backend::Gpu(gpu) => gpu.write(to, bytes),
            Backend::Cpu(cpu) => {
                cpu.write(to, bytes);
                Ok(())
            }
        }
    }

    /// Wait until everything written so far has arrived, so that staging memory is free again.
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Backend::Gpu(gpu) => gpu.flush().await,
            Backend::Cpu(_) => Ok(()),
        }
    }

    /// Make a recording ready to replay.
    pub fn prepare(&mut self, recording: Recording) -> Result<Prepared> {
        self.count().prepared += 1;
        Ok(match self {
            Backend::Gpu(gpu) => Prepared::Gpu(gpu.prepare(&recording)?),
            Backend::Cpu(_) => Prepared::Cpu(recording),
        })
    }

    /// Replay recordings one after the other in one submission, then read `out` back, if asked for.
    ///
    /// # Panics
    /// If a recording was prepared by another kind of backend.
    pub async fn run(&mut self, step: &Step, recordings: &[&Prepared], out: Option<Slice>) -> Result<Vec<u8>> {
        let counters = self.count();
        counters.submits += 1;
        counters.read_bytes += out.map_or(0, |slice| slice.len);
        match self {
            Backend::Gpu(gpu) => {
                let prepared: Vec<&GpuPrepared> = recordings.iter().filter_map(|p| p.gpu()).collect();
                assert_eq!(prepared.len(), recordings.len(), "prepared for the CPU twins");
                gpu.run(step, &prepared, out).await
            }
            Backend::Cpu(cpu) => {
                for p in recordings {
                    match p {
                        Prepared::Cpu(recording) => {
                            cpu.run(step, recording)?;
                            let ran = recording.ops.iter().filter(|op| !op.groups(step).contains(&0));
                            cpu.counters.dispatches += ran.count() as u64;
                        }
                        Prepared::Gpu(_) => panic!("prepared for a GPU"),
                    }
                }
                Ok(out.map(|slice| cpu.read(slice)).unwrap_or_default())
            }
        }
    }

    /// GPU time of every dispatch.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there are no timestamps.
    pub async fn profile(&mut self, step: &Step, recordings: &[&Prepared]) -> Result<Vec<Timing>> {
        match self {
            Backend::Gpu(gpu) => {
                let prepared: Vec<&GpuPrepared> = recordings.iter().filter_map(|p| p.gpu()).collect();
                gpu.profile(step, &prepared).await
            }
            Backend::Cpu(_) => Err(Error::Unsupported("timestamps on the CPU twins".into())),
        }
    }

    /// Nanoseconds that a replay takes: GPU time where there are timestamps, else until the device is done with it.
    pub async fn time(&mut self, step: &Step, recordings: &[&Prepared]) -> Result<f64> {
        match self {
            Backend::Gpu(gpu) => {
                let prepared: Vec<&GpuPrepared> = recordings.iter().filter_map(|p| p.gpu()).collect();
                gpu.time(step, &prepared).await
            }
            Backend::Cpu(_) => Err(Error::Unsupported("timing the CPU twins".into())),
        }
    }

    /// Nanoseconds of a copy from one slice to another, of as many bytes as both have: the mean of `repeats`.
    pub async fn time_copy(&mut self, from: Slice, to: Slice, repeats: u32) -> Result<f64> {
        match self {
            Backend::Gpu(gpu) => gpu.time_copy(from, to, repeats).await,
            Backend::Cpu(_) => Err(Error::Unsupported("timing the CPU twins".into())),
        }
    }

    /// What the adapter is; `None` for the CPU twins.
    pub fn adapter(&self) -> Option<&crate::AdapterInfo> {
        match self {
            Backend::Gpu(gpu) => Some(gpu.info()),
            Backend::Cpu(_) => None,
        }
    }

    /// Fill slices with zeros.
    pub fn clear(&mut self, slices: &[Slice]) -> Result<()> {
        match self {
            Backend::Gpu(gpu) => gpu.clear(slices),
            Backend::Cpu(cpu) => {
                slices.iter().for_each(|slice| cpu.write(*slice, &vec![0; slice.len as usize]));
                Ok(())
            }
        }
    }

    /// Read slices back, one after the other, in one submission.
    pub async fn gather(&mut self, from: &[Slice]) -> Result<Vec<u8>> {
        let counters = self.count();
        counters.submits += 1;
        counters.read_bytes += from.iter().map(|slice| slice.len).sum::<u64>();
        match self {
            Backend::Gpu(gpu) => gpu.gather(from).await,
            Backend::Cpu(cpu) => Ok(from.iter().flat_map(|slice| cpu.read(*slice)).collect()),
        }
    }

    /// Read bytes back.
    pub async fn read(&mut self, from: Slice) -> Result<Vec<u8>> {
        self.run(&Step::default(), &[], Some(from)).await
    }
}
