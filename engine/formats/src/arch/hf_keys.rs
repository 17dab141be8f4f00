//! Hyperparameters in `config.json` that all architectures share.

use super::check::Sizes;
use super::rope;
use crate::safetensors::Config;
use crate::{Activation, Error, LayerSpec, ModelSpec, Result, RopeStyle};

/// Refuse what nothing here computes, whatever the architecture.
pub(super) fn refuse_common(config: &Config) -> Result<()> {
    for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
        if let Some(experts) = config.opt_usize(key)?.filter(|&n| n > 0) {
            let field = config.field(key);
            return Err(Error::Unsupported(format!("{field}: a mixture of {experts} experts")));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(x) = config.opt_f64(key)?.filter(|&x| x != 0.0) {
            return Err(Error::Unsupported(format!("{} of {x}", config.field(key))));
        }
    }
    for key in ["mlp_bias", "use_bidirectional_attention", "use_sliding_window"] {
        if config.bool_or(key, false)? {
            return Err(Error::Unsupported(format!("{} is true", config.field(key))));
        }
    }
    if let Some(factor) = config.opt_f64("partial_rotary_factor")?.filter(|&x| x != 1.0) {
        let field = config.field("partial_rotary_factor");
        return Err(Error::Unsupported(format!("{field} of {factor}")));
    }
    if config.get("quantization_config").is_some() {
        return Err(Error::Unsupported(format!(
            "{}: a quantised checkpoint; use one in F32, F16 or BF16",
            config.field("quantization_config")
        )));
    }
    Ok(())
}

/// Whether the output matrix is the embedding. Gemma's class ties by default, the others do not.
pub(super) fn tied(config: &Config, model_type: &str) -> Result<bool> {
    config.bool_or("tie_word_embeddings", model_type.starts_with("gemma"))
}

/// Refuse any activation but `expected`, at `key`.
pub(super) fn expect_activation(config: &Config, key: &str, expected: &str) -> Result<()> {
    match config.opt_str(key)? {
        Some(found) if found != expected => {
            Err(Error::Unsupported(format!("{} of '{found}'; '{expected}' is computed", config.field(key))))
        }
        _ => Ok(()),
    }
}

/// A spec with what all architectures share: SwiGLU, one RoPE in halves, no windows, no scales.
pub(super) fn spec(arch: &'static str, config: &Config, rope_base: f64) -> Result<ModelSpec> {
    let named = |key: &str| Ok::<_, Error>((config.usize(key)?, config.field(key)));
    let n_heads = named("num_attention_heads")?;
    let groups_key = "num_key_value_heads";
    let sizes = Sizes {
        n_layers: named("num_hidden_layers")?,
        dim: named("hidden_size")?,
        ffn: named("intermediate_size")?,
        n_groups: (config.opt_usize(groups_key)?.unwrap_or(n_heads.0), config.field(groups_key)),
        n_heads,
        head_dim: (config.opt_usize("head_dim")?, config.field("head_dim")),
        vocab: named("vocab_size")?,
        context_len: named("max_position_embeddings")?,
    };
    let head_dim = sizes.check()?;
    Ok(ModelSpec {
        arch: arch.into(),
        name: config.opt_str("_name_or_path")?.unwrap_or_default().into(),
        dim: sizes.dim.0,
        ffn: sizes.ffn.0,
        n_heads: sizes.n_heads.0,
        n_groups: sizes.n_groups.0,
        head_dim,
        vocab: sizes.vocab.0,
        context_len: sizes.context_len.0,
        norm_eps: config.opt_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        norm_offset: 0.0,
        embed_scale: 1.0,
        attn_scale: 1.0 / (head_dim as f32).sqrt(),
        activation: Activation::Silu,
        rope_style: RopeStyle::Halves,
        ropes: vec![rope::from_config(config, None, rope_base, head_dim)?],
        layers: vec![LayerSpec { rope: 0, window: None }; sizes.n_layers.0],
    })
}
