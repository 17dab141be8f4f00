//! The machine and this program.

use super::Finding;
use crate::pull::human_binary_bytes;

const SECTION: &str = "system";

pub fn system_section() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
    let mut findings = vec![
        Finding::ok(SECTION, "concertina", env!("CARGO_PKG_VERSION")),
        Finding::ok(SECTION, "platform", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        Finding::ok(SECTION, "cores", cores),
    ];
    if let Some((total, available)) = memory() {
        let detail = format!("{}, {} available", human_binary_bytes(total), human_binary_bytes(available));
        findings.push(Finding::ok(SECTION, "memory", detail));
    }
    findings
}

/// Total and available bytes, where the system tells them in a file.
fn memory() -> Option<(u64, u64)> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24 kB\nMemFree:  1 kB\nMemAvailable:    8 kB\n";
        assert_eq!(parse_meminfo(text), Some((24 * 1024, 8 * 1024)));
        assert_eq!(parse_meminfo("MemTotal: x kB\n"), None);
        assert_eq!(parse_meminfo(&format!("MemTotal: {} kB\nMemAvailable: 1 kB\n", u64::MAX)), None);
    }
}
