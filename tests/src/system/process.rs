//! Memory of this process, as the kernel counts it.

use std::path::Path;

/// Resident bytes of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Heap, stacks, and device memory of software adapters.
    pub anon: u64,
    /// Pages of mapped files: the program, the driver, and what of a mapped model is still in place.
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

/// Bytes of a line `NAME:   N kB`.
fn field(line: &str, name: &str) -> Option<u64> {
    let value = line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?;
    Some(value.trim().parse::<u64>().ok()? << 10)
}

/// From `/proc/self/status`; `None` on systems that have no such file.
pub fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| status.lines().find_map(|line| field(line, name));
    Some(Memory { anon: of("RssAnon")?, file: of("RssFile")?, shmem: of("RssShmem")?, peak: of("VmHWM")? })
}

/// Resident bytes of the mappings of one file, from `/proc/self/smaps`.
pub fn mapped(path: &Path) -> Option<u64> {
    let path = path.canonicalize().ok()?;
    let smaps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        match field(line, "Rss") {
            Some(bytes) if inside => sum += bytes,
            // The head of a mapping: range, permissions, offset, device, inode, path.
            _ if line.split_whitespace().nth(1).is_some_and(|p| p.len() == 4 && p.ends_with(['p', 's'])) => {
                inside = line.ends_with(path.to_string_lossy().as_ref());
            }
            _ => {}
        }
    }
    Some(sum)
}
