//! Tokenizers of real files against llama.cpp's tokens.
//!
//! Needs `CONCERTINA_TEST_MODELS`, a directory with `<model name>.gguf`; without it the tests say so and pass. The oracle
//! lies in `../shared/oracle` beside the workspace, or in `CONCERTINA_ORACLE`.
#![allow(clippy::print_stdout)] // how long building took, and what was skipped

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use concertina_formats::gguf::Gguf;
use concertina_formats::{ByteSource, Tokenizer};
use serde_json::Value;

const MODELS: [&str; 3] = ["smollm2-135m-instruct-q4_1", "qwen2.5-coder-0.5b-instruct-q4_k_m", "gemma-3-270m-q4_k_m"];

struct FileSource(Mutex<File>, u64);

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap();
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}

fn open(model: &str) -> Option<Tokenizer> {
    let Some(dir) = std::env::var_os("CONCERTINA_TEST_MODELS") else {
        println!("skipped {model}: CONCERTINA_TEST_MODELS is not set");
        return None;
    };
    let path = Path::new(&dir).join(format!("{model}.gguf"));
    let Ok(file) = File::open(&path) else {
        println!("skipped {model}: {} cannot be opened", path.display());
        return None;
    };
    let len = file.metadata().unwrap().len();
    let gguf = Gguf::parse(&FileSource(Mutex::new(file), len)).unwrap();
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata).unwrap();
    println!("{model}: tokenizer built in {} ms", start.elapsed().as_millis());
    Some(tokenizer)
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("data/llama_cpp_tokens.json")).unwrap()
}

#[test]
fn prompts_have_the_oracles_tokens() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let dir = std::env::var_os("CONCERTINA_ORACLE").map_or(beside, PathBuf::from);
    let read = |name: &str| std::fs::read(dir.join(name)).ok();
    let Some(prompts) = read("prompts.json") else {
        println!("skipped: no oracle in {}", dir.display());
        return;
    };
    let prompts: Value = serde_json::from_slice(&prompts).unwrap();
    for model in MODELS {
        let (Some(tokenizer), Some(oracle)) = (open(model), read(&format!("{model}.json"))) else {
            continue;
        };
        let oracle: Value = serde_json::from_slice(&oracle).unwrap();
        for (name, expected) in oracle["prompts"].as_object().unwrap() {
            let prompt = &prompts[name];
            let special = prompt["special"].as_bool().unwrap_or(false);
            let mut found = tokenizer.encode_prompt(prompt["text"].as_str().unwrap(), special).unwrap();
            let expected = tokens(&expected["tokens"]);
            if prompt.get("max_tokens_in").is_some() {
                found.truncate(expected.len());
            }
            assert_eq!(found, expected, "{model}, {name}");
            println!("{model}, {name}: {} tokens agree", expected.len());
        }
    }
}

#[test]
fn odd_texts_have_llama_cpps_tokens() {
    let golden = golden();
    for model in MODELS {
        let Some(tokenizer) = open(model) else {
            continue;
        };
        let expected = &golden["models"][model];
        let mut wrong = Vec::new();
        for (index, text) in golden["texts"].as_array().unwrap().iter().enumerate() {
            let text = text.as_str().unwrap();
            let plain = tokens(&expected["plain"][index]);
            let mut check = |special: bool, expected: Vec<u32>| {
                let found = tokenizer.encode(text, special).unwrap();
                if found != expected {
                    wrong.push(format!("{text:?} special {special}: {found:?}, llama.cpp {expected:?}"));
                }
            };
            check(false, plain.clone());
            check(true, expected["special"].get(index.to_string()).map_or(plain, tokens));
        }
        assert!(wrong.is_empty(), "{model}: {}\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn texts_come_back_and_streams_equal_decoding() {
    let golden = golden();
    for model in MODELS {
        let Some(tokenizer) = open(model) else {
            continue;
        };
        for text in golden["texts"].as_array().unwrap() {
            let text = text.as_str().unwrap();
            let tokens = tokenizer.encode(text, false).unwrap();
            let decoded = tokenizer.decode(&tokens).unwrap();
            // SentencePiece cannot tell U+2581 from a space; SmolLM2 has no token for some control bytes.
            let lossy = (model.starts_with("gemma") && text.contains('\u{2581}'))
                || (model.starts_with("smollm") && text.chars().any(|c| c.is_control() || u32::from(c) > 0xFFFF));
            if !lossy {
                assert_eq!(decoded, text, "{model}");
            }
            let mut stream = tokenizer.stream();
            let mut streamed: String = tokens.iter().map(|token| stream.push(*token).unwrap()).collect();
            streamed.push_str(&stream.finish().unwrap());
            assert_eq!(streamed, decoded, "{model}");
        }
        // All tokens in a row, whatever bytes that makes.
        let all: Vec<u32> = (0..u32::try_from(tokenizer.vocab_len()).unwrap()).rev().collect();
        let mut stream = tokenizer.stream();
        let mut streamed: String = all.iter().map(|token| stream.push(*token).unwrap()).collect();
        streamed.push_str(&stream.finish().unwrap());
        assert_eq!(streamed, tokenizer.decode(&all).unwrap());
        assert!(tokenizer.decode(&[u32::try_from(tokenizer.vocab_len()).unwrap()]).is_err());
    }
}

#[test]
fn roles_of_real_files() {
    if let Some(smollm) = open(MODELS[0]) {
        assert_eq!((smollm.bos(), smollm.eos(), smollm.vocab_len()), (None, Some(2), 49152));
        assert_eq!((smollm.bos_text().as_str(), smollm.eos_text().as_str()), ("<|im_start|>", "<|im_end|>"));
        assert!(smollm.is_end(2) && smollm.is_end(0) && !smollm.is_end(1));
        assert_eq!(smollm.decode(&[1, 504, 2]).unwrap(), "The");
    }
    if let Some(qwen) = open(MODELS[1]) {
        assert_eq!((qwen.bos(), qwen.eos(), qwen.vocab_len()), (None, Some(151_645), 151_936));
        assert!(qwen.is_end(151_643) && qwen.is_end(151_645) && !qwen.is_end(151_644));
        assert_eq!(qwen.token_text(151_657).as_deref(), Some("<tool_call>"));
    }
    if let Some(gemma) = open(MODELS[2]) {
        assert_eq!((gemma.bos(), gemma.eos(), gemma.vocab_len()), (Some(2), Some(1), 262_144));
        assert!(gemma.is_end(1) && gemma.is_end(106) && !gemma.is_end(2));
        assert_eq!(gemma.encode_prompt("<bos>a", true).unwrap(), gemma.encode_prompt("a", true).unwrap());
    }
}

#[test]
fn long_texts_take_time_in_proportion() {
    for model in MODELS {
        let Some(tokenizer) = open(model) else {
            continue;
        };
        for text in
            ["a".repeat(1 << 20), " ".repeat(3 << 20), "The ships, 12 of them. ".repeat(50_000), "<|im".repeat(1 << 18)]
        {
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, true).unwrap();
            let took = start.elapsed();
            println!(
                "{model}: {} bytes from {:?}: {} tokens in {} ms",
                text.len(),
                &text[..4],
                tokens.len(),
                took.as_millis()
            );
            assert!(took.as_secs() < 20);
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
        }
    }
}
