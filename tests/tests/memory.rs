//! After loading, no second copy of the weights stays in host memory. The only test of its binary: it counts the memory
//! of the whole process.

use concertina::{Engine, Options};
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{Memory, load, mapped, memory, note, real_model};
use pollster::block_on;

const MIB: u64 = 1 << 20;
/// Keys and values.
const KV_BUDGET: u64 = 16 * MIB;
/// Activations and logits, compiled kernels, staging buffers of wgpu and blocks of its allocator
/// that are not full.
const OVERHEAD: u64 = 96 * MIB;
/// More of them while the weights move.
const STAGING: u64 = 64 * MIB;

fn options() -> Options {
    Options { context_tokens: 512, contexts: 1, kv_budget_bytes: KV_BUDGET, prefill_rows: 64, ..Options::default() }
}

fn row(name: &str, at: &Memory) -> String {
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let [anon, shmem, file, total, peak] = [at.anon, at.shmem, at.file, at.total(), at.peak].map(mib);
    format!("  {name:<16} {anon:>8.1} {shmem:>8.1} {file:>8.1} {total:>8.1} {peak:>8.1}")
}

fn check(name: &str) {
    let Some(path) = real_model(name) else { return };
    // What a driver takes before there is any model is not ours: a tiny model brings it in.
    let mut tiny = load(TinyModel::new("llama").gguf(), options());
    block_on(tiny.logits(&[1, 2, 3, 4], &[3], 100, 0)).expect("logits");
    drop(tiny);
    let Some(before) = memory() else {
        note("skipped: this system does not tell a process its memory");
        return;
    };
    let file = std::fs::metadata(&path).expect("a file").len();
    let model = concertina::native::open_model(&path).expect("a model");
    let opened = memory().expect("as before");
    assert!(mapped(&path) > Some(0), "{name}: the header was read, so some of the mapping is resident");
    let mut engine = block_on(Engine::load(model, options(), &mut |_, _| {})).expect("an engine");
    let loaded = memory().expect("as before");
    block_on(engine.logits(&[1, 2, 3, 4], &[3], 100, 0)).expect("logits");
    let used = memory().expect("as before");
    let resident = mapped(&path).expect("as before");
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    note(format!("{name}: a file of {:.1} MiB; resident MiB on {}", mib(file), engine.adapter()));
    note("                       anon    shmem     file    total     peak");
    note(row("before", &before));
    note(row("tokenizer read", &opened));
    note(row("after loading", &loaded));
    note(row("after a prompt", &used));
    let steady = used.total().saturating_sub(opened.total());
    let peak = used.peak.saturating_sub(opened.total());
    note(format!(
        "  since the tokenizer was read: steady {:.1} MiB, peak {:.1} MiB, of the mapped file {:.1} MiB",
        mib(steady),
        mib(peak),
        mib(resident)
    ));
    assert!(resident < MIB, "{name}: {resident} bytes of the mapped file stay resident");
    // A software adapter's memory is the host's: one copy of the weights is the model itself.
    let weights = if engine.is_software() { file } else { 0 };
    let bound = weights + KV_BUDGET + OVERHEAD;
    assert!(steady < bound, "{name}: {steady} bytes stay resident, {bound} are justified");
    assert!(peak < bound + STAGING, "{name}: {peak} bytes at the peak, {bound} stay");
}

#[test]
fn no_second_copy_of_the_weights_stays() {
    check("smollm2-135m-instruct-q4_1");
    check("qwen2.5-coder-0.5b-instruct-q4_k_m");
}
