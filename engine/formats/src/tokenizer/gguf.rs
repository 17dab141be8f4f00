//! A tokenizer from GGUF metadata (`tokenizer.ggml.*`).

use std::collections::HashSet;

use tokenizers::models::bpe::Vocab as BpeVocab;

use super::pretok::PreTokenizer;
use super::special::Specials;
use super::vocab::{Kind, MAX_TOKENS, Spelling, Vocab};
use super::words::Words;
use super::{Encoder, Roles, Spaces, Tokenizer, spm};
use crate::gguf::Metadata;
use crate::{Error, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

impl Tokenizer {
    /// The tokenizer of a GGUF file: `tokenizer.ggml.model` `gpt2` (byte-level BPE with a known `tokenizer.ggml.pre`) or
    /// `llama` (SentencePiece scores).
    ///
    /// Of tokens with the same text the last one is used for encoding. Missing keys have llama.cpp's defaults.
    ///
    /// # Errors
    /// [`Error::Malformed`] for missing or contradictory keys, ids outside the vocabulary, and merges of unknown tokens;
    /// [`Error::Unsupported`] for other models and pre-tokenizers.
    pub fn from_gguf(meta: &Metadata) -> Result<Tokenizer> {
        match meta.str("tokenizer.ggml.model")? {
            "gpt2" => byte_level(meta),
            "llama" => sentence(meta),
            other => Err(Error::Unsupported(format!("tokenizer {other:?} (tokenizer.ggml.model)"))),
        }
    }
}

fn byte_level(meta: &Metadata) -> Result<Tokenizer> {
    let words = PreTokenizer::named(meta.opt_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let (texts, vocab) = table(meta, Spelling::ByteLevel)?;
    let (mut ids, mut hidden) = (BpeVocab::default(), BpeVocab::default());
    for (id, text) in vocab.ids().zip(texts) {
        match vocab.get(id) {
            Some((kind, _)) if kind.is_spelled() => ids.insert(text.clone(), id),
            _ => hidden.insert(text.clone(), id),
        };
    }
    hidden.retain(|text, _| !ids.contains_key(text));
    let roles = roles(meta, &vocab, [None; 2], words.add_bos)?;
    let merges = meta.strings("tokenizer.ggml.merges")?;
    let encoder = Words::new(words, ids, merges, &hidden)?;
    let encoder = Encoder::Words(Specials::new(&vocab)?, Box::new(encoder));
    Ok(Tokenizer::assemble(encoder, vocab, roles, Spaces::Keep))
}

fn sentence(meta: &Metadata) -> Result<Tokenizer> {
    let (texts, vocab) = table(meta, Spelling::Sentence)?;
    let scores = meta.f32s("tokenizer.ggml.scores")?;
    same_len("tokenizer.ggml.scores", scores.len(), texts.len())?;
    let space_first = meta.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let roles = roles(meta, &vocab, [Some(1), Some(2)], true)?;
    let unknown = role(meta, &vocab, "unknown")?.or_else(|| in_vocab(&vocab, 0));
    let pieces = spm::Pieces::new(texts, scores, &vocab, unknown, space_first)?;
    let encoder = Encoder::Pieces(Specials::new(&vocab)?, Box::new(pieces));
    let spaces = if space_first { Spaces::DropAfterTokens } else { Spaces::Keep };
    Ok(Tokenizer::assemble(encoder, vocab, roles, spaces))
}

/// Texts and the table of tokens.
fn table(meta: &Metadata, spelling: Spelling) -> Result<(&[String], Vocab)> {
    let texts = meta.strings(TOKENS)?;
    if texts.is_empty() || texts.len() > MAX_TOKENS {
        return Err(Error::malformed(TOKENS, format!("{} tokens, expected 1 to {MAX_TOKENS}", texts.len())));
    }
    let types = meta.opt_i32s(TYPES)?;
    if let Some(types) = &types {
        same_len(TYPES, types.len(), texts.len())?;
    }
    let mut vocab = Vocab::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let number = types.as_ref().and_then(|types| types.get(index)).copied().unwrap_or(1);
        let kind = Kind::from_gguf(number)
            .ok_or_else(|| Error::malformed(format!("{TYPES}[{index}]"), format!("unknown type {number}")))?;
        let kind = if spelling == Spelling::Sentence { spm::kind_of(text, kind) } else { kind };
        vocab.push(text, kind, spelling)?;
    }
    Ok((texts, vocab))
}

/// The tokens with a meaning; `defaults` are BOS and EOS where the file names none and has so many tokens.
fn roles(meta: &Metadata, vocab: &Vocab, defaults: [Option<u32>; 2], add_bos: bool) -> Result<Roles> {
    let or_default =
        |named: Option<u32>, default: Option<u32>| named.or_else(|| default.and_then(|id| in_vocab(vocab, id)));
    let bos = or_default(role(meta, vocab, "bos")?, defaults[0]);
    let eos = or_default(role(meta, vocab, "eos")?, defaults[1]);
    let mut ends = HashSet::new();
    for name in ["eot", "eom"] {
        ends.extend(role(meta, vocab, name)?);
    }
    let add_bos = meta.opt_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
    if add_bos && bos.is_none() {
        return Err(Error::malformed("tokenizer.ggml.bos_token_id", "missing, though a BOS is wanted"));
    }
    Ok(Roles { bos, eos, add_bos, ends: ends.into_iter().collect() })
}

/// The id in `tokenizer.ggml.<name>_token_id`, checked.
fn role(meta: &Metadata, vocab: &Vocab, name: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(id) = meta.opt_u32(&key)? else {
        return Ok(None);
    };
    match in_vocab(vocab, id) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::malformed(key, format!("{id} outside the vocabulary of {}", vocab.len()))),
    }
}

fn in_vocab(vocab: &Vocab, id: u32) -> Option<u32> {
    vocab.get(id).map(|_| id)
}

fn same_len(field: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    Err(Error::malformed(field, format!("{found} entries for {tokens} tokens")))
}
