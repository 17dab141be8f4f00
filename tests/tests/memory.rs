//! After loading, no second copy of the weights stays in host memory. The only test of its binary: it counts the memory
//! of the whole process.

use concertina::{Engine, Options};
use concertina_tests::system::{Memory, memory, note, real_model};
use pollster::block_on;

const MIB: u64 = 1 << 20;
/// Keys and values, activations and logits.
const KV_BUDGET: u64 = 16 * MIB;
/// The driver with its compiled kernels, vocabularies and merges of the tokenizer, staging buffers of wgpu.
const OVERHEAD: u64 = 160 * MIB;

fn row(name: &str, at: &Memory, file: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    format!(
        "  {name:<18} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>9.2}",
        mib(at.anon),
        mib(at.shmem),
        mib(at.file),
        mib(at.total()),
        mib(at.peak),
        at.total() as f64 / file as f64
    )
}

fn check(name: &str) {
    let Some(path) = real_model(name) else { return };
    let Some(before) = memory() else {
        note("skipped: this system does not tell a process its memory");
        return;
    };
    let file = std::fs::metadata(&path).expect("a file").len();
    let options = Options {
        context_tokens: 512,
        contexts: 1,
        kv_budget_bytes: KV_BUDGET,
        prefill_rows: 64,
        ..Options::default()
    };
    let mut engine = block_on(Engine::open(&path, options)).expect("an engine");
    let loaded = memory().expect("as before");
    block_on(engine.logits(&[1, 2, 3, 4], &[3], 100, 0)).expect("logits");
    let used = memory().expect("as before");
    let software = engine.is_software();
    note(format!("{name}: the file takes {:.1} MiB; resident MiB on {}", file as f64 / MIB as f64, engine.adapter()));
    note("                         anon    shmem     file    total     peak  of file");
    note(row("before", &before, file));
    note(row("after loading", &loaded, file));
    note(row("after a prompt", &used, file));
    // A software adapter's memory is the host's: one copy of the weights is the model itself.
    let weights = if software { file } else { 0 };
    let steady = used.total() - before.total();
    let bound = weights + KV_BUDGET + OVERHEAD;
    assert!(steady < bound, "{name}: {steady} bytes stay resident, {bound} are justified");
    let mapped = used.file.saturating_sub(before.file);
    assert!(mapped < OVERHEAD / 2, "{name}: {mapped} bytes of mapped files stay resident");
    // The reading of one piece is under way while its copy is in flight: far from a second copy of the weights.
    let peak = used.peak.saturating_sub(before.total());
    assert!(peak < bound + 192 * MIB, "{name}: {peak} bytes at the peak, {bound} stay");
}

#[test]
fn no_second_copy_of_the_weights_stays() {
    check("smollm2-135m-instruct-q4_1");
    check("qwen2.5-coder-0.5b-instruct-q4_k_m");
}
