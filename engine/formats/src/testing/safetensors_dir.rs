//! A [`TinyModel`] as a Hugging Face directory.

use super::blocks::encode_floats;
use super::{Kind, TinyModel, Vocabulary};
use crate::{ByteSource, DType, MemorySource, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl TinyModel {
    /// The files of a directory by name. Types must be floats.
    pub fn safetensors(&self) -> BTreeMap<String, Vec<u8>> {
        let vocabulary = Vocabulary::new();
        let gemma = self.arch == "gemma3";
        let template = self.chat_template.as_deref();
        let json = |value: Value| value.to_string().into_bytes();
        BTreeMap::from([
            ("config.json".to_owned(), json(self.config())),
            ("tokenizer.json".to_owned(), json(vocabulary.tokenizer_json())),
            ("tokenizer_config.json".to_owned(), json(vocabulary.tokenizer_config(gemma, template))),
            ("model.safetensors".to_owned(), self.weights()),
        ])
    }

    /// `config.json`.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "model_type": self.arch, "hidden_size": self.dim, "intermediate_size": self.ffn,
            "num_hidden_layers": self.n_layers, "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_groups, "head_dim": self.head_dim, "vocab_size": self.vocab(),
            "max_position_embeddings": self.context_len, "rms_norm_eps": 1e-6, "rope_theta": self.rope_base(),
            "tie_word_embeddings": self.tied, "hidden_act": "silu", "rope_scaling": null,
        });
        if self.arch == "gemma3" {
            config["model_type"] = json!("gemma3_text");
            config["hidden_activation"] = json!("gelu_pytorch_tanh");
            config["sliding_window"] = json!(self.window);
            config["sliding_window_pattern"] = json!(self.window_pattern);
            config["query_pre_attn_scalar"] = json!(self.head_dim);
            config["rope_local_base_freq"] = json!(10_000.0);
        }
        config
    }

    /// `model.safetensors`.
    fn weights(&self) -> Vec<u8> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
        let mut data = Vec::new();
        for tensor in self.tensors() {
            let mut values = self.floats(&tensor);
            if tensor.kind == Kind::Norm && self.arch == "gemma3" {
                values.iter_mut().for_each(|x| *x -= 1.0);
            }
            let begin = data.len();
            data.extend(encode_floats(tensor.dtype, &values));
            let dtype = match tensor.dtype {
                DType::F16 => "F16",
                DType::BF16 => "BF16",
                _ => "F32",
            };
            let shape = if tensor.rows == 1 { vec![tensor.cols] } else { vec![tensor.rows, tensor.cols] };
            header.insert(tensor.hf, json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}));
        }
        safetensors_file(&header, &data)
    }
}

fn safetensors_file(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let mut json = serde_json::to_vec(header).expect("a map of JSON values");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    out.extend(data);
    out
}

/// The same directory with its weights in `n` shards and an index.
pub fn split_in_shards(mut files: BTreeMap<String, Vec<u8>>, n: usize) -> BTreeMap<String, Vec<u8>> {
    let whole = files.remove("model.safetensors").expect("weights in one file");
    let header_len = u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let (header, data) = whole[8..].split_at(header_len);
    let header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let mut shards = vec![(Map::new(), Vec::new()); n];
    let mut weight_map = Map::new();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    for (i, (name, mut entry)) in tensors.enumerate() {
        let at = |k: usize| entry["data_offsets"][k].as_u64().expect("an offset") as usize;
        let bytes = &data[at(0)..at(1)];
        let (header, data) = &mut shards[i % n];
        let begin = data.len();
        data.extend_from_slice(bytes);
        entry["data_offsets"] = json!([begin, data.len()]);
        weight_map.insert(name.clone(), json!(shard_name(i % n, n)));
        header.insert(name, entry);
    }
    for (i, (header, data)) in shards.iter().enumerate() {
        files.insert(shard_name(i, n), safetensors_file(header, data));
    }
    let index = json!({"metadata": {"total_size": data.len()}, "weight_map": weight_map});
    files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    files
}

fn shard_name(i: usize, n: usize) -> String {
    format!("model-{:05}-of-{n:05}.safetensors", i + 1)
}

/// Open files of a map by name, for [`crate::open_safetensors`].
pub fn open_map(files: &BTreeMap<String, Vec<u8>>) -> impl Fn(&str) -> Result<Option<Box<dyn ByteSource>>> + '_ {
    |name| Ok(files.get(name).map(|bytes| Box::new(MemorySource(bytes.clone())) as Box<dyn ByteSource>))
}
