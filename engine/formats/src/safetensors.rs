//! Hugging Face directories: `config.json`, the tokenizer's files, and safetensors files in one piece or in shards.
//!
//! Format: <https://huggingface.co/docs/safetensors/index#format>: 8 bytes of length, that many bytes of JSON, data.
//! The header is parsed here rather than by the `safetensors` crate, so that a name that is there twice, a shape of
//! thousands of dimensions and a range outside the file are errors that name the tensor, and only headers are read.

mod config;
mod header;

pub(crate) use config::Config;
pub(crate) use header::parse as parse_header;

use crate::table::StoredTensor;
use crate::{ByteSource, Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Opens a file of the directory by its name; `None` when there is no such file.
pub type Open<'a> = dyn Fn(&str) -> Result<Option<Box<dyn ByteSource>>> + 'a;

/// Largest `config.json` and the like that is read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// Largest `tokenizer.json`; the largest real ones are some 40 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Most shards of a model.
const MAX_SHARDS: usize = 1024;

/// The files of a directory, headers parsed.
pub(crate) struct Directory {
    pub(crate) config: Config,
    pub(crate) tensors: Vec<StoredTensor>,
    pub(crate) sources: Vec<Box<dyn ByteSource>>,
    pub(crate) tokenizer_json: Vec<u8>,
    pub(crate) tokenizer_config: Option<Vec<u8>>,
    pub(crate) generation_config: Option<Vec<u8>>,
    pub(crate) chat_template: Option<Vec<u8>>,
}

impl Directory {
    pub(crate) fn open(open: &Open<'_>) -> Result<Directory> {
        let config = Config::parse(&need(open, "config.json", MAX_CONFIG_BYTES)?)?;
        if config.opt_str("model_type")? == Some("bert") {
            return Err(Error::Unsupported(
                "a BERT encoder as a model: it reads prompts beside a model, and no text comes from it".into(),
            ));
        }
        let (sources, tensors) = weights(open)?;
        Ok(Directory {
            config,
            tensors,
            sources,
            tokenizer_json: need(open, "tokenizer.json", MAX_TOKENIZER_BYTES)?,
            tokenizer_config: whole(open, "tokenizer_config.json", MAX_CONFIG_BYTES)?,
            generation_config: whole(open, "generation_config.json", MAX_CONFIG_BYTES)?,
            chat_template: whole(open, "chat_template.jinja", MAX_CONFIG_BYTES)?,
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Files and the tensors in them.
type Weights = (Vec<Box<dyn ByteSource>>, Vec<StoredTensor>);

/// The safetensors files and their tensors, from one file or from the shards that an index names.
fn weights(open: &Open<'_>) -> Result<Weights> {
    let single = "model.safetensors";
    if let Some(source) = open(single)? {
        let tensors = header::parse(single, &*source, 0, |_| false)?;
        return Ok((vec![source], tensors));
    }
    let name = "model.safetensors.index.json";
    let Some(text) = whole(open, name, MAX_CONFIG_BYTES)? else {
        return Err(Error::malformed(single, format!("there is neither this file nor {name}")));
    };
    let index: Index = serde_json::from_slice(&text).map_err(|e| Error::malformed(name, e.to_string()))?;
    let files: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if files.len() > MAX_SHARDS {
        return Err(Error::malformed(name, format!("{} shards, at most {MAX_SHARDS}", files.len())));
    }
    let mut sources: Vec<Box<dyn ByteSource>> = Vec::new();
    let mut tensors: Vec<StoredTensor> = Vec::new();
    for file in &files {
        if file.contains(['/', '\\', ':', '\0']) || file.starts_with('.') {
            return Err(Error::malformed(
                format!("{name} weight_map"),
                format!("{file:?} is not the name of a file in the directory"),
            ));
        }
        let Some(source) = open(file)? else {
            return Err(Error::malformed(
                format!("{name} weight_map"),
                format!("the shard {file:?}, which it names, is missing"),
            ));
        };
        tensors.extend(header::parse(file, &*source, sources.len(), |_| false)?);
        sources.push(source);
    }
    check_map(name, &index, &files, &tensors)?;
    Ok((sources, tensors))
}

/// The index and the shards' headers must tell the same story.
fn check_map(name: &str, index: &Index, files: &BTreeSet<&str>, tensors: &[StoredTensor]) -> Result<()> {
    let files: Vec<&str> = files.iter().copied().collect();
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    for StoredTensor { info, .. } in tensors {
        let file = files[info.source];
        if let Some(other) = found.insert(&info.name, file) {
            return Err(Error::malformed(
                format!("tensor '{}'", info.name),
                format!("it is in both {other} and {file}"),
            ));
        }
    }
    for (tensor, file) in &index.weight_map {
        if found.get(tensor.as_str()) != Some(&file.as_str()) {
            return Err(Error::malformed(format!("{name} weight_map '{tensor}'"), format!("{file} does not have it")));
        }
    }
    Ok(())
}

/// All bytes of a small file, if it is there.
fn whole(open: &Open<'_>, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
    let Some(source) = open(name)? else {
        return Ok(None);
    };
    let len = source.len();
    if len > max {
        return Err(Error::malformed(name, format!("{len} bytes, at most {max} are read")));
    }
    let mut bytes = vec![0; len as usize];
    source.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// All bytes of a small file that must be there.
pub(crate) fn need(open: &Open<'_>, name: &str, max: u64) -> Result<Vec<u8>> {
    whole(open, name, max)?.ok_or_else(|| Error::malformed(name, "the file is missing"))
}
