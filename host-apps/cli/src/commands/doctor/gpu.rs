//! Adapters, drivers, limits and features, as the engine sees them, and whether the one that is used computes rightly.

mod check;

use concertina::AdapterInfo;

use super::Finding;
use crate::pull::human_binary_bytes as size;

const SECTION: &str = "gpu";

/// Below this many bytes a binding, tensors of small models are bound in parts.
const USUAL_BINDING: u64 = 128 << 20;

/// The adapters of this machine. Only the engine names wgpu: this asks the engine.
pub fn gpu_section(wanted: Option<&str>) -> Vec<Finding> {
    let found = pollster::block_on(concertina::list_adapters());
    let mut findings: Vec<Finding> = found.iter().enumerate().map(|(n, info)| adapter(n, info)).collect();
    if found.is_empty() {
        findings.push(Finding::missing(SECTION, "adapter", "none was found", driver_advice()));
    } else if found.iter().all(|info| info.software) {
        let detail = "only a CPU that plays one: a few tokens a second, fit for trying and for tests";
        findings.push(Finding::warning(SECTION, "real GPU", detail, gpu_advice()));
    }
    // Without an adapter there is nothing to try, unless the reference on the CPU is asked for.
    if !found.is_empty() || wanted == Some("cpu") {
        findings.extend(check::used(wanted, &found));
    }
    findings
}

fn adapter(number: usize, info: &AdapterInfo) -> Finding {
    let has = |yes: bool| if yes { "yes" } else { "no" };
    let subgroups = match info.subgroup_size {
        _ if !info.subgroups => "no".to_owned(),
        (least, most) if least == most => format!("of {least}"),
        (least, most) => format!("of {least} to {most}"),
    };
    let detail = format!(
        "{info}, {}; f16 {}, subgroups {subgroups}, timestamps {}; binding {}, buffer {}, workgroup memory {}, \
         {} invocations, {} storage buffers, offsets of {}",
        kind(&info.kind),
        has(info.f16),
        has(info.timestamps),
        size(info.max_binding_bytes),
        size(info.max_buffer_bytes),
        size(u64::from(info.workgroup_bytes)),
        info.max_invocations,
        info.max_storage_buffers,
        info.offset_alignment,
    );
    let name = format!("adapter {number}");
    if info.max_binding_bytes < USUAL_BINDING {
        let fix = "a newer driver may allow more; large tensors are bound in parts until then";
        return Finding::warning(SECTION, name, detail, fix);
    }
    Finding::ok(SECTION, name, detail)
}

fn kind(kind: &str) -> &str {
    match kind {
        "DiscreteGpu" => "a card of its own",
        "IntegratedGpu" => "part of the processor",
        "VirtualGpu" => "a virtual GPU",
        "Cpu" => "software on the CPU",
        other => other,
    }
}

fn driver_advice() -> &'static str {
    if cfg!(target_os = "linux") {
        "install a Vulkan driver: on Debian and Ubuntu `apt-get install mesa-vulkan-drivers libvulkan1` (AMD, Intel, and \
         a CPU), or NVIDIA's own driver"
    } else if cfg!(windows) {
        "install the driver of your GPU's maker; Windows' own has no Direct3D 12 compute"
    } else {
        "this needs a GPU with Metal"
    }
}

fn gpu_advice() -> &'static str {
    if cfg!(target_os = "linux") {
        "if this machine has a GPU, install its Vulkan driver (`mesa-vulkan-drivers` for AMD and Intel, NVIDIA's own \
         driver else) and let your user open /dev/dri (group `render`)"
    } else {
        "if this machine has a GPU, install its maker's driver"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn an_adapter_is_told_with_its_limits() {
        let info = AdapterInfo {
            name: "Some GPU".into(),
            backend: "Vulkan".into(),
            driver: "drv 1".into(),
            kind: "DiscreteGpu".into(),
            software: false,
            unified: false,
            f16: true,
            coop: false,
            subgroups: true,
            subgroup_size: (32, 64),
            timestamps: false,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 31,
            workgroup_bytes: 32768,
            max_invocations: 1024,
            max_storage_buffers: 16,
            offset_alignment: 64,
        };
        let finding = adapter(3, &info);
        assert_eq!((finding.name.as_str(), finding.status), ("adapter 3", Status::Ok));
        for part in ["Some GPU (Vulkan, drv 1)", "subgroups of 32 to 64", "f16 yes", "binding 1.00 GiB", "16 storage"] {
            assert!(finding.detail.contains(part), "{part}: {}", finding.detail);
        }
        let small = AdapterInfo { max_binding_bytes: 1 << 26, subgroups: false, ..info };
        assert_eq!(adapter(0, &small).status, Status::Warning);
    }
}
