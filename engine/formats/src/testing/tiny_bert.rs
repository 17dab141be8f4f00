//! A little encoder with pseudo-random weights, as the files of a Hugging Face directory.

use super::Rng;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Sizes of a little BERT.
#[derive(Debug, Clone)]
pub struct TinyBert {
    /// Seed of the weights.
    pub seed: u64,
    /// Layers.
    pub layers: usize,
    /// Width of its rows, a multiple of 32.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Neurons of the MLP, a multiple of 32.
    pub ffn: usize,
    /// Positions that have an embedding.
    pub positions: usize,
}

impl Default for TinyBert {
    fn default() -> Self {
        Self { seed: 1, layers: 4, dim: 64, heads: 4, ffn: 96, positions: 24 }
    }
}

/// Word pieces beside the letters and their continuations.
const WORDS: [&str; 10] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "##ly", "fox", "."];

impl TinyBert {
    /// Word pieces.
    pub fn vocabulary() -> Vec<String> {
        let letters = 'a'..='z';
        let continued = letters.clone().map(|c| format!("##{c}"));
        WORDS.iter().map(|w| (*w).to_owned()).chain(letters.map(String::from)).chain(continued).collect()
    }

    /// The files of a directory by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let vocab: Map<String, Value> =
            Self::vocabulary().into_iter().enumerate().map(|(i, word)| (word, json!(i))).collect();
        let special = |id: usize| {
            json!({"id": id, "content": WORDS[id], "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": null, "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        });
        let config = json!({
            "model_type": "bert", "hidden_act": "gelu", "hidden_size": self.dim, "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "vocab_size": Self::vocabulary().len(),
            "max_position_embeddings": self.positions, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        });
        BTreeMap::from([
            ("config.json".to_owned(), config.to_string().into_bytes()),
            ("tokenizer.json".to_owned(), tokenizer.to_string().into_bytes()),
            ("model.safetensors".to_owned(), self.weights()),
        ])
    }

    fn tensors(&self) -> Vec<(String, usize, usize)> {
        let (dim, ffn) = (self.dim, self.ffn);
        let mut all = vec![
            ("embeddings.word_embeddings.weight".to_owned(), Self::vocabulary().len(), dim),
            ("embeddings.position_embeddings.weight".to_owned(), self.positions, dim),
            ("embeddings.token_type_embeddings.weight".to_owned(), 2, dim),
            ("embeddings.LayerNorm.weight".to_owned(), 1, dim),
            ("embeddings.LayerNorm.bias".to_owned(), 1, dim),
            ("pooler.dense.weight".to_owned(), dim, dim),
        ];
        for layer in 0..self.layers {
            for (name, rows, cols) in [
                ("attention.self.query", dim, dim),
                ("attention.self.key", dim, dim),
                ("attention.self.value", dim, dim),
                ("attention.output.dense", dim, dim),
                ("attention.output.LayerNorm", 1, dim),
                ("intermediate.dense", ffn, dim),
                ("output.dense", dim, ffn),
                ("output.LayerNorm", 1, dim),
            ] {
                let name = format!("encoder.layer.{layer}.{name}");
                all.push((format!("{name}.weight"), rows, cols));
                all.push((format!("{name}.bias"), 1, if rows == 1 { cols } else { rows }));
            }
        }
        all
    }

    fn weights(&self) -> Vec<u8> {
        let mut header = Map::new();
        let mut data = vec![0u8; 8 * self.positions];
        let ids = json!({"dtype": "I64", "shape": [1, self.positions], "data_offsets": [0, data.len()]});
        header.insert("embeddings.position_ids".to_owned(), ids);
        for (name, rows, cols) in self.tensors() {
            let mut rng = Rng::named(self.seed, &name);
            let norm = name.contains("LayerNorm.weight");
            let size = if name.contains("LayerNorm") || rows == 1 { 0.1 } else { (cols as f32).sqrt().recip() };
            let begin = data.len();
            let value = |rng: &mut Rng| size * rng.float() + f32::from(u8::from(norm));
            data.extend((0..rows * cols).flat_map(|_| value(&mut rng).to_le_bytes()));
            let shape = if rows == 1 { vec![cols] } else { vec![rows, cols] };
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }
}
