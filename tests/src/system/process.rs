//! Memory of this process, as the kernel counts it.

/// Resident bytes of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Heap, stacks, and device memory of software adapters.
    pub anon: u64,
    /// Pages of mapped files: the program, and what of a mapped model is still in place.
    pub file: u64,
    /// Shared memory, where some drivers keep device memory.
    pub shmem: u64,
    /// Greatest resident size so far.
    pub peak: u64,
}

impl Memory {
    /// Resident in all.
    pub fn total(&self) -> u64 {
        self.anon + self.file + self.shmem
    }
}

/// From `/proc/self/status`; `None` on systems that have no such file.
pub fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some(Memory { anon: field("RssAnon")?, file: field("RssFile")?, shmem: field("RssShmem")?, peak: field("VmHWM")? })
}
