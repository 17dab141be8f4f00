//! Models that tests run: tiny ones made on the spot, and real ones where the machine has them.

use std::path::PathBuf;

use concertina::{Engine, Options};
use concertina_formats::testing::{Rng, TinyModel};
use concertina_formats::{MemorySource, Model, open_gguf};

use super::note;

/// The architectures of tiny models.
pub const SMALL_ARCHS: [&str; 3] = ["llama", "qwen2", "gemma3"];

/// A real model by its name in the catalogue, from the directory `CONCERTINA_TEST_MODELS`; `None`, and a line that says
/// so, where it is absent.
pub fn real_model(name: &str) -> Option<PathBuf> {
    let Some(directory) = std::env::var_os("CONCERTINA_TEST_MODELS") else {
        note(format!("skipped: {name} (CONCERTINA_TEST_MODELS names no directory)"));
        return None;
    };
    let path = PathBuf::from(directory).join(format!("{name}.gguf"));
    if !path.is_file() {
        note(format!("skipped: {name} (no such file in CONCERTINA_TEST_MODELS)"));
        return None;
    }
    Some(path)
}

/// Options that fit a small machine; `adapter` as in [`Options::adapter`].
pub fn options(adapter: Option<&str>) -> Options {
    Options {
        adapter: adapter.map(str::to_owned),
        context_tokens: 640,
        contexts: 3,
        kv_budget_bytes: 64 << 20,
        prefill_rows: 128,
        ..Options::default()
    }
}

/// A model from the bytes of a GGUF file.
///
/// # Panics
/// If the file is refused.
pub fn data_model(bytes: Vec<u8>) -> Model {
    open_gguf(Box::new(MemorySource(bytes))).expect("a model")
}

/// An engine with a model from the bytes of a GGUF file.
///
/// # Panics
/// If the file is refused or no adapter runs it.
pub fn load(bytes: Vec<u8>, options: Options) -> Engine {
    pollster::block_on(Engine::load(data_model(bytes), options, &mut |_, _| {})).expect("an engine")
}

/// A tiny model that every level can cut: several groups, whose columns of O fill whole panels, and neurons enough for
/// each step of ten percent to differ.
pub fn tiny(arch: &'static str) -> TinyModel {
    TinyModel { n_heads: 10, n_groups: 5, head_dim: 16, ffn: 320, ..TinyModel::new(arch) }
}

/// `n` pseudo-random tokens of a tiny model, none of them special.
pub fn ids(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.below(256) as u32).collect()
}
