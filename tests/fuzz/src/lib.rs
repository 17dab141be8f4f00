//! What the fuzz targets share: inputs made of parts, seeds from tiny models, and a hook for panics that are caught.

use concertina_formats::DType;
use concertina_formats::gguf::Value;
use concertina_formats::testing::{
    CHAT_TEMPLATE, GgufWriter, TinyModel, Vocabulary, header_fields, split_in_shards,
};
use std::path::Path;

/// Between the parts of an input; found in no file that is text.
const SEPARATOR: &[u8] = b"\0|\0";

/// Cut an input into `N` parts; missing ones are empty, and the last takes the rest.
pub fn parts<const N: usize>(mut input: &[u8]) -> [&[u8]; N] {
    let mut parts = [&input[..0]; N];
    for (i, part) in parts.iter_mut().enumerate() {
        let at = input
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR);
        match at.filter(|_| i + 1 < N) {
            Some(at) => (*part, input) = (&input[..at], &input[at + SEPARATOR.len()..]),
            None => {
                *part = input;
                break;
            }
        }
    }
    parts
}

/// If `CONCERTINA_FUZZ_SEEDS` names a folder, write the seeds of `target` there and end the process: the instrumented
/// binary is its own seed maker, so that nothing is built twice.
pub fn write_seeds_if_asked(target: &str) {
    let Some(folder) = std::env::var_os("CONCERTINA_FUZZ_SEEDS") else {
        return;
    };
    let seeds = match target {
        "gguf" => gguf_seeds(),
        "safetensors" => safetensors_seeds(),
        "tokenizer" => tokenizer_seeds(),
        "template" => template_seeds(),
        other => panic!("no seeds for {other}"),
    };
    for (i, seed) in seeds.iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{i:02}"));
        std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    std::process::exit(0);
}

/// Replace libFuzzer's hook, which aborts on every panic, by one that is silent: for targets whose panics are caught by
/// the code under test. A panic that escapes still ends the process, in `guarded`.
pub fn expect_caught_panics() {
    std::panic::set_hook(Box::new(|_| ()));
}

/// Run `work`; a panic that reaches here is a bug.
pub fn guarded(work: impl FnOnce() + std::panic::UnwindSafe) {
    if let Err(panic) = std::panic::catch_unwind(work) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        eprintln!("a panic escaped: {}", text.unwrap_or_default());
        std::process::abort();
    }
}

fn tiny(arch: &'static str) -> TinyModel {
    let mut tiny = TinyModel::new(arch);
    (
        tiny.dim,
        tiny.ffn,
        tiny.n_heads,
        tiny.n_groups,
        tiny.head_dim,
    ) = (32, 32, 2, 1, 16);
    tiny.n_layers = 1;
    tiny
}

fn gguf_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = ["llama", "qwen2", "gemma3"]
        .map(|arch| tiny(arch).with_dtype(DType::Q4_0).gguf())
        .into();
    let mut zero = GgufWriter::new(3, 1);
    seeds.push(zero.pair("general.alignment", Value::U32(0)).finish());
    seeds.push(
        GgufWriter::default()
            .tensor("huge", &[1 << 40, 1 << 40], 0, &[0; 64])
            .finish(),
    );
    seeds
}

/// `config.json`, `tokenizer_config.json`, the index, then up to two safetensors files.
fn safetensors_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for arch in ["llama", "qwen2", "gemma3"] {
        let whole = tiny(arch).with_dtype(DType::F16).safetensors();
        let sharded = split_in_shards(whole.clone(), 2);
        for files in [whole, sharded] {
            let get = |name: &str| files.get(name).cloned().unwrap_or_default();
            let names = [
                "config.json",
                "tokenizer_config.json",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors",
            ];
            seeds.push(names.map(get).join(SEPARATOR));
        }
    }
    seeds
}

/// `tokenizer.json` or the header of a GGUF file, `tokenizer_config.json`, a text.
fn tokenizer_seeds() -> Vec<Vec<u8>> {
    let vocabulary = Vocabulary::new();
    let json = vocabulary.tokenizer_json().to_string().into_bytes();
    let config = vocabulary
        .tokenizer_config(true, None)
        .to_string()
        .into_bytes();
    let text = "<|im_start|>user\nThe heron and the ring: 42 — \u{1f980}.<|im_end|>".as_bytes();
    let mut seeds = vec![[&json[..], &config, text].join(SEPARATOR)];
    for arch in ["llama", "qwen2", "gemma3"] {
        let file = tiny(arch).gguf();
        let (_, end) = header_fields(&file);
        let mut header = file[..end].to_vec();
        header[8..16].fill(0); // no tensors: only the vocabulary matters here
        seeds.push([&header[..], &config, text].join(SEPARATOR));
    }
    seeds
}

/// A template, then the conversation: one message a line.
fn template_seeds() -> Vec<Vec<u8>> {
    [
        CHAT_TEMPLATE,
        "{{ bos_token }}{% for m in messages %}{{ m.role | upper }}: {{ m.content | trim }}{% endfor %}{{ eos_token }}",
        "{% set ns = namespace(n=0) %}{% for m in messages if m['role'] == 'user' %}{% set ns.n = ns.n + 1 %}\
         {{ m.content.split('x')[-1].strip() }}{% endfor %}{{ ns.n }}{{ raise_exception('no') }}",
        "{% macro f(x) %}{{ x }}{{ x | tojson }}{% endmacro %}{% for i in range(9) %}{{ f(messages[0]['content']) }}{% endfor %}",
    ]
    .map(|template| [template.as_bytes(), b"Be brief.\nHello, heron!\nHello."].join(SEPARATOR))
    .into()
}
