//! Adapters, drivers, limits and features, as the engine sees them.

use super::Finding;

/// The adapters of this machine. Only the engine names wgpu: this asks the engine.
pub fn gpu_section(_adapter: Option<&str>) -> Vec<Finding> {
    vec![Finding::warning(
        "gpu",
        "adapter",
        "not looked at: this build has no engine",
        "build a version of concertina that has the engine",
    )]
}
