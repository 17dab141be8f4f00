//! BERT encoders (Devlin et al., arXiv 1810.04805) as Hugging Face directories: `config.json`, `tokenizer.json`, and
//! `model.safetensors` in one piece.

use crate::safetensors::{Config, Open, need, parse_header};
use crate::table::TensorTable;
use crate::{ByteSource, Error, Result, TensorInfo, Tokenizer};

/// Largest `config.json` that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Largest `tokenizer.json` that is read.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Largest of any size.
const MAX_SIZE: usize = 1 << 20;
/// Most layers.
const MAX_LAYERS: usize = 256;

/// Sizes of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct BertSpec {
    /// Layers.
    pub layers: usize,
    /// Width of its rows.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Neurons of the MLP, whose activation is GELU by erf.
    pub ffn: usize,
    /// Word pieces.
    pub vocab: usize,
    /// Positions that have an embedding.
    pub positions: usize,
    /// Added to the variance by its norms.
    pub eps: f32,
}

/// A matrix with its bias, or a norm's weight with its bias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BertPair {
    /// `(outputs, inputs)`, or `(1, dim)`.
    pub weight: TensorInfo,
    /// `(1, outputs)`.
    pub bias: TensorInfo,
}

/// Tensors of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of `crate::LayerTensors`
pub struct BertLayer {
    pub q: BertPair,
    pub k: BertPair,
    pub v: BertPair,
    pub o: BertPair,
    pub attn_norm: BertPair,
    pub up: BertPair,
    pub down: BertPair,
    pub ffn_norm: BertPair,
}

/// An encoder: sizes, where its tensors lie, its tokenizer.
pub struct Bert {
    /// Sizes.
    pub spec: BertSpec,
    /// `(vocab, dim)`.
    pub words: TensorInfo,
    /// `(positions, dim)`.
    pub positions: TensorInfo,
    /// `(types, dim)`: a text alone is of type 0.
    pub types: TensorInfo,
    /// Norm of the sum of the three.
    pub norm: BertPair,
    /// Layers.
    pub layers: Vec<BertLayer>,
    /// `model.safetensors`.
    pub source: Box<dyn ByteSource>,
    /// Text to word pieces.
    pub tokenizer: Tokenizer,
    /// The piece that begins what it reads, `[CLS]`.
    pub cls: u32,
    /// The piece that ends it, `[SEP]`.
    pub sep: u32,
}

/// Open the encoder whose files `open` opens by name.
///
/// # Errors
/// If a file is missing, malformed, or of something that is no BERT with absolute positions and GELU by erf.
pub fn open_bert(open: &Open<'_>) -> Result<Bert> {
    let spec = spec(&Config::parse(&need(open, "config.json", MAX_CONFIG_BYTES)?)?)?;
    let tokenizer = Tokenizer::from_json(&need(open, "tokenizer.json", MAX_TOKENIZER_BYTES)?, None, None)?;
    if tokenizer.vocab_len() > spec.vocab {
        let problem = format!("{} word pieces, config.json has {}", tokenizer.vocab_len(), spec.vocab);
        return Err(Error::malformed("tokenizer.json", problem));
    }
    let named = |text: &str| match tokenizer.encode(text, true)?[..] {
        [id] => Ok(id),
        _ => Err(Error::malformed("tokenizer.json", format!("there is no {text} in it"))),
    };
    let (cls, sep) = (named("[CLS]")?, named("[SEP]")?);
    let name = "model.safetensors";
    let source = open(name)?.ok_or_else(|| Error::malformed(name, "the file is missing"))?;
    // Positions by number, which is all that it says, in a type that nothing else needs.
    let stored = parse_header(name, &*source, 0, |name| name == "embeddings.position_ids")?;
    let sources = [source];
    let mut table = TensorTable::new(&stored, &sources);
    let (dim, ffn) = (spec.dim, spec.ffn);
    let words = table.need("embeddings.word_embeddings.weight", spec.vocab, dim)?;
    let positions = table.need("embeddings.position_embeddings.weight", spec.positions, dim)?;
    let types = stored.iter().find(|t| t.info.name == "embeddings.token_type_embeddings.weight");
    let types = table.need("embeddings.token_type_embeddings.weight", types.map_or(1, |t| t.info.rows), dim)?;
    let mut pair = |name: &str, rows: usize, cols: usize, bias: usize| -> Result<BertPair> {
        let weight = table.need(&format!("{name}.weight"), rows, cols)?;
        Ok(BertPair { weight, bias: table.need(&format!("{name}.bias"), 1, bias)? })
    };
    let norm = pair("embeddings.LayerNorm", 1, dim, dim)?;
    let mut layers = Vec::with_capacity(spec.layers);
    for layer in 0..spec.layers {
        let name = |name: &str| format!("encoder.layer.{layer}.{name}");
        let mut dense = |of: &str, rows, cols| pair(&name(of), rows, cols, rows);
        layers.push(BertLayer {
            q: dense("attention.self.query", dim, dim)?,
            k: dense("attention.self.key", dim, dim)?,
            v: dense("attention.self.value", dim, dim)?,
            o: dense("attention.output.dense", dim, dim)?,
            up: dense("intermediate.dense", ffn, dim)?,
            down: dense("output.dense", dim, ffn)?,
            attn_norm: pair(&name("attention.output.LayerNorm"), 1, dim, dim)?,
            ffn_norm: pair(&name("output.LayerNorm"), 1, dim, dim)?,
        });
    }
    // The pooler is for whole sentences.
    table.forget(|name| name.starts_with("pooler."));
    table.expect_empty("bert")?;
    let [source] = sources;
    Ok(Bert { spec, words, positions, types, norm, layers, source, tokenizer, cls, sep })
}

fn spec(config: &Config) -> Result<BertSpec> {
    for (key, wanted) in [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        if let Some(found) = config.opt_str(key)?.filter(|found| *found != wanted) {
            return Err(Error::Unsupported(format!("an encoder whose {key} is '{found}', not '{wanted}'")));
        }
    }
    let size = |key: &str, most: usize| -> Result<usize> {
        let n = config.usize(key)?;
        if n == 0 || n > most {
            return Err(Error::malformed(config.field(key), format!("{n}, expected 1 to {most}")));
        }
        Ok(n)
    };
    let spec = BertSpec {
        layers: size("num_hidden_layers", MAX_LAYERS)?,
        dim: size("hidden_size", MAX_SIZE)?,
        heads: size("num_attention_heads", MAX_SIZE)?,
        ffn: size("intermediate_size", MAX_SIZE)?,
        vocab: size("vocab_size", MAX_SIZE)?,
        positions: size("max_position_embeddings", MAX_SIZE)?,
        eps: config.f64("layer_norm_eps")? as f32,
    };
    if !spec.dim.is_multiple_of(spec.heads) {
        let problem = format!("{}, which does not divide {} features", spec.heads, spec.dim);
        return Err(Error::malformed(config.field("num_attention_heads"), problem));
    }
    if !(spec.eps.is_finite() && spec.eps >= 0.0) {
        return Err(Error::malformed(config.field("layer_norm_eps"), format!("{}", spec.eps)));
    }
    Ok(spec)
}
