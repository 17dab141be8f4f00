//! Which adapter: a real GPU before a software one, or the one that is asked for.

use std::fmt;

use concertina_shaders::Variant;

use crate::{Error, Result};

/// What is known of an adapter.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Name by the driver.
    pub name: String,
    /// `Vulkan`, `Metal`, `Dx12` or `BrowserWebGpu`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `VirtualGpu`, `Cpu` or `Other`.
    pub kind: String,
    /// It runs on a CPU.
    pub software: bool,
    /// It shares its memory with the host, and lets buffers of the device be written there.
    pub unified: bool,
    /// It has f16 arithmetic in shaders.
    pub f16: bool,
    /// It has cooperative matrices of 16 × 16 f16 that add up in f32.
    pub coop: bool,
    /// It has subgroup operations.
    pub subgroups: bool,
    /// Sizes of a subgroup, least and greatest.
    pub subgroup_size: (u32, u32),
    /// It has timestamps inside passes.
    pub timestamps: bool,
    /// Most bytes of a storage binding.
    pub max_binding_bytes: u64,
    /// Most bytes of a buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Most invocations of a workgroup.
    pub max_invocations: u32,
    /// Most storage buffers of a stage.
    pub max_storage_buffers: u32,
    /// Alignment of storage offsets in bytes.
    pub offset_alignment: u32,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.backend)?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        write!(f, ")")
    }
}

impl AdapterInfo {
    /// Whether it has what a variant needs.
    pub fn runs(&self, variant: &Variant) -> bool {
        (!variant.subgroups
            || (self.subgroups
                && self.subgroup_size.0 >= variant.min_subgroup
                && (variant.max_subgroup == 0 || self.subgroup_size.1 <= variant.max_subgroup)))
            && (!variant.f16 || self.f16)
            && (!variant.coop || self.coop)
    }

    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Self {
            driver: [info.driver.trim(), info.driver_info.trim()].join(" ").trim().to_owned(),
            backend: format!("{:?}", info.backend),
            kind: format!("{:?}", info.device_type),
            software: info.device_type == wgpu::DeviceType::Cpu,
            unified: matches!(info.device_type, wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu)
                && features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            name: info.name,
            f16: features.contains(wgpu::Features::SHADER_F16),
            coop: coop(adapter),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            subgroup_size: (info.subgroup_min_size, info.subgroup_max_size),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            offset_alignment: limits.min_storage_buffer_offset_alignment,
        }
    }
}

/// Whether there are the cooperative matrices that kernels use. The feature alone says only that there are some.
fn coop(adapter: &wgpu::Adapter) -> bool {
    use wgpu::CooperativeScalarType::{F16, F32};
    let fits = |p: &wgpu::CooperativeMatrixProperties| {
        (p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type) == (16, 16, 16, F16, F32)
    };
    adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
        && adapter.cooperative_matrix_properties().iter().any(fits)
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// Lower is better.
fn rank(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// Adapters that can compute, best first.
async fn adapters() -> Vec<wgpu::Adapter> {
    let instance = instance();
    #[cfg(not(target_arch = "wasm32"))]
    let mut found = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    // A browser shows one adapter, and only when asked.
    #[cfg(target_arch = "wasm32")]
    let mut found: Vec<wgpu::Adapter> =
        instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.into_iter().collect();
    found.retain(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    found
}

/// Adapters that can be used, best first: the order in which `choose` counts them.
pub async fn list_adapters() -> Vec<AdapterInfo> {
    adapters().await.iter().map(AdapterInfo::of).collect()
}

/// The best adapter, or the one that `wanted` names by number or by a part of its name.
pub(super) async fn choose(wanted: Option<&str>) -> Result<wgpu::Adapter> {
    let mut found = adapters().await;
    if found.is_empty() {
        return Err(Error::NoAdapter(
            "no GPU adapter was found; install a Vulkan driver (on Debian and Ubuntu: apt-get install \
             mesa-vulkan-drivers, which also runs on a CPU)"
                .into(),
        ));
    }
    let Some(wanted) = wanted else { return Ok(found.swap_remove(0)) };
    let names: Vec<String> = found.iter().map(|adapter| AdapterInfo::of(adapter).to_string()).collect();
    let at = match wanted.parse::<usize>() {
        Ok(number) => (number < found.len()).then_some(number),
        Err(_) => names.iter().position(|name| name.to_lowercase().contains(&wanted.to_lowercase())),
    };
    match at {
        Some(at) => Ok(found.swap_remove(at)),
        None => {
            let list: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("  {i}: {name}")).collect();
            Err(Error::NoAdapter(format!("no adapter matches '{wanted}'; there are:\n{}", list.join("\n"))))
        }
    }
}
