//! Gemma 3 (text only): norms before and after each block and on the heads of Q and K, GeGLU, scaled embeddings, and five
//! layers with a sliding window for each one that sees everything. The two kinds of layer have their own RoPE.
//!
//! Norm weights are stored as their difference from 1 by Hugging Face; GGUF's converter adds the 1.

use super::gguf_keys::Keys;
use super::names::{HF, Names, Parts, Presence};
use super::{Arch, hf_keys, rope};
use crate::gguf::{Array, Value};
use crate::safetensors::Config;
use crate::table::TensorTable;
use crate::{Activation, Error, LayerSpec, ModelSpec, Result, RopeSpec};

/// RoPE base of layers that see everything, and of those with a window.
const GLOBAL_BASE: f64 = 1_000_000.0;
const LOCAL_BASE: f64 = 10_000.0;
/// Every so many layers, one sees everything.
const PATTERN: usize = 6;
/// Layers of the 27B model, whose attention is scaled by `dim / n_heads` instead of the head's size. GGUF has no key for it.
const LAYERS_27B: usize = 62;

pub(super) const ARCH: Arch = Arch {
    gguf: "gemma3",
    hf: "gemma3_text",
    parts: Parts { qkv_bias: Presence::Absent, qk_norm: Presence::Required, post_norms: Presence::Required },
    hf_names: Names {
        post_attn_norm: "post_attention_layernorm.weight",
        ffn_norm: "pre_feedforward_layernorm.weight",
        ..HF
    },
    spec_from_gguf,
    spec_from_hf,
};

fn spec_from_gguf(keys: &Keys<'_>, _: &mut TensorTable<'_>) -> Result<ModelSpec> {
    let mut spec = keys.spec()?;
    let n_layers = spec.layers.len();
    if keys.get("rope.freq_base").is_none() {
        spec.ropes[0].base = GLOBAL_BASE;
    }
    if n_layers == LAYERS_27B && keys.get("attention.scale").is_none() {
        spec.attn_scale = 1.0 / (spec.dim as f32 / spec.n_heads as f32).sqrt();
    }
    let local_base = keys.opt_f32("rope.freq_base_swa")?.map_or(LOCAL_BASE, f64::from);
    let key = "attention.sliding_window_pattern";
    let is_local = match keys.get(key) {
        Some(Value::Array(Array::Bool(local))) => {
            expect_layers(&keys.field(key), local.len(), n_layers)?;
            local.clone()
        }
        _ => periodic(&keys.field(key), keys.opt_usize(key)?.unwrap_or(PATTERN), n_layers)?,
    };
    let local = RopeSpec { base: local_base, scale: 1.0, factors: Vec::new() };
    finish(&mut spec, &is_local, keys.usize("attention.sliding_window")?, local);
    Ok(spec)
}

fn spec_from_hf(config: &Config) -> Result<ModelSpec> {
    hf_keys::expect_activation(config, "hidden_activation", "gelu_pytorch_tanh")?;
    let mut spec = hf_keys::spec(ARCH.gguf, config, GLOBAL_BASE)?;
    let (n_layers, head_dim) = (spec.layers.len(), spec.head_dim);
    spec.norm_offset = 1.0;
    spec.ropes[0] = rope::from_config(config, Some("full_attention"), GLOBAL_BASE, head_dim)?;
    if let Some(scalar) = config.opt_f64("query_pre_attn_scalar")? {
        spec.attn_scale = (1.0 / scalar.sqrt()) as f32;
    }
    let is_local = match config.opt_strings("layer_types")? {
        Some(kinds) => {
            let field = config.field("layer_types");
            expect_layers(&field, kinds.len(), n_layers)?;
            kinds.iter().map(|kind| layer_is_local(&field, kind)).collect::<Result<_>>()?
        }
        None => {
            let key = "sliding_window_pattern";
            periodic(&config.field(key), config.opt_usize(key)?.unwrap_or(PATTERN), n_layers)?
        }
    };
    let local = match config.opt_object("rope_parameters")? {
        Some(parameters) if parameters.get("sliding_attention").is_some() => {
            rope::from_config(config, Some("sliding_attention"), LOCAL_BASE, head_dim)?
        }
        _ => RopeSpec {
            base: config.opt_f64("rope_local_base_freq")?.unwrap_or(LOCAL_BASE),
            scale: 1.0,
            factors: Vec::new(),
        },
    };
    finish(&mut spec, &is_local, config.usize("sliding_window")?, local);
    Ok(spec)
}

fn layer_is_local(field: &str, kind: &str) -> Result<bool> {
    match kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        _ => Err(Error::Unsupported(format!("{field} with '{kind}'"))),
    }
}

/// What both worlds leave to the architecture.
fn finish(spec: &mut ModelSpec, is_local: &[bool], window: usize, local: RopeSpec) {
    // Sizes are bounded far below 2^32; a window beyond it is no window.
    let window = u32::try_from(window).ok();
    spec.activation = Activation::GeluTanh;
    spec.embed_scale = (spec.dim as f32).sqrt();
    spec.ropes.push(local);
    spec.layers = is_local
        .iter()
        .map(|&is_local| match is_local {
            true => LayerSpec { rope: 1, window },
            false => LayerSpec { rope: 0, window: None },
        })
        .collect();
}

/// Every `period`-th layer sees everything, the others have the window.
fn periodic(field: &str, period: usize, n_layers: usize) -> Result<Vec<bool>> {
    if period == 0 {
        return Err(Error::malformed(field, "found 0, expected at least 1"));
    }
    Ok((1..=n_layers).map(|l| l % period != 0).collect())
}

fn expect_layers(field: &str, found: usize, n_layers: usize) -> Result<()> {
    if found == n_layers {
        return Ok(());
    }
    Err(Error::malformed(field, format!("{found} entries for {n_layers} layers")))
}
