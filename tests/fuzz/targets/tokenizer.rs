//! The input is a vocabulary (`tokenizer.json`, or a GGUF header where it begins so), `tokenizer_config.json`, and a text
//! that is encoded and decoded.
#![no_main]

use concertina_formats::gguf::Gguf;
use concertina_formats::{MemorySource, Result, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: init(), |data: &[u8]| {
    concertina_fuzz::guarded(|| {
        let _ = use_tokenizer(data);
    });
});

fn use_tokenizer(data: &[u8]) -> Result<()> {
    let [vocabulary, config, text] = concertina_fuzz::parts(data);
    let tokenizer = if vocabulary.starts_with(b"GGUF") {
        Tokenizer::from_gguf(&Gguf::parse(&MemorySource(vocabulary.to_vec()))?.metadata)?
    } else {
        Tokenizer::from_json(vocabulary, (!config.is_empty()).then_some(config), None)?
    };
    let text = String::from_utf8_lossy(text);
    for parse_special in [false, true] {
        let tokens = tokenizer.encode_prompt(&text, parse_special)?;
        tokenizer.decode(&tokens)?;
        let mut stream = tokenizer.stream();
        for &token in &tokens {
            tokenizer.is_end(token);
            stream.push(token)?;
        }
        stream.finish()?;
    }
    // Tokens that no text gave.
    tokenizer.decode(&[0, u32::MAX, tokenizer.vocab_len() as u32])?;
    Ok(())
}

fn init() {
    concertina_fuzz::expect_caught_panics();
    concertina_fuzz::write_seeds_if_asked("tokenizer");
}
