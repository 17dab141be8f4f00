//! Encoders: what is read of their files, what is refused, and word pieces with their places.

use std::collections::BTreeMap;

use concertina_formats::testing::{TinyBert, open_map};
use concertina_formats::{Bert, Result, open_bert, open_safetensors};

fn open(files: &BTreeMap<String, Vec<u8>>) -> Result<Bert> {
    open_bert(&open_map(files))
}

#[test]
fn a_tiny_encoder_is_read_whole() {
    let tiny = TinyBert::default();
    let bert = open(&tiny.files()).expect("an encoder");
    assert_eq!((bert.spec.layers, bert.spec.dim, bert.spec.heads, bert.spec.ffn), (4, 64, 4, 96));
    assert_eq!((bert.layers.len(), bert.layers[3].down.weight.cols, bert.types.rows), (4, 96, 2));
    assert_eq!(bert.tokenizer.vocab_len(), bert.words.rows);
}

#[test]
fn words_become_pieces() {
    let bert = open(&TinyBert::default().files()).expect("an encoder");
    let vocabulary = TinyBert::vocabulary();
    let pieces = |text: &str| -> Vec<String> {
        let ids = bert.tokenizer.encode(text, false).expect("pieces");
        ids.into_iter().map(|id| vocabulary[id as usize].clone()).collect()
    };
    assert_eq!(pieces("The QUICKLY fòx."), ["the", "quick", "##ly", "fox", "."]);
    assert_eq!(pieces("字"), ["[UNK]"]);
    assert!(pieces("\u{1}").is_empty());
    assert!(!pieces("[SEP]").contains(&"[SEP]".to_owned()), "what a text spells is text");
    assert_eq!(pieces(&"fox ".repeat(40)).len(), 40, "the file's truncation is off");
    assert_eq!((vocabulary[bert.cls as usize].as_str(), vocabulary[bert.sep as usize].as_str()), ("[CLS]", "[SEP]"));
}

#[test]
fn an_encoder_is_no_model_to_run() {
    let error = open_safetensors(&open_map(&TinyBert::default().files())).err().expect("refused").to_string();
    assert!(error.contains("encoder"), "{error}");
}

#[test]
fn what_is_no_such_encoder_is_named() {
    let refused = |named: &str, file: &str, from: &str, to: &str| {
        let mut files = TinyBert::default().files();
        let text = String::from_utf8_lossy(&files[file]).into_owned();
        assert!(text.contains(from), "{file} has {from}");
        files.insert(file.into(), text.replace(from, to).into_bytes());
        let error = open(&files).err().expect("refused").to_string();
        assert!(error.contains(named), "{error}");
    };
    refused("hidden_act", "config.json", "\"gelu\"", "\"relu\"");
    refused("model_type", "config.json", "\"bert\"", "\"llama\"");
    refused("num_attention_heads", "config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":5");
    refused("hidden_size", "config.json", "\"hidden_size\":64", "\"hidden_size\":0");
    refused("word_embeddings", "config.json", "\"vocab_size\":62", "\"vocab_size\":63");
    refused("[CLS]", "tokenizer.json", "[CLS]", "[CLX]");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let mut files = TinyBert::default().files();
        files.remove(file);
        let error = open(&files).err().expect("refused").to_string();
        assert!(error.contains(file), "{error}");
    }
    let mut cut = TinyBert::default().files();
    cut.get_mut("model.safetensors").expect("a file").truncate(20_000);
    assert!(open(&cut).is_err());
}

#[test]
fn no_flipped_byte_is_a_panic() {
    let files = TinyBert { layers: 1, ..TinyBert::default() }.files();
    let header = 8 + u64::from_le_bytes(files["model.safetensors"][..8].try_into().expect("eight bytes")) as usize;
    let mut refused = 0;
    for (file, end, step) in
        [("config.json", usize::MAX, 1), ("model.safetensors", header, 1), ("tokenizer.json", usize::MAX, 7)]
    {
        for at in (0..files[file].len().min(end)).step_by(step) {
            for flip in [0x01, 0x10, 0x80] {
                let mut files = files.clone();
                files.get_mut(file).expect("a file")[at] ^= flip;
                // It may still be an encoder, of other weights or words; then its tokenizer works or says why not.
                match open(&files) {
                    Ok(bert) => drop(bert.tokenizer.encode("the quick fox", false)),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
