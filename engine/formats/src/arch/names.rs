//! Names of tensors in both worlds, and finding them.

use crate::table::TensorTable;
use crate::{Error, LayerTensors, ModelSpec, ModelTensors, Result, TensorInfo};

/// Whether an architecture has a kind of tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Never: finding one is an error.
    Absent,
    /// In some models.
    Optional,
    /// In all models.
    Required,
}

/// Which optional tensors an architecture has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// Biases of Q, K and V.
    pub(super) qkv_bias: Presence,
    /// Norms of each head of Q and K.
    pub(super) qk_norm: Presence,
    /// Norms of attention's and the MLP's output.
    pub(super) post_norms: Presence,
}

/// Names of all tensors; those of a layer follow `layer`, its number and a dot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) embed: &'static str,
    pub(super) final_norm: &'static str,
    pub(super) output: &'static str,
    pub(super) layer: &'static str,
    pub(super) attn_norm: &'static str,
    pub(super) q: &'static str,
    pub(super) k: &'static str,
    pub(super) v: &'static str,
    pub(super) o: &'static str,
    pub(super) q_bias: &'static str,
    pub(super) k_bias: &'static str,
    pub(super) v_bias: &'static str,
    pub(super) o_bias: &'static str,
    pub(super) q_norm: &'static str,
    pub(super) k_norm: &'static str,
    pub(super) post_attn_norm: &'static str,
    pub(super) ffn_norm: &'static str,
    pub(super) gate: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) post_ffn_norm: &'static str,
}

/// The names in GGUF files, the same for all architectures.
pub(super) const GGUF: Names = Names {
    embed: "token_embd.weight",
    final_norm: "output_norm.weight",
    output: "output.weight",
    layer: "blk.",
    attn_norm: "attn_norm.weight",
    q: "attn_q.weight",
    k: "attn_k.weight",
    v: "attn_v.weight",
    o: "attn_output.weight",
    q_bias: "attn_q.bias",
    k_bias: "attn_k.bias",
    v_bias: "attn_v.bias",
    o_bias: "attn_output.bias",
    q_norm: "attn_q_norm.weight",
    k_norm: "attn_k_norm.weight",
    post_attn_norm: "post_attention_norm.weight",
    ffn_norm: "ffn_norm.weight",
    gate: "ffn_gate.weight",
    up: "ffn_up.weight",
    down: "ffn_down.weight",
    post_ffn_norm: "post_ffw_norm.weight",
};

/// The names in Hugging Face checkpoints of llama's family; others change a few.
pub(super) const HF: Names = Names {
    embed: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    output: "lm_head.weight",
    layer: "model.layers.",
    attn_norm: "input_layernorm.weight",
    q: "self_attn.q_proj.weight",
    k: "self_attn.k_proj.weight",
    v: "self_attn.v_proj.weight",
    o: "self_attn.o_proj.weight",
    q_bias: "self_attn.q_proj.bias",
    k_bias: "self_attn.k_proj.bias",
    v_bias: "self_attn.v_proj.bias",
    o_bias: "self_attn.o_proj.bias",
    q_norm: "self_attn.q_norm.weight",
    k_norm: "self_attn.k_norm.weight",
    post_attn_norm: "post_attention_norm.weight",
    ffn_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj.weight",
    up: "mlp.up_proj.weight",
    down: "mlp.down_proj.weight",
    post_ffn_norm: "post_feedforward_layernorm.weight",
};

impl Names {
    /// Take all tensors of the model out of `table`, shapes checked against `spec`.
    pub(super) fn find(&self, spec: &ModelSpec, parts: Parts, table: &mut TensorTable<'_>) -> Result<ModelTensors> {
        let embed = table.need(self.embed, spec.vocab, spec.dim)?;
        let final_norm = table.need(self.final_norm, 1, spec.dim)?;
        let output = table.take(self.output, spec.vocab, spec.dim)?;
        let layers: Result<Vec<LayerTensors>> =
            (0..spec.layers.len()).map(|l| self.layer(spec, parts, &format!("{}{l}.", self.layer), table)).collect();
        Ok(ModelTensors { embed, layers: layers?, final_norm, output })
    }

    fn layer(&self, spec: &ModelSpec, parts: Parts, prefix: &str, table: &mut TensorTable<'_>) -> Result<LayerTensors> {
        let (dim, ffn, head_dim) = (spec.dim, spec.ffn, spec.head_dim);
        let (hq, hk) = (spec.n_heads * head_dim, spec.n_groups * head_dim);
        let name = |suffix: &str| format!("{prefix}{suffix}");
        refuse_output_bias(&name(self.o_bias), dim, table)?;
        let mut need = |suffix, rows, cols| table.need(&name(suffix), rows, cols);
        let attn_norm = need(self.attn_norm, 1, dim)?;
        let q = need(self.q, hq, dim)?;
        let k = need(self.k, hk, dim)?;
        let v = need(self.v, hk, dim)?;
        let o = need(self.o, dim, hq)?;
        let ffn_norm = need(self.ffn_norm, 1, dim)?;
        let gate = need(self.gate, ffn, dim)?;
        let up = need(self.up, ffn, dim)?;
        let down = need(self.down, dim, ffn)?;
        let mut vector = |presence, suffix, len| optional(presence, &name(suffix), len, table);
        Ok(LayerTensors {
            q_bias: vector(parts.qkv_bias, self.q_bias, hq)?,
            k_bias: vector(parts.qkv_bias, self.k_bias, hk)?,
            v_bias: vector(parts.qkv_bias, self.v_bias, hk)?,
            q_norm: vector(parts.qk_norm, self.q_norm, head_dim)?,
            k_norm: vector(parts.qk_norm, self.k_norm, head_dim)?,
            post_attn_norm: vector(parts.post_norms, self.post_attn_norm, dim)?,
            post_ffn_norm: vector(parts.post_norms, self.post_ffn_norm, dim)?,
            attn_norm,
            q,
            k,
            v,
            o,
            ffn_norm,
            gate,
            up,
            down,
        })
    }
}

/// The vector `name` as the architecture has it. One that should not be there stays in the table, which then complains.
fn optional(presence: Presence, name: &str, len: usize, table: &mut TensorTable<'_>) -> Result<Option<TensorInfo>> {
    match presence {
        Presence::Absent => Ok(None),
        Presence::Optional => table.take(name, 1, len),
        Presence::Required => table.need(name, 1, len).map(Some),
    }
}

/// A bias on attention's output is not computed; checkpoints that carry one of zeros (llamafied Qwen) lose nothing.
fn refuse_output_bias(name: &str, dim: usize, table: &mut TensorTable<'_>) -> Result<()> {
    let Some(info) = table.take(name, 1, dim)? else {
        return Ok(());
    };
    if table.read(&info)?.iter().any(|&byte| byte != 0) {
        return Err(Error::Unsupported(format!("tensor '{name}': a bias on attention's output")));
    }
    Ok(())
}
