//! What must be refused, and what the error must say.

use concertina_formats::gguf::{Array, Gguf, Value};
use concertina_formats::testing::{GgufWriter, TinyModel, open_map};
use concertina_formats::{Error, MemorySource, open_gguf, open_safetensors};
use serde_json::json;

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted; expected an error with {words:?}") };
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} lacks one of {words:?}");
}

#[track_caller]
fn gguf_refused(bytes: Vec<u8>, words: &[&str]) {
    refused(Gguf::parse(&MemorySource(bytes)), words);
}

/// The case that makes candle-core 0.11 panic.
#[test]
fn alignment_of_zero_in_57_bytes() {
    let mut file = GgufWriter::new(3, 1);
    file.pair("general.alignment", Value::U32(0));
    let bytes = file.finish();
    assert_eq!(bytes.len(), 57);
    gguf_refused(bytes, &["'general.alignment'", "found 0", "power of two"]);
}

#[test]
fn odd_alignments() {
    for (alignment, word) in [(3u32, "found 3"), (1 << 20, "found 1048576"), (33, "found 33")] {
        let mut file = GgufWriter::default();
        file.pair("general.alignment", Value::U32(alignment));
        gguf_refused(file.finish(), &["'general.alignment'", word]);
    }
    let mut file = GgufWriter::default();
    file.pair("general.alignment", Value::Str("32".into()));
    gguf_refused(file.finish(), &["'general.alignment'", "a string"]);
}

/// The case that candle-core 0.11 accepts.
#[test]
fn tensors_larger_than_numbers() {
    for (dims, word) in [
        (&[1u64 << 40, 1 << 40][..], "overflow"),
        (&[1 << 32, 1 << 32, 1 << 32, 1 << 32], "overflow"),
        (&[1 << 30, 1 << 30], "cut or corrupt"),
        (&[64, 0], "zero"),
    ] {
        let mut file = GgufWriter::default();
        file.tensor("huge", dims, 0, &[0; 64]);
        gguf_refused(file.finish(), &["tensor 'huge'", word]);
    }
}

#[test]
fn tensor_tables() {
    let tensor = |name: &str, dims: &[u64], code: u32, data: &[u8]| {
        GgufWriter::default().tensor(name, dims, code, data).finish()
    };
    gguf_refused(tensor("w", &[33], 2, &[0; 36]), &["'w' dimensions", "33", "blocks of 32"]);
    gguf_refused(tensor("w", &[], 0, &[0; 4]), &["'w' number of dimensions", "found 0"]);
    gguf_refused(tensor("w", &[1; 5], 0, &[0; 4]), &["'w' number of dimensions", "found 5"]);
    gguf_refused(tensor("w", &[256], 10, &[0; 84]), &["tensor 'w'", "Q2_K"]);
    gguf_refused(tensor("w", &[256], 77, &[0; 84]), &["tensor 'w'", "number 77"]);
    gguf_refused(tensor("w", &[256], 0, &[0; 84]), &["'w' offset", "cut or corrupt"]);
    let twice = GgufWriter::default().tensor("w", &[1], 0, &[0; 4]).tensor("w", &[1], 0, &[0; 4]).finish();
    gguf_refused(twice, &["tensor 'w'", "twice"]);
    let mut crooked = GgufWriter::new(3, 4);
    crooked.tensor("a", &[1], 0, &[0; 4]).tensor("b", &[1], 0, &[0; 32]);
    gguf_refused(crooked.finish(), &["'b' offset", "4 is not a multiple of the alignment 32"]);
}

#[test]
fn headers() {
    gguf_refused(b"GGML\x03\0\0\0".to_vec(), &["magic", "GGUF"]);
    gguf_refused(vec![], &["magic", "ends after 0"]);
    gguf_refused(GgufWriter::new(1, 32).finish(), &["version 1"]);
    gguf_refused(GgufWriter::new(3 << 24, 32).finish(), &["big-endian"]);
    let mut counts = GgufWriter::default().finish();
    counts[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    gguf_refused(counts.clone(), &["tensor count", "18446744073709551615"]);
    counts[8..16].copy_from_slice(&0u64.to_le_bytes());
    counts[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    gguf_refused(counts, &["metadata count"]);
    let twice = GgufWriter::default().pair("k", Value::U8(1)).pair("k", Value::U8(1)).finish();
    gguf_refused(twice, &["metadata 'k'", "twice"]);
    let mut nested = Array::U8(vec![1]);
    for depth in 1..6 {
        let file = GgufWriter::default().pair("deep", Value::Array(nested.clone())).finish();
        assert_eq!(Gguf::parse(&MemorySource(file)).is_ok(), depth <= 4, "depth {depth}");
        nested = Array::Array(vec![nested]);
    }
}

#[test]
fn every_value_type_comes_back() {
    let pairs = [
        ("a", Value::U8(1)),
        ("b", Value::I8(-1)),
        ("c", Value::U16(2)),
        ("d", Value::I16(-2)),
        ("e", Value::U32(3)),
        ("f", Value::I32(-3)),
        ("g", Value::F32(1.5)),
        ("h", Value::Bool(true)),
        ("i", Value::Str("text".into())),
        ("j", Value::U64(4)),
        ("k", Value::I64(-4)),
        ("l", Value::F64(2.5)),
        ("m", Value::Array(Array::Array(vec![Array::I16(vec![-1, 2]), Array::Str(vec!["x".into()])]))),
        ("n", Value::Array(Array::Bool(vec![true, false]))),
        ("o", Value::Array(Array::F64(vec![0.5]))),
    ];
    let mut file = GgufWriter::new(2, 32);
    for (key, value) in &pairs {
        file.pair(key, value.clone());
    }
    let gguf = Gguf::parse(&MemorySource(file.finish())).unwrap();
    assert_eq!(gguf.version, 2);
    for (key, value) in &pairs {
        assert_eq!(gguf.metadata.get(key), Some(value), "{key}");
    }
    let meta = &gguf.metadata;
    assert_eq!((meta.u32("a").unwrap(), meta.u32("j").unwrap(), meta.f32("l").unwrap()), (1, 4, 2.5));
    assert_eq!((meta.str("i").unwrap(), meta.bool("h").unwrap()), ("text", true));
    refused(meta.u32("b"), &["metadata 'b'", "-1"]);
    refused(meta.u32("zz"), &["metadata 'zz'", "missing"]);
    refused(meta.strings("n"), &["metadata 'n'", "array of bool"]);
    assert_eq!(meta.opt_f32("zz").unwrap(), None);
}

/// A tiny model with one pair added, which must be refused.
#[track_caller]
fn with_pair(arch: &'static str, key: &str, value: Value, words: &[&str]) {
    let mut file = TinyModel::new(arch).gguf_writer();
    file.pair(key, value);
    refused(open_gguf(Box::new(MemorySource(file.finish()))), words);
}

#[test]
fn features_that_are_not_computed() {
    with_pair("llama", "llama.expert_count", Value::U32(8), &["'llama.expert_count'", "8 experts"]);
    let key = "gemma3.final_logit_softcapping";
    with_pair("gemma3", key, Value::F32(30.0), &[key, "30"]);
    with_pair("llama", "llama.attention.causal", Value::Bool(false), &["attention.causal"]);
    with_pair("qwen2", "qwen2.rope.scaling.type", Value::Str("yarn".into()), &["'yarn'"]);
    with_pair("llama", "llama.rope.dimension_count", Value::U32(8), &["dimension_count", "part of each head"]);
    with_pair("qwen2", "qwen2.attention.sliding_window", Value::U32(64), &["sliding_window", "64"]);
    with_pair("llama", "split.count", Value::U32(2), &["gguf-split"]);
    let mut file = TinyModel::new("llama").gguf_writer();
    file.tensor("blk.0.ffn_gate.bias", &[96], 0, &[0; 384]);
    let words = ["blk.0.ffn_gate.bias", "no part"];
    refused(open_gguf(Box::new(MemorySource(file.finish()))), &words);
    let mut file = TinyModel::new("llama").gguf_writer();
    file.tensor("blk.0.attn_output.bias", &[64], 0, &[1; 256]);
    refused(open_gguf(Box::new(MemorySource(file.finish()))), &["attn_output.bias", "bias on attention"]);
    let mut file = GgufWriter::default();
    file.pair("general.architecture", Value::Str("mamba".into()));
    refused(open_gguf(Box::new(MemorySource(file.finish()))), &["general.architecture", "mamba", "llama"]);
}

#[test]
fn shapes_that_do_not_fit() {
    type Change = fn(&mut TinyModel);
    let changes: [(Change, &[&str]); 8] = [
        (|t| t.n_groups = 3, &["head_count_kv", "3 KV heads do not divide 4"]),
        (|t| t.n_heads = 0, &["attn_q.weight", "zero"]),
        (|t| t.head_dim = 18, &["heads of 18", "multiples of 4"]),
        (|t| t.ffn = 100, &["MLP width of 100", "multiples of 32"]),
        (|t| t.dim = 72, &["residual width of 72"]),
        (|t| (t.n_heads, t.n_groups) = (3, 3), &["query heads' width of 48"]),
        (|t| t.context_len = 0, &["context_length", "found 0"]),
        (|t| t.n_layers = 0, &["block_count", "found 0"]),
    ];
    for (change, words) in changes {
        let mut tiny = TinyModel::new("qwen2");
        change(&mut tiny);
        refused(open_gguf(Box::new(MemorySource(tiny.gguf()))), words);
    }
}

#[test]
fn configs() {
    let cases = [
        ("model_type", json!("mixtral"), &["model_type", "mixtral"][..]),
        ("num_experts", json!(8), &["num_experts", "8 experts"]),
        ("num_key_value_heads", json!(3), &["num_key_value_heads", "do not divide"]),
        ("num_attention_heads", json!(0), &["num_attention_heads", "found 0"]),
        ("num_hidden_layers", json!(100_000), &["num_hidden_layers", "found 100000"]),
        ("num_hidden_layers", json!(-1), &["num_hidden_layers", "found -1"]),
        ("hidden_size", json!(128), &["model.embed_tokens.weight", "128"]),
        ("hidden_act", json!("gelu"), &["hidden_act", "'gelu'"]),
        ("mlp_bias", json!(true), &["mlp_bias"]),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), &["'yarn'"]),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0}), &["rope scale", "found 0"]),
        ("rope_theta", json!(-1.0), &["rope base", "found -1"]),
        ("quantization_config", json!({"bits": 4}), &["quantization_config"]),
        ("final_logit_softcapping", json!(30.0), &["final_logit_softcapping"]),
        ("tie_word_embeddings", json!(false), &["lm_head.weight", "missing"]),
        ("use_sliding_window", json!(true), &["use_sliding_window"]),
    ];
    let tiny = TinyModel::new("llama");
    for (key, value, words) in cases {
        let (mut files, mut config) = (tiny.safetensors(), tiny.config());
        config[key] = value;
        files.insert("config.json".into(), config.to_string().into_bytes());
        refused(open_safetensors(&open_map(&files)), words);
    }
    for missing in ["config.json", "tokenizer.json", "model.safetensors"] {
        let mut files = tiny.safetensors();
        files.remove(missing);
        refused(open_safetensors(&open_map(&files)), &[missing]);
    }
}

#[test]
fn safetensors_headers() {
    let with_header = |text: &str| {
        let mut files = TinyModel::new("llama").safetensors();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend([0; 64]);
        files.insert("model.safetensors".into(), bytes);
        files
    };
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let cases = [
        (entry("I8", "[4]", "[0,4]"), &["'w'", "I8"][..]),
        (entry("F32", "[4]", "[0,15]"), &["'w' data_offsets", "16 bytes"]),
        (entry("F32", "[17]", "[0,68]"), &["'w' data_offsets", "cut"]),
        (entry("F32", "[4]", "[18446744073709551600,0]"), &["'w' data_offsets"]),
        (entry("F32", "[1099511627776,1099511627776]", "[0,4]"), &["'w' shape", "overflows"]),
        (entry("F32", "[1,1,1,1,4]", "[0,16]"), &["'w'", "more than 4 dimensions"]),
        (entry("F32", "[]", "[0,4]"), &["'w' shape"]),
        (entry("F32", "[0]", "[0,0]"), &["'w' shape", "none of them 0"]),
        (r#"{"w":1}"#.into(), &["'w'"]),
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#
                .into(),
            &["'w'", "twice"],
        ),
        ("[]".into(), &["model.safetensors header"]),
    ];
    for (text, words) in cases {
        refused(open_safetensors(&open_map(&with_header(&text))), words);
    }
    let mut files = with_header("{}");
    files.get_mut("model.safetensors").unwrap()[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(open_safetensors(&open_map(&files)), &["model.safetensors header", "claims"]);
    files.insert("model.safetensors".into(), vec![1, 2]);
    refused(open_safetensors(&open_map(&files)), &["model.safetensors header", "2 bytes"]);
}
