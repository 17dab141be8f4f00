//! Contexts and where they are, as a table and as JSON.

use concertina::service::{ContextUsage, Residence};
use serde_json::{Value, json};

use super::id::show_id;
use crate::pull::human_binary_bytes;
use crate::table::table;

/// A line for each context.
pub fn usage_table(contexts: &[ContextUsage], now_ms: u64) -> String {
    let head = ["ID", "APP", "TOKENS", "STATE", "WIDTHS", "LEVELS", "LAST USE", "MEMORY", "DISK", "ORDER", "PINNED"]
        .map(str::to_owned);
    let row = |usage: &ContextUsage| {
        [
            show_id(usage.id),
            // Another program chose it.
            usage.app.escape_debug().to_string(),
            usage.tokens.to_string(),
            state(usage).to_owned(),
            or_dash(widths(usage)),
            or_dash(levels(usage)),
            ago(now_ms.saturating_sub(usage.used_ms)),
            memory(usage),
            human_binary_bytes(usage.disk_bytes),
            or_dash(usage.evicted_after.map(|place| place.to_string()).unwrap_or_default()),
            if usage.pinned { "yes" } else { "no" }.to_owned(),
        ]
    };
    table(&std::iter::once(head).chain(contexts.iter().map(row)).collect::<Vec<_>>())
}

pub fn usage_json(usage: &ContextUsage) -> Value {
    let widths: serde_json::Map<String, Value> =
        usage.memory_chunks.iter().map(|(bits, count)| (bits.to_string(), json!(count))).collect();
    let levels_json: serde_json::Map<String, Value> =
        usage.levels.iter().map(|(level, count)| (level.to_string(), json!(count))).collect();
    json!({
        "id": show_id(usage.id),
        "app": usage.app,
        "tokens": usage.tokens,
        "state": state(usage),
        "widths": widths,
        "levels": levels_json,
        "created_ms": usage.created_ms,
        "used_ms": usage.used_ms,
        "memory_bytes": usage.memory_bytes,
        "shared_bytes": usage.shared_bytes,
        "disk_chunks": usage.disk_chunks,
        "disk_bytes": usage.disk_bytes,
        "evicted_after": usage.evicted_after,
        "pinned": usage.pinned,
    })
}

fn state(usage: &ContextUsage) -> &'static str {
    match usage.residence {
        Residence::Memory => "memory",
        Residence::Partly => "partly",
        Residence::Disk => "disk",
    }
}

/// Chunks in memory by width, narrow ones first: `4b×120 16b×1`.
fn widths(usage: &ContextUsage) -> String {
    let each: Vec<String> = usage.memory_chunks.iter().map(|(bits, count)| format!("{bits}b×{count}")).collect();
    each.join(" ")
}

/// Chunks by the level that computed them, the highest first: `100%×8 60%×2`.
fn levels(usage: &ContextUsage) -> String {
    let each: Vec<String> = usage.levels.iter().rev().map(|(level, count)| format!("{level}%×{count}")).collect();
    each.join(" ")
}

/// Bytes in memory, and how many of them other contexts count too: `3.00 MiB (1.00 MiB shared)`.
fn memory(usage: &ContextUsage) -> String {
    let bytes = human_binary_bytes(usage.memory_bytes);
    match usage.shared_bytes {
        0 => bytes,
        shared => format!("{bytes} ({} shared)", human_binary_bytes(shared)),
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use concertina::service::ContextId;

    use super::*;

    fn usage() -> ContextUsage {
        ContextUsage {
            app: "mail".into(),
            id: ContextId(0xabc),
            tokens: 1930,
            created_ms: 1000,
            used_ms: 61_000,
            pinned: true,
            residence: Residence::Partly,
            memory_chunks: [(4, 120), (16, 1)].into(),
            levels: [(100, 119), (60, 2)].into(),
            memory_bytes: 3 << 20,
            shared_bytes: 1 << 20,
            disk_chunks: 120,
            disk_bytes: 5 << 20,
            evicted_after: Some(2),
        }
    }

    #[test]
    fn a_context_is_a_line() {
        let text = usage_table(&[usage()], 361_000);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("  ").filter(|c| !c.is_empty()).collect()).collect();
        let cells: Vec<&str> = lines[1].iter().map(|cell| cell.trim()).collect();
        let wanted = [
            "0000000000000abc",
            "mail",
            "1930",
            "partly",
            "4b×120 16b×1",
            "100%×119 60%×2",
            "5 min ago",
            "3.00 MiB (1.00 MiB shared)",
            "5.00 MiB",
        ];
        assert_eq!(cells[..9], wanted, "{text}");
        assert_eq!(cells[9..], ["2", "yes"]);
        assert_eq!(usage_json(&usage())["widths"], json!({"4": 120, "16": 1}));
    }

    #[test]
    fn times_are_rough() {
        let times = [(0, "now"), (59_999, "59 s ago"), (3_600_000, "1 h ago"), (200_000_000, "2 d ago")];
        times.into_iter().for_each(|(ms, text)| assert_eq!(ago(ms), text));
    }
}
