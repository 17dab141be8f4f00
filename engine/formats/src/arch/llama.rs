//! Llama and what shares its shape (Mistral without windows, SmolLM, TinyLlama).
//!
//! GGUF's converter permutes the rows of Q and K so that RoPE's pairs lie next to each other; Hugging Face keeps them half
//! a head apart. Biases of Q, K and V are optional (`attention_bias`). Llama 3 stretches RoPE's frequencies.

use super::gguf_keys::Keys;
use super::names::{HF, Parts, Presence};
use super::{Arch, hf_keys, rope};
use crate::safetensors::Config;
use crate::table::TensorTable;
use crate::{ModelSpec, Result, RopeStyle};

pub(super) const ARCH: Arch = Arch {
    gguf: "llama",
    hf: "llama",
    parts: Parts { qkv_bias: Presence::Optional, qk_norm: Presence::Absent, post_norms: Presence::Absent },
    hf_names: HF,
    spec_from_gguf,
    spec_from_hf,
};

fn spec_from_gguf(keys: &Keys<'_>, table: &mut TensorTable<'_>) -> Result<ModelSpec> {
    let mut spec = keys.spec()?;
    keys.refuse_window(spec.context_len)?;
    spec.rope_style = RopeStyle::Interleaved;
    spec.ropes[0].factors = rope::gguf_factors(table, spec.head_dim)?;
    Ok(spec)
}

fn spec_from_hf(config: &Config) -> Result<ModelSpec> {
    hf_keys::expect_activation(config, "hidden_act", "silu")?;
    hf_keys::spec(ARCH.gguf, config, rope::DEFAULT_BASE)
}
