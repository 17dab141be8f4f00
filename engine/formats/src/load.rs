//! From bytes to a checked [`Model`].

use crate::gguf::{Gguf, Metadata};
use crate::safetensors::{Directory, Open};
use crate::{ByteSource, ChatTemplate, Error, ModelSpec, ModelTensors, Result, Tokenizer, arch};
use serde::Deserialize;

/// A model file, understood and checked, its weights still where they were.
pub struct Model {
    /// Hyperparameters.
    pub spec: ModelSpec,
    /// Where each tensor lies.
    pub tensors: ModelTensors,
    /// The files that [`crate::TensorInfo::source`] counts.
    pub sources: Vec<Box<dyn ByteSource>>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How a conversation becomes a prompt; `None` when the file has no template (base models).
    pub chat: Option<ChatTemplate>,
}

/// Open a GGUF file. Weights are not read.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Unsupported`], [`Error::Tokenizer`] and [`Error::Template`] as the file deserves, each
/// naming the field; [`Error::Io`] when `source` cannot be read.
pub fn open_gguf(source: Box<dyn ByteSource>) -> Result<Model> {
    let gguf = Gguf::parse(&*source)?;
    let sources = vec![source];
    let (spec, tensors) = arch::from_gguf(&gguf, &sources)?;
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata)?;
    let chat = gguf_chat(&gguf.metadata)?;
    Ok(Model { spec, tensors, sources, tokenizer, chat })
}

/// Open a Hugging Face directory. `open` is asked for files by name: `config.json`, `tokenizer.json`, and either
/// `model.safetensors` or `model.safetensors.index.json` and the shards that it names, must be there;
/// `tokenizer_config.json`, `generation_config.json` and `chat_template.jinja` may be. Weights are not read.
///
/// # Errors
/// As [`open_gguf`]; an error of `open` is passed on.
pub fn open_safetensors(open: &Open<'_>) -> Result<Model> {
    let directory = Directory::open(open)?;
    let (spec, tensors) = arch::from_directory(&directory)?;
    let tokenizer_config = directory.tokenizer_config.as_deref();
    let tokenizer =
        Tokenizer::from_json(&directory.tokenizer_json, tokenizer_config, directory.generation_config.as_deref())?;
    let chat = directory_chat(tokenizer_config, directory.chat_template.as_deref())?;
    Ok(Model { spec, tensors, sources: directory.sources, tokenizer, chat })
}

fn gguf_chat(metadata: &Metadata) -> Result<Option<ChatTemplate>> {
    let Some(template) = metadata.opt_str("tokenizer.chat_template")? else {
        return Ok(None);
    };
    let token = |key: &str| -> Result<&str> {
        let Some(id) = metadata.opt_u32(key)? else {
            return Ok("");
        };
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        tokens.get(id as usize).map(String::as_str).ok_or_else(|| {
            Error::malformed(format!("metadata '{key}'"), format!("token {id} of a vocabulary of {}", tokens.len()))
        })
    };
    let bos = token("tokenizer.ggml.bos_token_id")?;
    let eos = token("tokenizer.ggml.eos_token_id")?;
    ChatTemplate::new(template, bos, eos).map(Some)
}

/// What a chat template needs of `tokenizer_config.json`.
#[derive(Deserialize, Default)]
struct TokenizerConfig {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Described { content: String },
}

impl SpecialToken {
    fn text(token: &Option<SpecialToken>) -> &str {
        match token {
            None => "",
            Some(SpecialToken::Text(text) | SpecialToken::Described { content: text }) => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// The template of its own file if there is one, else the one in `tokenizer_config.json`, of several the `default`.
fn directory_chat(config: Option<&[u8]>, file: Option<&[u8]>) -> Result<Option<ChatTemplate>> {
    let name = "tokenizer_config.json";
    let config: TokenizerConfig = match config {
        None => TokenizerConfig::default(),
        Some(text) => serde_json::from_slice(text).map_err(|e| Error::malformed(name, e.to_string()))?,
    };
    let template = match (file, &config.chat_template) {
        (Some(text), _) => std::str::from_utf8(text).map_err(|e| {
            Error::malformed("chat_template.jinja", format!("not UTF-8 after byte {}", e.valid_up_to()))
        })?,
        (None, None) => return Ok(None),
        (None, Some(Templates::One(template))) => template,
        (None, Some(Templates::Named(all))) => {
            let Some(default) = all.iter().find(|one| one.name == "default") else {
                return Err(Error::malformed(
                    format!("{name} 'chat_template'"),
                    format!("{} templates, none of them named 'default'", all.len()),
                ));
            };
            &default.template
        }
    };
    let bos = SpecialToken::text(&config.bos_token);
    let eos = SpecialToken::text(&config.eos_token);
    ChatTemplate::new(template, bos, eos).map(Some)
}
