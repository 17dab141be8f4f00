//! Prints how fast the store seals, opens and commits, on files in memory: what it costs beside the disk.
//!
//! `cargo run --release -p concertina-kv --example store_speed`

#![allow(clippy::print_stdout, reason = "this is an application")]

use std::sync::Arc;
use std::time::Instant;

use concertina_kv::Width;
use concertina_kv::random::SplitMix;
use concertina_kv::store::{ChunkPut, MemoryMedium, ModelId, Options, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SmolLM2: 30 layers, 3 groups of 64, 4 bits with scales.
    const LAYERS: usize = 30;
    let layer_bytes = 2 * 3 * 16 * (32 + 4);
    let mut random = SplitMix::new(1);
    let layer: Vec<u8> = (0..layer_bytes).map(|_| random.next_u64() as u8).collect();
    let layers = vec![layer.as_slice(); LAYERS];
    let tokens: Vec<u32> = (0..2048).collect();

    let mut store = Store::open(Arc::new(MemoryMedium::new()), &Options::new([1; 32], [2; 32]))?;
    let context = store.create("mail", ModelId([0; 32]), 0)?;
    store.append("mail", context, 0, &tokens, 0)?;
    let puts: Vec<_> = (0..128)
        .map(|index| ChunkPut { index, tokens: 16, level: 0, width: Width::W4, density: 0.0, layers: &layers })
        .collect();
    let start = Instant::now();
    let report = store.put_chunks("mail", context, &puts)?;
    let put_s = start.elapsed().as_secs_f64();
    println!(
        "put {} chunks, {} bytes: {:.2} ms, {:.2} GB/s",
        report.written,
        report.bytes,
        1e3 * put_s,
        report.bytes as f64 / put_s / 1e9
    );

    let start = Instant::now();
    let readers = store.readers("mail", context)?;
    println!("readers of {} chunks: {:.2} ms", readers.len(), 1e3 * start.elapsed().as_secs_f64());
    let mut buffer = Vec::new();
    let start = Instant::now();
    for layer in 0..LAYERS {
        for reader in &readers {
            reader.read_layer(layer, &mut buffer)?;
        }
    }
    let read_s = start.elapsed().as_secs_f64();
    println!(
        "read and open them, layer by layer: {:.2} ms, {:.2} GB/s",
        1e3 * read_s,
        report.bytes as f64 / read_s / 1e9
    );

    let start = Instant::now();
    for at in 0..200 {
        store.append("mail", context, 2048 + 16 * at, &tokens[..16], 0)?;
    }
    println!("durable append of 16 tokens, without the syncs: {:.0} us", 1e6 * start.elapsed().as_secs_f64() / 200.0);
    println!("{:?}", store.stats()?);
    Ok(())
}
