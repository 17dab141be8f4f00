//! One model, many files: GGUF and safetensors, whole and in shards, in every type.

use std::collections::BTreeMap;
use std::path::Path;

use concertina::Engine;
use concertina_formats::testing::{TinyModel, open_map, split_in_shards};
use concertina_formats::{DType, open_safetensors};
use concertina_tests::system::{Deviation, SMALL_ARCHS, ids, load, note, options, tiny};
use pollster::block_on;

fn logits(engine: &mut Engine) -> Vec<Vec<f32>> {
    block_on(engine.logits(&ids(45, 11), &[0, 20, 44], 100, 0)).expect("logits")
}

fn load_directory(files: &BTreeMap<String, Vec<u8>>) -> Engine {
    let model = open_safetensors(&open_map(files)).expect("a model");
    block_on(Engine::load(model, options(None), &mut |_, _| {})).expect("an engine")
}

fn write_directory(path: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).expect("a file of the directory");
    }
}

/// Models whose files differ most between the two worlds: rotated rows are permuted, norms are folded.
fn variants() -> Vec<TinyModel> {
    let mut all: Vec<TinyModel> = SMALL_ARCHS.map(tiny).into();
    all.push(TinyModel { qkv_bias: true, tied: false, ..tiny("llama") });
    all
}

#[test]
fn gguf_and_safetensors_give_the_same_logits() {
    for base in variants() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let model = base.clone().with_dtype(dtype);
            let expected = logits(&mut load(model.gguf(), options(None)));
            let found = logits(&mut load_directory(&model.safetensors()));
            let deviation = Deviation::of(&found, &expected);
            let name = format!("{}{} {dtype:?}", model.arch, if model.qkv_bias { " with biases" } else { "" });
            assert!(deviation.relative <= 1e-3, "{name}: {deviation}");
            note(format!("{name}, GGUF and safetensors: {deviation}"));
        }
    }
}

#[test]
fn a_directory_in_shards_on_disk() {
    for arch in SMALL_ARCHS {
        let files = tiny(arch).safetensors();
        let expected = logits(&mut load_directory(&files));
        for shards in [1, 3] {
            let directory = tempfile::tempdir().expect("a directory");
            write_directory(directory.path(), &split_in_shards(files.clone(), shards));
            let mut engine = block_on(Engine::open(directory.path(), options(None))).expect("an engine");
            assert_eq!(logits(&mut engine), expected, "{arch} in {shards} shards");
        }
    }
}

#[test]
fn every_type_of_gguf_agrees_with_the_cpu_twins() {
    for dtype in DType::ALL {
        for arch in SMALL_ARCHS {
            let bytes = TinyModel { tied: false, ..TinyModel::new(arch) }.with_dtype(dtype).gguf();
            let found = logits(&mut load(bytes.clone(), options(None)));
            let expected = logits(&mut load(bytes, options(Some("cpu"))));
            let deviation = Deviation::of(&found, &expected);
            assert!(deviation.relative <= 1e-3, "{arch} {dtype:?}: {deviation}");
            note(format!("{arch} {dtype:?}: {deviation}"));
        }
    }
}

#[test]
fn mixed_types_and_scaled_positions() {
    let base = TinyModel {
        embed: DType::Q8_0,
        output: DType::F16,
        tied: false,
        matrices: DType::Q4_1,
        overrides: vec![("ffn_down", DType::Q8_0), ("attn_v", DType::BF16), ("attn_output", DType::F32)],
        ..tiny("llama")
    };
    let factors: Vec<f32> = (0..base.head_dim / 2).map(|i| 1.0 + i as f32).collect();
    let scaled = TinyModel { rope_factors: factors, ..base.clone() };
    let [plain, scaled] = [base, scaled].map(|model| {
        let found = logits(&mut load(model.gguf(), options(None)));
        let expected = logits(&mut load(model.gguf(), options(Some("cpu"))));
        let deviation = Deviation::of(&found, &expected);
        assert!(deviation.relative <= 1e-3, "{deviation}");
        found
    });
    assert!(Deviation::of(&plain, &scaled).relative > 1e-2, "factors of the rotation change the logits");
}
