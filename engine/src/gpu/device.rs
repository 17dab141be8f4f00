//! The device: buffers by number, pipelines by variant, recordings made ready and replayed.

use std::collections::HashMap;
use std::sync::Arc;

use bytemuck::bytes_of;
use concertina_shaders::{BindingKind, Step, Variant};
use web_time::Instant;

use super::adapter::{AdapterInfo, choose};
use super::fault::FaultSlot;
use super::inbox::Inbox;
use super::readback::Readback;
use super::upload::Upload;
use super::window::Window;
use crate::backend::{BufferLimits, Counters, Restrictions};
use crate::record::{BufId, Op, Recording, Slice};
use crate::{Error, Result};

/// A wgpu device with its queue.
pub struct Gpu {
    info: AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    limits: wgpu::Limits,
    pub(super) faults: FaultSlot,
    pub(super) readback: Readback,
    buffers: Vec<Option<wgpu::Buffer>>,
    pub(super) step: wgpu::Buffer,
    inbox: Inbox,
    upload: Upload,
    window: Window,
    pub(crate) counters: Counters,
    pub(crate) restrictions: Restrictions,
    /// By variant and the values of its overrides.
    pipelines: HashMap<(&'static str, Vec<u32>), Arc<wgpu::ComputePipeline>>,
}

/// A recording with its pipelines and bind groups.
pub struct Prepared {
    pub(super) ops: Vec<PreparedOp>,
}

pub(super) struct PreparedOp {
    pipeline: Arc<wgpu::ComputePipeline>,
    bindings: wgpu::BindGroup,
    op: Op,
}

impl PreparedOp {
    pub fn variant(&self) -> &'static Variant {
        self.op.variant
    }

    pub fn params(&self) -> &[u8] {
        &self.op.params
    }

    pub fn groups(&self, step: &Step) -> [u32; 2] {
        self.op.groups(step)
    }

    /// Record the dispatch, unless a step leaves it nothing to do.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, step: &Step) {
        let [x, y] = self.groups(step);
        if x > 0 && y > 0 {
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(x, y, 1);
        }
    }
}

impl Gpu {
    /// Open the best adapter, or the one that `wanted` names by number or by a part of its name.
    pub async fn open(wanted: Option<&str>) -> Result<Self> {
        let adapter = choose(wanted).await?;
        let info = AdapterInfo::of(&adapter);
        if info.software {
            log::warn!("{info} runs on the CPU: expect a few tokens a second; a GPU driver would be much faster");
        }
        let mut wanted_features = wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        if info.unified {
            wanted_features |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if info.coop {
            wanted_features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: wgpu warns of errors of its own behind experimental features. One kernel uses this one, with matrices of
            // a size and type that the adapter names, inside arrays of workgroup memory that they fit; and it is used
            // only after its results were compared with its twin's.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let limits = adapter.limits();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("concertina"),
                required_features: adapter.features() & wanted_features,
                required_limits: limits.clone(),
                experimental_features,
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::NoAdapter(format!("{info} gives no device: {e}")))?;
        let faults = FaultSlot::watch(&device);
        let step = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: size_of::<Step>() as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let readback = Readback::new()?;
        Ok(Self {
            info,
            device,
            queue,
            limits,
            faults,
            readback,
            buffers: Vec::new(),
            step,
            inbox: Inbox::default(),
            upload: Upload::default(),
            window: Window::default(),
            counters: Counters::default(),
            restrictions: Restrictions::default(),
            pipelines: HashMap::new(),
        })
    }

    /// The adapter.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Limits of buffers and bindings.
    pub fn buffer_limits(&self) -> BufferLimits {
        BufferLimits {
            binding: self.limits.max_storage_buffer_binding_size,
            buffer: self.limits.max_buffer_size,
            align: u64::from(self.limits.min_storage_buffer_offset_alignment).max(256),
        }
    }

    /// Something that destroys the device when called, as a driver reset would: every later call reports the loss.
    pub fn destroyer(&self) -> impl Fn() + 'static {
        let (device, faults) = (self.device.clone(), self.faults.clone());
        move || {
            device.destroy();
            faults.lose("destroyed on request");
        }
    }

    /// Whether the device is gone.
    pub fn is_lost(&self) -> bool {
        self.faults.is_lost()
    }

    /// A zeroed storage buffer; `shared`: one that the host can write in place where memory is unified.
    pub fn alloc(&mut self, label: &str, bytes: u64, shared: bool) -> Result<BufId> {
        self.faults.check()?;
        let limits = self.buffer_limits();
        if bytes > limits.buffer {
            return Err(Error::OutOfMemory(format!(
                "{label} needs {bytes} bytes in one buffer; {} allows {}",
                self.info, limits.buffer
            )));
        }
        let mut usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        if shared && self.info.unified {
            usage |= wgpu::BufferUsages::MAP_WRITE;
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        self.faults.check()?;
        self.buffers.push(Some(buffer));
        Ok(BufId(self.buffers.len() as u32 - 1))
    }

    /// Free a buffer once the device is done with it.
    pub fn free(&mut self, buf: BufId) {
        self.buffers[buf.0 as usize] = None;
    }

    pub(super) fn buffer(&self, buf: BufId) -> &wgpu::Buffer {
        self.buffers[buf.0 as usize].as_ref().expect("a freed buffer is in use")
    }

    /// Queue a write.
    pub fn write(&mut self, to: Slice, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.counters.writes += 1;
            self.queue.write_buffer(self.buffer(to.buf), to.offset, bytes);
        }
        self.faults.check()
    }

    /// Write when the next submission begins, together with all else that waits for it.
    pub fn stage(&mut self, to: Slice, bytes: &[u8]) {
        let buffer = self.buffers[to.buf.0 as usize].as_ref().expect("a freed buffer is in use");
        self.inbox.put(buffer, to.offset, bytes);
    }

    /// Have the host write buffers in place until the next submission. Does nothing to those that it cannot.
    pub async fn open_buffers(&mut self, bufs: &[BufId]) -> Result<()> {
        self.faults.check()?;
        let buffers = bufs.iter().map(|buf| self.buffer(*buf).clone());
        let buffers: Vec<_> = buffers.filter(|b| b.usage().contains(wgpu::BufferUsages::MAP_WRITE)).collect();
        if buffers.is_empty() {
            return Ok(());
        }
        self.window.open(buffers, &self.device, &self.readback, &self.faults).await
    }

    /// Write much: parts that lie one after the other on the device. In place where the buffer is open, else when the next
    /// delivery begins.
    pub fn put(&mut self, to: Slice, parts: &[&[u8]]) -> Result<()> {
        self.faults.check()?;
        let buffer = self.buffers[to.buf.0 as usize].as_ref().expect("a freed buffer is in use");
        if self.window.shows(buffer) {
            return self.window.put(buffer, to.offset, parts);
        }
        self.upload.put(&self.device, buffer, to.offset, parts, &mut self.counters)
    }

    /// Submit what was put, once so many bytes wait.
    pub fn deliver(&mut self, at_least: u64) -> Result<()> {
        if self.upload.waiting() < at_least.max(1) {
            return Ok(());
        }
        let mut encoder = self.begin(None);
        let buffers = self.upload.deliver(&mut encoder);
        self.queue.submit([encoder.finish()]);
        self.upload.submitted(buffers);
        self.faults.check()
    }

    /// Forget compiled kernels: those in recordings live on with them.
    pub fn forget_pipelines(&mut self) {
        self.pipelines.clear();
    }

    /// An encoder that begins with what was staged, and with `step`.
    pub(super) fn begin(&mut self, step: Option<&Step>) -> wgpu::CommandEncoder {
        self.window.close();
        if let Some(step) = step {
            self.inbox.put(&self.step, 0, bytes_of(step));
            self.counters.written_bytes += size_of::<Step>() as u64;
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.inbox.deliver(&self.device, &self.queue, &mut encoder, &mut self.counters);
        encoder
    }

    /// Submit what is queued and wait for it.
    pub async fn flush(&mut self) -> Result<()> {
        self.window.close();
        self.queue.submit([]);
        self.readback.wait(&self.device, &self.queue, &self.faults).await
    }

    fn pipeline(&mut self, variant: &'static Variant, params: &[u8]) -> Result<Arc<wgpu::ComputePipeline>> {
        let values = variant.specialised(params);
        let of_params = variant.overrides.iter().map(|c| c.name).zip(&values);
        let of_tile = variant.constants.iter().map(|(name, value)| (*name, value));
        let constants: Vec<(&str, f64)> = of_params.chain(of_tile).map(|(name, v)| (name, f64::from(*v))).collect();
        let key = (variant.name, values);
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        if !self.info.runs(variant) {
            return Err(Error::Unsupported(format!("{} on {}", variant.name, self.info)));
        }
        // Browsers want the extension named, naga does not know the name.
        let prefix = if cfg!(target_arch = "wasm32") && variant.subgroups { "enable subgroups;\n" } else { "" };
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(variant.name),
            source: wgpu::ShaderSource::Wgsl(format!("{prefix}{}", variant.source).into()),
        });
        let entries: Vec<wgpu::BindGroupLayoutEntry> = variant
            .bindings
            .iter()
            .enumerate()
            .map(|(i, binding)| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding.kind {
                        BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                        BindingKind::ReadOnly => wgpu::BufferBindingType::Storage { read_only: true },
                        BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let group = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(variant.name),
            entries: &entries,
        });
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(variant.name),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(variant.kernel),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // wgpu zeroes buffers; workgroup memory is always written before it is read.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        self.faults.check()?;
        let pipeline = Arc::new(pipeline);
        self.counters.pipelines += 1;
        self.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Make pipelines, bind groups and one uniform buffer for a recording.
    pub fn prepare(&mut self, recording: &Recording) -> Result<Prepared> {
        self.faults.check()?;
        let align = u64::from(self.limits.min_uniform_buffer_offset_alignment);
        let mut offsets = Vec::with_capacity(recording.ops.len());
        let mut bytes: Vec<u8> = Vec::new();
        for op in &recording.ops {
            bytes.resize(bytes.len().next_multiple_of(align as usize), 0);
            offsets.push(bytes.len() as u64);
            bytes.extend_from_slice(&op.params);
        }
        bytes.resize(bytes.len().next_multiple_of(16).max(16), 0);
        let uniforms = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&uniforms, 0, &bytes);
        self.counters.buffers += 1;
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        self.counters.bind_groups += recording.ops.len() as u64;
        let mut ops = Vec::with_capacity(recording.ops.len());
        for (op, offset) in recording.ops.iter().zip(offsets) {
            let pipeline = self.pipeline(op.variant, &op.params)?;
            let bind = |buffer, offset, len| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset,
                    size: std::num::NonZeroU64::new(len),
                })
            };
            let mut entries = vec![
                wgpu::BindGroupEntry { binding: 0, resource: bind(&self.step, 0, size_of::<Step>() as u64) },
                wgpu::BindGroupEntry { binding: 1, resource: bind(&uniforms, offset, op.params.len() as u64) },
            ];
            for (i, arg) in op.args.iter().enumerate() {
                let resource = bind(self.buffer(arg.buf), arg.offset, arg.len);
                entries.push(wgpu::BindGroupEntry { binding: i as u32 + 2, resource });
            }
            let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(op.variant.name),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let op =
                Op { variant: op.variant, params: op.params.clone(), args: Vec::new(), work: op.work, when: op.when };
            ops.push(PreparedOp { pipeline, bindings, op });
        }
        self.faults.check()?;
        Ok(Prepared { ops })
    }

    /// Fill slices with zeros.
    pub fn clear(&mut self, slices: &[Slice]) -> Result<()> {
        self.faults.check()?;
        let mut encoder = self.begin(None);
        for slice in slices {
            encoder.clear_buffer(self.buffer(slice.buf), slice.offset, Some(slice.len));
        }
        self.queue.submit([encoder.finish()]);
        self.faults.check()
    }

    /// Read slices back, one after the other, in one submission.
    pub async fn gather(&mut self, from: &[Slice]) -> Result<Vec<u8>> {
        self.faults.check()?;
        let bytes = from.iter().map(|slice| slice.len).sum();
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let staging = self.readback.staging(&self.device, bytes, &mut self.counters);
        let mut encoder = self.begin(None);
        let mut at = 0;
        for slice in from {
            encoder.copy_buffer_to_buffer(self.buffer(slice.buf), slice.offset, &staging, at, slice.len);
            at += slice.len;
        }
        self.queue.submit([encoder.finish()]);
        self.faults.check()?;
        let out = self.readback.map(&self.device, &staging, bytes, &self.faults).await?;
        self.readback.keep(staging);
        Ok(out)
    }

    /// Submit a pass that the host began to record at `start`.
    fn submit(&mut self, encoder: wgpu::CommandEncoder, start: Instant) {
        let commands = encoder.finish();
        // Software drivers do a good part of the work inside the submission.
        self.counters.host_ns += start.elapsed().as_nanos() as u64;
        self.queue.submit([commands]);
    }

    /// Replay recordings in one submission, then read `out` back, if asked for.
    pub async fn run(&mut self, step: &Step, recordings: &[&Prepared], out: Option<Slice>) -> Result<Vec<u8>> {
        self.faults.check()?;
        let start = Instant::now();
        let mut encoder = self.begin((!recordings.is_empty()).then_some(step));
        if !recordings.is_empty() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for op in recordings.iter().flat_map(|r| &r.ops) {
                op.dispatch(&mut pass, step);
            }
        }
        let ops = recordings.iter().flat_map(|r| &r.ops);
        self.counters.dispatches += ops.filter(|op| !op.groups(step).contains(&0)).count() as u64;
        let Some(out) = out else {
            self.submit(encoder, start);
            return self.faults.check().map(|()| Vec::new());
        };
        let staging = self.readback.staging(&self.device, out.len, &mut self.counters);
        encoder.copy_buffer_to_buffer(self.buffer(out.buf), out.offset, &staging, 0, out.len);
        self.submit(encoder, start);
        self.faults.check()?;
        let bytes = self.readback.map(&self.device, &staging, out.len, &self.faults).await?;
        self.readback.keep(staging);
        Ok(bytes)
    }
}
