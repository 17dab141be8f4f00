//! Tokenizers from small crafted files: the rules one by one, and that nonsense is an error and never a panic.

use concertina_formats::gguf::{Array, Metadata, Value};
use concertina_formats::{Error, Tokenizer};
use serde_json::json;

/// A byte-level vocabulary: all bytes in order, then `more` with their types.
fn byte_level(pre: &str, more: &[(&str, i32)], merges: &[&str]) -> Metadata {
    let mut tokens: Vec<String> = (0..=255_u8).map(spelled).collect();
    let mut types = vec![1; tokens.len()];
    for (text, kind) in more {
        tokens.push((*text).into());
        types.push(*kind);
    }
    let mut meta = Metadata::default();
    meta.insert("tokenizer.ggml.model", Value::Str("gpt2".into()));
    meta.insert("tokenizer.ggml.pre", Value::Str(pre.into()));
    meta.insert("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens)));
    meta.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let merges = merges.iter().map(|merge| (*merge).to_owned()).collect();
    meta.insert("tokenizer.ggml.merges", Value::Array(Array::Str(merges)));
    meta
}

/// GPT-2's alphabet, written another way than in the library.
fn spelled(byte: u8) -> String {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte).to_string();
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    char::from_u32(256 + u32::try_from(before).unwrap()).unwrap().to_string()
}

/// A SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, 256 bytes, then `pieces` with scores and types.
fn sentence(pieces: &[(&str, f32, i32)], add_space_prefix: bool) -> Metadata {
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into(), "</s>".into()];
    let mut types = vec![2, 3, 3];
    for byte in 0..=255 {
        tokens.push(format!("<0x{byte:02X}>"));
        types.push(6);
    }
    let mut scores = vec![0.0; tokens.len()];
    for (text, score, kind) in pieces {
        tokens.push((*text).into());
        scores.push(*score);
        types.push(*kind);
    }
    let mut meta = Metadata::default();
    meta.insert("tokenizer.ggml.model", Value::Str("llama".into()));
    meta.insert("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens)));
    meta.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    meta.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    meta.insert("tokenizer.ggml.add_space_prefix", Value::Bool(add_space_prefix));
    meta
}

fn odd_texts() -> Vec<String> {
    let mut texts: Vec<String> =
        ["", " ", "  a  b ", "é漢🙂\u{200d}👩", "\0\u{1}\u{7f}\u{ad}\u{feff}", "a\r\n\t\u{2028}b", "<s>a<|x|>"]
            .map(String::from)
            .into();
    // Every tenth character of Unicode, in texts of a thousand.
    let all: Vec<char> = (0..0x11_0000).step_by(10).filter_map(char::from_u32).filter(|c| *c != '\u{2581}').collect();
    texts.extend(all.chunks(1000).map(|chunk| chunk.iter().collect()));
    texts
}

fn assert_round_trip(tokenizer: &Tokenizer, text: &str) {
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
    let mut stream = tokenizer.stream();
    let mut streamed: String = tokens.iter().map(|token| stream.push(*token).unwrap()).collect();
    streamed.push_str(&stream.finish().unwrap());
    assert_eq!(streamed, text);
}

#[test]
fn byte_level_tokens_and_merges() {
    let more = [("he", 1), ("ll", 1), ("hell", 1), ("<|x|>", 3), ("<|x|><|y|>", 3), ("@@", 4), ("Ġ", 1)];
    let merges = ["l l", "h e", "he ll"];
    let tokenizer = Tokenizer::from_gguf(&byte_level("gpt-2", &more, &merges)).unwrap();
    assert_eq!(tokenizer.encode("hello", false).unwrap(), [258, u32::from(b'o')]);
    // The last token of a text wins, and the first still decodes.
    assert_eq!(tokenizer.encode(" ", false).unwrap(), [262]);
    assert_eq!(tokenizer.decode(&[32, 262]).unwrap(), "  ");
    // Control tokens only on request, user-defined ones always, the longest first.
    assert_eq!(tokenizer.encode("@@<|x|>", true).unwrap(), [261, 259]);
    assert_eq!(tokenizer.encode("<|x|><|y|>", true).unwrap(), [260]);
    let plain = tokenizer.encode("@@<|x|>", false).unwrap();
    assert_eq!((plain[0], plain.len()), (261, 6));
    assert_eq!(tokenizer.decode(&[259, 261, 104]).unwrap(), "@@h");
    assert_eq!(tokenizer.token_text(259).as_deref(), Some("<|x|>"));
    for text in odd_texts() {
        assert_round_trip(&tokenizer, &text);
    }
}

#[test]
fn merges_never_spell_a_control_token() {
    let more = [("ab", 3), ("abc", 1)];
    for pre in ["gpt-2", "llama-bpe"] {
        let mut meta = byte_level(pre, &more, &["a b", "ab c"]);
        meta.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
        let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
        assert_eq!(tokenizer.encode("ab", false).unwrap(), [97, 98]);
        assert_eq!(tokenizer.encode("ab", true).unwrap(), [256]);
    }
}

#[test]
fn sentence_pieces_merge_by_score_leftmost_first() {
    let pieces = [
        ("a", -1.0, 1),
        ("b", -1.0, 1),
        ("aa", -2.0, 1),
        ("ab", -2.0, 1),
        ("\u{2581}", -3.0, 1),
        ("\u{2581}a", -9.0, 1),
    ];
    let tokenizer = Tokenizer::from_gguf(&sentence(&pieces, false)).unwrap();
    let [a, b, aa, ab, space, _] = [259, 260, 261, 262, 263, 264];
    assert_eq!(tokenizer.encode("aaa", false).unwrap(), [aa, a]);
    assert_eq!(tokenizer.encode("aab", false).unwrap(), [aa, b]);
    assert_eq!(tokenizer.encode("bab a", false).unwrap(), [b, ab, 264]);
    assert_eq!(tokenizer.encode("b ", false).unwrap(), [b, space]);
    // What has no piece is bytes.
    assert_eq!(tokenizer.encode("é", false).unwrap(), [3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.decode(&[1, 3 + 0xC3, 3 + 0xA9, 3 + 0xC3, 2]).unwrap(), "é\u{fffd}");
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(tokenizer.encode_prompt("<s>a", true).unwrap(), [1, a]);
    assert_eq!(tokenizer.encode_prompt("a", true).unwrap(), [1, a]);
    assert!(tokenizer.is_end(2) && !tokenizer.is_end(1));
    for text in odd_texts() {
        assert_round_trip(&tokenizer, &text);
    }
}

#[test]
fn sentence_pieces_with_a_space_in_front() {
    let pieces = [("a", -1.0, 1), ("\u{2581}", -3.0, 1), ("\u{2581}a", -2.0, 1), ("@", 0.0, 4)];
    let tokenizer = Tokenizer::from_gguf(&sentence(&pieces, true)).unwrap();
    assert_eq!(tokenizer.encode("a", false).unwrap(), [261]);
    assert_eq!(tokenizer.encode("aa<s>a@a", true).unwrap(), [261, 259, 1, 261, 262, 261]);
    assert_eq!(tokenizer.decode(&[1, 261, 261]).unwrap(), "a a");
    assert_eq!(tokenizer.decode(&[1, 261, 259, 2, 261, 262, 261]).unwrap(), "aaa@a");
    for text in odd_texts() {
        assert_round_trip(&tokenizer, &text);
    }
}

#[test]
fn contradictions_in_gguf_are_errors() {
    let strings = |texts: &[&str]| Value::Array(Array::Str(texts.iter().map(|text| (*text).to_owned()).collect()));
    let cases: Vec<(&str, Value)> = vec![
        ("tokenizer.ggml.model", Value::Str("rwkv".into())),
        ("tokenizer.ggml.model", Value::U32(1)),
        ("tokenizer.ggml.pre", Value::Str("unheard-of".into())),
        ("tokenizer.ggml.tokens", strings(&[])),
        ("tokenizer.ggml.tokens", strings(&["a"])),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; 3]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![77; 257]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![6; 257]))),
        ("tokenizer.ggml.merges", strings(&["ab"])),
        ("tokenizer.ggml.merges", strings(&["a nowhere"])),
        ("tokenizer.ggml.merges", strings(&["a b"])),
        ("tokenizer.ggml.merges", strings(&["a b c"])),
        ("tokenizer.ggml.merges", strings(&[" "])),
        ("tokenizer.ggml.bos_token_id", Value::U32(257)),
        ("tokenizer.ggml.eos_token_id", Value::U32(u32::MAX)),
        ("tokenizer.ggml.eot_token_id", Value::U32(257)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
    ];
    assert!(Tokenizer::from_gguf(&byte_level("gpt-2", &[("he", 1)], &["h e"])).is_ok());
    for (key, value) in cases {
        let mut meta = byte_level("gpt-2", &[("he", 1)], &["h e"]);
        let shown = format!("{key} = {value:?}");
        meta.insert(key, value);
        assert!(Tokenizer::from_gguf(&meta).is_err(), "{shown:.120}");
    }
    let long = "x".repeat(1 << 17);
    assert!(Tokenizer::from_gguf(&byte_level("gpt-2", &[(&long, 1)], &[])).is_err());
    assert!(Tokenizer::from_gguf(&sentence(&[("a", f32::NAN, 1)], true)).is_err());
    let mut meta = sentence(&[], true);
    meta.insert("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 5])));
    assert!(Tokenizer::from_gguf(&meta).is_err());
    assert!(Tokenizer::from_gguf(&Metadata::default()).is_err());
}

fn bpe_json() -> serde_json::Value {
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 1_000_000_000_000_u64}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [
            {"id": 257, "content": "<bos>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 258, "content": "@@", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": 0.5, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": (0..=255_u8).map(|b| (spelled(b), u32::from(b).into())).chain([("he".into(), 256.into())])
                      .collect::<serde_json::Map<String, serde_json::Value>>(),
                  "merges": [["h", "e"]]}
    })
}

fn from_json(json: &serde_json::Value) -> Result<Tokenizer, Error> {
    Tokenizer::from_json(json.to_string().as_bytes(), None, None)
}

#[test]
fn tokenizer_json() {
    let config = json!({"bos_token": {"content": "<bos>"}, "eos_token": "he", "add_bos_token": true}).to_string();
    let generation = json!({"eos_token_id": [97, 98]}).to_string();
    let tokenizer =
        Tokenizer::from_json(bpe_json().to_string().as_bytes(), Some(config.as_bytes()), Some(generation.as_bytes()))
            .unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_len()), (Some(257), Some(256), 259));
    assert!([97, 98, 256].iter().all(|id| tokenizer.is_end(*id)) && !tokenizer.is_end(99));
    assert_eq!(tokenizer.bos_text(), "<bos>");
    assert_eq!(tokenizer.encode("hey", false).unwrap(), [256, 121]);
    assert_eq!(tokenizer.encode_prompt("<bos>he", true).unwrap(), [257, 256]);
    assert_eq!(tokenizer.encode("@@<bos>", true).unwrap(), [258, 257]);
    assert_eq!(tokenizer.encode("@@<bos>", false).unwrap().len(), 6);
    assert_eq!(tokenizer.decode(&[257, 258, 104]).unwrap(), "@@h");
    for text in odd_texts() {
        assert_round_trip(&tokenizer, &text);
    }
}

#[test]
fn nonsense_in_json_is_an_error_or_harmless() {
    assert!(from_json(&bpe_json()).is_ok());
    let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"});
    let cases = [
        ("/model/merges", json!([["h", "nowhere"]])),
        ("/model/merges", json!([["", ""]])),
        ("/model/vocab", json!({})),
        ("/model/vocab", json!({"a": 4_000_000_000_u32})),
        ("/model/continuing_subword_prefix", json!("longer than any token")),
        ("/model/unk_token", json!("nowhere")),
        (
            "/model",
            json!({"type": "WordPiece", "unk_token": "nowhere", "continuing_subword_prefix": "##", "max_input_chars_per_word": 0, "vocab": {"a": 0}}),
        ),
        ("/model", json!({"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]], "byte_fallback": false})),
        ("/model", json!({"type": "Unigram", "unk_id": null, "vocab": [], "byte_fallback": true})),
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false}),
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false}),
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "x".repeat(1 << 20)}, "behavior": "Isolated", "invert": false}),
        ),
        ("/normalizer", json!({"type": "Sequence", "normalizers": vec![replace; 12]})),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"})),
        ("/added_tokens/0/content", json!("")),
        ("/added_tokens/0/id", json!(4_000_000_000_u32)),
        (
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "no", "type_id": 0}}], "pair": [], "special_tokens": {}}),
        ),
        ("/decoder", json!({"type": "Strip", "content": " ", "start": 9_999_999, "stop": 9})),
    ];
    for (place, value) in cases {
        let mut json = bpe_json();
        *json.pointer_mut(place).unwrap() = value;
        // Whatever comes of it, it is no panic, and tokens that come out decode.
        if let Ok(tokenizer) = from_json(&json) {
            for text in ["", "he he", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "é漢🙂 <bos>@@"] {
                if let Ok(tokens) = tokenizer.encode_prompt(text, true) {
                    tokenizer.decode(&tokens).unwrap();
                }
            }
        }
    }
    let mut json = bpe_json();
    json["added_tokens"][0]["id"] = 300.into();
    assert!(matches!(from_json(&json), Err(Error::Malformed { .. })), "the crate would give it another id");
    for bytes in [&b""[..], b"{", b"null", b"[]", b"{\"model\": 1}", b"\xFF\xFE"] {
        assert!(matches!(Tokenizer::from_json(bytes, None, None), Err(Error::Tokenizer(_))));
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Tokenizer::from_json(deep.as_bytes(), None, None).is_err());
    let sound = bpe_json().to_string();
    assert!(Tokenizer::from_json(sound.as_bytes(), None, Some(br#"{"eos_token_id": [1, 999999]}"#)).is_err());
    assert!(Tokenizer::from_json(sound.as_bytes(), None, Some(br#"{"eos_token_id": -1}"#)).is_err());
}
