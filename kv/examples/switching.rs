//! Prints what the policies come to, over 72 hours of calls: switch latency on several devices and patterns, and how many
//! contexts stay within 10 and 25 ms.
//!
//! `cargo run --release -p concertina-kv --example switching [-- --json | CALLS.json]`, where CALLS.json is what
//! `scripts/chitchat-trace` writes: a list of [seconds, conversation].

#![allow(clippy::print_stdout, reason = "this is an application")]

use concertina_kv::policy::Policy;
use concertina_kv::sim::{Device, KvBytes, Pattern, Report, Scenario, contexts_within, poisson, recorded, run};

/// Devices that a model of seven billion weights could run on: tokens prefilled in a second, and megabytes that its disk gives. The
/// paper's devices and their rates were not found. Those of the boards and the phone follow from what is public of their kind: 40 % of
/// the GPU's f16 rate (1.33 and 3.76 TFLOPS) at 2 FLOP a weight and token, the phone's from 239 tokens/s of a 1.5B model reported
/// for llama.cpp on such a GPU; the disk's interface at its specified rate, half of it for PCIe. The others are assumed.
const DEVICES: [(&str, f64, f64); 7] = [
    ("Jetson TX2, eMMC 5.1", 38.0, 400.0),
    ("Jetson Orin NX, NVMe on PCIe 4.0 x4", 107.0, 3900.0),
    ("a phone with Snapdragon 8 Gen 3, UFS 4.0", 51.0, 4200.0),
    ("assumed: a phone's CPU, UFS 3", 10.0, 1000.0),
    ("assumed: a phone's NPU, UFS 3", 300.0, 1000.0),
    ("assumed: a board with NVMe", 300.0, 2000.0),
    ("assumed: a GPU and a SATA disk", 3000.0, 500.0),
];

/// Contexts are counted up to here.
const MOST: usize = 256;

fn table(title: &str, report: &Report) {
    println!("\n{title}\n{:<22}{:>12}{:>12}{:>12}{:>9}", "policy", "mean ms", "p95 ms", "max ms", "splits");
    for p in &report.policies {
        println!("{:<22}{:>12.2}{:>12.2}{:>12.2}{:>9}", p.policy.name(), p.mean_ms, p.p95_ms, p.max_ms, p.splits);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = 1;
    let markov = |device| Scenario::switching(device, Pattern::Markov, seed);
    match std::env::args().nth(1).as_deref() {
        Some("--json") => {
            println!("{}", serde_json::to_string_pretty(&run(&markov(Device::LAVAPIPE)))?);
            return Ok(());
        }
        Some(path) => {
            let calls: Vec<(f64, u64)> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
            for contexts in [8, 32] {
                let scenario = Scenario { trace: recorded(&calls, contexts), contexts, ..markov(Device::LAVAPIPE) };
                let title = format!("recorded calls, {} of them, {contexts} contexts", scenario.trace.len());
                table(&title, &run(&scenario));
            }
            return Ok(());
        }
        None => {}
    }
    for (name, pattern) in [("random", Pattern::Random), ("Markov", Pattern::Markov), ("Gaussian", Pattern::Gaussian)] {
        let title = format!("8 contexts of 2,048 tokens, memory for 2, {name}, 100 tokens/s, disk 1 GB/s");
        table(&title, &run(&Scenario::switching(Device::LAVAPIPE, pattern, seed)));
    }
    for disk_mb_s in [500.0, 100.0, 20.0] {
        let title = format!("the same, Markov, disk throttled to {disk_mb_s} MB/s");
        table(&title, &run(&markov(Device::LAVAPIPE.throttled(disk_mb_s * 1e6))));
    }
    let fast = Device { recompute_tokens_per_s: 2000.0, ..Device::CPU.throttled(100e6) };
    table("a device that prefills 2,000 tokens/s, disk 100 MB/s", &run(&markov(fast)));

    let kv = KvBytes::LLAMA2_7B;
    for (name, tokens_per_s, disk_mb_s) in DEVICES {
        let device = Device { recompute_tokens_per_s: tokens_per_s, ..Device::CPU };
        let device = Device { read_bytes_per_s: disk_mb_s * 1e6, write_bytes_per_s: disk_mb_s * 1e6, ..device };
        let memory_bytes = 2 * kv.context_bytes(2048 + 256);
        for contexts in [8, 16] {
            let trace = poisson(72.0 * 3600.0, 300.0, Pattern::Markov, contexts, seed);
            let scenario = Scenario { trace, contexts, kv, memory_bytes, ..markov(device) };
            let title = format!("{name}: {contexts} contexts of a 7B, {tokens_per_s} tokens/s, {disk_mb_s} MB/s");
            table(&title, &run(&scenario));
        }
    }

    println!("\ncontexts of 2,048 tokens within a mean of 10 / 25 ms, Random, 100 tokens/s, disk 1 GB/s");
    println!("{:<22}{:>16}{:>16}{:>16}", "policy", "128 MiB", "256 MiB", "512 MiB");
    for policy in [Policy::Swap, Policy::ChunkSwap, Policy::ChunkSwapInt8, Policy::Ours] {
        print!("{:<22}", policy.name());
        for mib in [128_u64, 256, 512] {
            let scenario = Scenario { memory_bytes: mib << 20, kv: KvBytes::SMOLLM2, ..markov(Device::LAVAPIPE) };
            let trace = |contexts| poisson(72.0 * 3600.0, 300.0, Pattern::Random, contexts, seed);
            let within = |limit_ms| match contexts_within(&scenario, policy, limit_ms, MOST, &trace) {
                MOST => format!("{MOST}+"),
                contexts => contexts.to_string(),
            };
            print!("{:>16}", format!("{} / {}", within(10.0), within(25.0)));
        }
        println!();
    }
    Ok(())
}
