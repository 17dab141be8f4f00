//! A tokenizer from Hugging Face's `tokenizer.json`, run by the `tokenizers` crate as it stands.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;

use super::guard::wall;
use super::vocab::{Kind, MAX_TOKENS, Spelling, Vocab};
use super::{Encoder, Roles, Spaces, Tokenizer, bytes, outside};
use crate::{Error, Result};

/// Largest `tokenizer.json` read (Gemma's, the largest known, has 33 MB).
const MAX_JSON_BYTES: usize = 128 << 20;
/// How much longer the replacements of a normalizer may make a text, all together.
const MAX_GROWTH: u64 = 256;
/// Longest text of a replacement or expression.
const MAX_COMPONENT_BYTES: usize = 4096;

/// The crate's tokenizer. Whether control tokens are parsed is a switch inside it, hence the lock.
pub(super) struct JsonEncoder {
    inner: Mutex<HfTokenizer>,
}

impl JsonEncoder {
    /// As [`Tokenizer::encode`].
    pub(super) fn encode(&self, text: &str, parse_special: bool, vocab_len: usize) -> Result<Vec<u32>> {
        // Encoding changes nothing but the switch, which is set each time: a poisoned lock holds no broken state.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = wall("encoding", || {
            inner.set_encode_special_tokens(!parse_special);
            Ok(inner.encode_fast(text, false)?.get_ids().to_vec())
        })?;
        match ids.iter().find(|id| **id as usize >= vocab_len) {
            Some(id) => Err(outside(*id, vocab_len)),
            None => Ok(ids),
        }
    }
}

impl Tokenizer {
    /// The tokenizer of a Hugging Face directory: `tokenizer.json`, with BOS and EOS from `tokenizer_config.json` and
    /// `generation_config.json` where they are.
    ///
    /// Padding, truncation and dropout are switched off. Decoding goes by the kind of the file's decoder (byte-level,
    /// SentencePiece, WordPiece); clean-up of spaces before punctuation is not done.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for anything that the `tokenizers` crate refuses or panics on, and for files whose sizes are
    /// out of bounds; [`Error::Malformed`] for ids outside the vocabulary.
    pub fn from_json(
        tokenizer_json: &[u8],
        tokenizer_config: Option<&[u8]>,
        generation_config: Option<&[u8]>,
    ) -> Result<Tokenizer> {
        let mut json = parse("tokenizer.json", tokenizer_json)?;
        let config = tokenizer_config.map_or(Ok(Value::Null), |bytes| parse("tokenizer_config.json", bytes))?;
        let generation = generation_config.map_or(Ok(Value::Null), |bytes| parse("generation_config.json", bytes))?;
        vet(&json)?;
        if let Some(fields) = json.as_object_mut() {
            fields.insert("truncation".into(), Value::Null);
            fields.insert("padding".into(), Value::Null);
        }
        if let Some(model) = json.get_mut("model").and_then(Value::as_object_mut) {
            model.remove("dropout");
        }
        let (spelling, spaces) = spelling_of(&json);
        let added = added_tokens(&json);
        let mut inner: HfTokenizer = wall("tokenizer.json", || Ok(serde_json::from_value(json)?))?;
        for (text, id) in added {
            // The crate numbers added tokens itself and ignores the ids of the file.
            let found = inner.token_to_id(&text);
            if found.map(u64::from) != Some(id) {
                let problem = format!("{text:?} has id {id} in the file and {found:?} by its place");
                return Err(Error::malformed("tokenizer.json added_tokens", problem));
            }
        }
        let vocab = table(&inner, spelling)?;
        let id_of = |text: &str| inner.token_to_id(text);
        let bos = named(&config, "bos_token").as_deref().and_then(id_of);
        let eos = named(&config, "eos_token").as_deref().and_then(id_of);
        let ends = ids_of(&generation, "eos_token_id", &vocab)?;
        let bos = bos.or(ids_of(&generation, "bos_token_id", &vocab)?.first().copied());
        let eos = eos.or(ends.first().copied());
        let add_bos = match config.get("add_bos_token").and_then(Value::as_bool) {
            Some(wanted) => wanted,
            // The post-processor puts it there.
            None => {
                let empty = wall("tokenizer.json", || Ok(inner.encode_fast("", true)?.get_ids().to_vec()))?;
                bos.is_some() && empty.first() == bos.as_ref()
            }
        };
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let encoder = Encoder::Json(Box::new(JsonEncoder { inner: Mutex::new(inner) }));
        Ok(Tokenizer::assemble(encoder, vocab, Roles { bos, eos, add_bos, ends }, spaces))
    }
}

fn parse(what: &str, bytes: &[u8]) -> Result<Value> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(Error::Tokenizer(format!("{what}: {} bytes, at most {MAX_JSON_BYTES}", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer(format!("{what}: {error}")))
}

/// Bound what the parts of a `tokenizer.json` can do to a text.
fn vet(json: &Value) -> Result<()> {
    let mut growth = 1_u64;
    for part in ["normalizer", "pre_tokenizer"] {
        let mut open: Vec<&Value> = json.get(part).into_iter().collect();
        while let Some(value) = open.pop() {
            match value {
                Value::Array(items) => open.extend(items),
                Value::String(text) if part == "pre_tokenizer" && text.len() > MAX_COMPONENT_BYTES => {
                    return Err(Error::Tokenizer(format!("tokenizer.json: {part}: a text of {} bytes", text.len())));
                }
                Value::Object(fields) => {
                    growth = growth.saturating_mul(growth_of(fields));
                    open.extend(fields.values());
                }
                _ => {}
            }
        }
    }
    if growth > MAX_GROWTH {
        return Err(Error::Tokenizer(format!(
            "tokenizer.json: its replacements grow a text more than {MAX_GROWTH} times"
        )));
    }
    Ok(())
}

/// At most how many times longer a normalizer makes a text.
fn growth_of(fields: &serde_json::Map<String, Value>) -> u64 {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let added = match text("type") {
        Some("Replace") => text("content").unwrap_or_default().len() as u64,
        Some("Prepend") => text("prepend").unwrap_or_default().len() as u64,
        Some("ByteLevel") => 2,
        _ => return 1,
    };
    let pattern = fields.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
    match pattern {
        Some(pattern) if !pattern.is_empty() => added.div_ceil(pattern.len() as u64).max(1),
        _ => added.saturating_add(1),
    }
}

/// How tokens are spelled, by the types of the decoder, and which spaces are the encoder's.
fn spelling_of(json: &Value) -> (Spelling, Spaces) {
    let decoder = types(json.get("decoder"));
    let before = [json.get("normalizer"), json.get("pre_tokenizer")];
    let has = |kind: &str| decoder.iter().any(|name| name == kind);
    let scheme = before.iter().chain([&json.get("decoder")]).find_map(|part| scheme_of(*part));
    let prepends = before.iter().any(|part| types(*part).iter().any(|name| name == "Prepend"));
    if has("ByteLevel") {
        (Spelling::ByteLevel, Spaces::Keep)
    } else if has("WordPiece") {
        (Spelling::WordPiece, Spaces::DropFirst)
    } else if has("Metaspace") || has("ByteFallback") || has("Replace") {
        let spaces = match scheme.as_deref() {
            _ if prepends => Spaces::DropAfterTokens,
            Some("always") => Spaces::DropAfterTokens,
            Some("first") => Spaces::DropFirst,
            _ => Spaces::Keep,
        };
        (Spelling::Sentence, spaces)
    } else {
        (Spelling::Plain, Spaces::Keep)
    }
}

/// All values of `type` inside a part.
fn types(part: Option<&Value>) -> Vec<String> {
    let (mut open, mut found): (Vec<&Value>, _) = (part.into_iter().collect(), Vec::new());
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                found.extend(fields.get("type").and_then(Value::as_str).map(str::to_owned));
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    found
}

/// The `prepend_scheme` of a Metaspace inside a part; the old `add_prefix_space` counts as `always`.
fn scheme_of(part: Option<&Value>) -> Option<String> {
    let mut open: Vec<&Value> = part.into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                if fields.get("type").and_then(Value::as_str) == Some("Metaspace") {
                    let scheme = fields.get("prepend_scheme").and_then(Value::as_str).unwrap_or("always");
                    return Some(scheme.to_owned());
                }
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    None
}

/// The table of tokens; ids that no token has are unused.
fn table(inner: &HfTokenizer, spelling: Spelling) -> Result<Vocab> {
    let mut by_id: BTreeMap<u32, (String, Kind)> = BTreeMap::new();
    for (text, id) in wall("tokenizer.json", || Ok(inner.get_vocab(false)))? {
        let byte = spelling == Spelling::Sentence && bytes::byte_token(&text).is_some();
        by_id.insert(id, (text, if byte { Kind::Byte } else { Kind::Normal }));
    }
    for (id, token) in inner.get_added_tokens_decoder() {
        let kind = if token.special { Kind::Control } else { Kind::UserDefined };
        by_id.insert(id, (token.content, kind));
    }
    let last = by_id.last_key_value().map_or(0, |(id, _)| *id);
    if by_id.is_empty() || last as usize >= MAX_TOKENS {
        return Err(Error::Tokenizer(format!(
            "tokenizer.json: {} tokens up to id {last}, expected ids below {MAX_TOKENS}",
            by_id.len()
        )));
    }
    let mut vocab = Vocab::with_capacity(last as usize + 1);
    for id in 0..=last {
        match by_id.get(&id) {
            Some((text, kind)) => vocab.push(text, *kind, spelling)?,
            None => vocab.push("", Kind::Unused, spelling)?,
        }
    }
    Ok(vocab)
}

/// Texts and ids of the added tokens, as the file has them.
fn added_tokens(json: &Value) -> Vec<(String, u64)> {
    let tokens = json.get("added_tokens").and_then(Value::as_array);
    let pair = |token: &Value| Some((token.get("content")?.as_str()?.to_owned(), token.get("id")?.as_u64()?));
    tokens.into_iter().flatten().filter_map(pair).collect()
}

/// The text of a token in `tokenizer_config.json`: a string, or an object with `content`.
fn named(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// The ids of a key in `generation_config.json`: one, a list, or none.
fn ids_of(generation: &Value, key: &str, vocab: &Vocab) -> Result<Vec<u32>> {
    let values: Vec<&Value> = match generation.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values.iter().collect(),
        Some(value) => vec![value],
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.filter(|id| vocab.get(*id).is_some()).ok_or_else(|| {
            Error::malformed(
                format!("generation_config.json {key}"),
                format!("{value}: not a token of this vocabulary"),
            )
        })
    };
    values.into_iter().map(id).collect()
}
