//! A pass as a Chrome trace: open it in chrome://tracing or in Perfetto.

use serde_json::{Value, json};

use super::rows::Pass;

/// The last pass of each kind as complete events, one after the other on a row of its own.
pub fn trace(passes: &[Pass]) -> Value {
    let mut events = Vec::new();
    for (row, pass) in passes.iter().enumerate() {
        events.push(json!({
            "name": "thread_name", "ph": "M", "pid": 1, "tid": row + 1, "args": { "name": pass.name },
        }));
        let mut at = 0.0;
        for d in pass.passes.last().into_iter().flat_map(|pass| &pass.dispatches) {
            events.push(json!({
                "name": d.variant.name, "cat": d.variant.kernel, "ph": "X", "pid": 1, "tid": row + 1,
                "ts": at / 1e3, "dur": d.ns / 1e3,
                "args": {
                    "shape": d.shape, "workgroups": d.groups, "bytes": d.bytes, "flops": d.flops,
                    "gb_s": d.bytes.map(|b| b as f64 / d.ns.max(1.0)),
                    "gflop_s": d.flops.map(|f| f as f64 / d.ns.max(1.0)),
                },
            }));
            at += d.ns;
        }
    }
    json!({ "displayTimeUnit": "ms", "traceEvents": events })
}
