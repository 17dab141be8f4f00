//! Qwen2 and Qwen2.5: llama with biases on Q, K and V. Sliding windows, which no released small model turns on, are refused.

use super::gguf_keys::Keys;
use super::names::{HF, Parts, Presence};
use super::{Arch, hf_keys, rope};
use crate::safetensors::Config;
use crate::table::TensorTable;
use crate::{Error, ModelSpec, Result};

pub(super) const ARCH: Arch = Arch {
    gguf: "qwen2",
    hf: "qwen2",
    parts: Parts { qkv_bias: Presence::Required, qk_norm: Presence::Absent, post_norms: Presence::Absent },
    hf_names: HF,
    spec_from_gguf,
    spec_from_hf,
};

fn spec_from_gguf(keys: &Keys<'_>, _: &mut TensorTable<'_>) -> Result<ModelSpec> {
    let spec = keys.spec()?;
    keys.refuse_window(spec.context_len)?;
    Ok(spec)
}

fn spec_from_hf(config: &Config) -> Result<ModelSpec> {
    hf_keys::expect_activation(config, "hidden_act", "silu")?;
    if let Some(kinds) = config.opt_strings("layer_types")?
        && let Some(kind) = kinds.iter().find(|&&kind| kind != "full_attention")
    {
        let field = config.field("layer_types");
        return Err(Error::Unsupported(format!("{field} with '{kind}' in a model of arch 'qwen2'")));
    }
    hf_keys::spec(ARCH.gguf, config, rope::DEFAULT_BASE)
}
