//! A vocabulary in the style of GPT-2: all bytes, a few merges, ChatML's control tokens.

use serde_json::{Value, json};

/// ChatML with an optional system turn, as small models carry it.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + \
     message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
     {% endif %}";

const MERGES: [&str; 20] = [
    "Ġ t", "h e", "Ġt he", "i n", "r e", "Ġ a", "o n", "e r", "Ġ s", "a t", "Ġ o", "n d", "Ġa nd", "Ġ w", "i t", "e s",
    "l l", "l o", "Ġ h", "in g",
];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// Vocabularies are padded to a multiple of this, as real ones are.
const PADDING: usize = 32;

/// Tokens in order of their ids: 256 bytes, the merges' results, the control tokens.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Texts of the tokens, bytes written in GPT-2's letters.
    pub tokens: Vec<String>,
    /// Pairs that merge, best first.
    pub merges: Vec<String>,
    /// Id of the first control token: `<|endoftext|>`, then `<|im_start|>` and `<|im_end|>`.
    pub first_special: usize,
}

impl Vocabulary {
    /// The vocabulary, always the same.
    #[allow(clippy::new_without_default)] // a value among many tests, not a default of anything
    pub fn new() -> Vocabulary {
        let mut tokens: Vec<String> = (0..=255).map(|b| letter(b).to_string()).collect();
        tokens.extend(MERGES.iter().map(|pair| pair.replace(' ', "")));
        let first_special = tokens.len();
        tokens.extend(SPECIAL.map(str::to_owned));
        Vocabulary { tokens, merges: MERGES.map(str::to_owned).into(), first_special }
    }

    /// Tokens with the unused ones that fill up the last ids.
    pub fn padded_len(&self) -> usize {
        self.tokens.len().next_multiple_of(PADDING)
    }

    /// `tokenizer.json`.
    pub fn tokenizer_json(&self) -> Value {
        let added: Vec<Value> = SPECIAL
            .iter()
            .enumerate()
            .map(|(i, content)| {
                json!({"id": self.first_special + i, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let vocab: serde_json::Map<String, Value> =
            self.tokens[..self.first_special].iter().enumerate().map(|(i, token)| (token.clone(), json!(i))).collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                      "vocab": vocab, "merges": self.merges},
        })
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self, add_bos: bool, chat_template: Option<&str>) -> Value {
        let mut config = json!({
            "add_bos_token": add_bos, "bos_token": SPECIAL[0], "eos_token": {"content": SPECIAL[2], "special": true},
            "tokenizer_class": "GPT2Tokenizer",
        });
        if let Some(template) = chat_template {
            config["chat_template"] = json!(template);
        }
        config
    }
}

/// GPT-2's letter for a byte: printable ones stand for themselves, the others follow from U+0100 on.
fn letter(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count();
    char::from_u32(0x100 + before as u32).unwrap_or('?')
}
