//! The input is a Hugging Face directory: its files, one after the other. The tokenizer is always the same.
#![no_main]

use concertina_formats::testing::Vocabulary;
use concertina_formats::{ByteSource, MemorySource, Result, open_safetensors};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Vec<u8>> =
    LazyLock::new(|| Vocabulary::new().tokenizer_json().to_string().into_bytes());

fuzz_target!(init: init(), |data: &[u8]| {
    let [config, tokenizer_config, index, first, second, whole] = concertina_fuzz::parts(data);
    let open = |name: &str| -> Result<Option<Box<dyn ByteSource>>> {
        let bytes = match name {
            "config.json" => config,
            "tokenizer.json" => &TOKENIZER,
            "tokenizer_config.json" => tokenizer_config,
            "model.safetensors.index.json" => index,
            "model-00001-of-00002.safetensors" => first,
            "model-00002-of-00002.safetensors" => second,
            "model.safetensors" => whole,
            _ => return Ok(None),
        };
        let source = || Box::new(MemorySource(bytes.to_vec())) as Box<dyn ByteSource>;
        Ok((!bytes.is_empty()).then(source))
    };
    concertina_fuzz::guarded(std::panic::AssertUnwindSafe(|| {
        let Ok(model) = open_safetensors(&open) else { return };
        let lens: Vec<u64> = model.sources.iter().map(|source| source.len()).collect();
        for layer in &model.tensors.layers {
            for info in [&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down] {
                assert!(info.offset + info.bytes <= lens[info.source]);
            }
        }
    }));
});

fn init() {
    concertina_fuzz::expect_caught_panics();
    concertina_fuzz::write_seeds_if_asked("safetensors");
}
