//! Hyperparameters in GGUF metadata that all architectures share.

use super::check::Sizes;
use super::rope;
use crate::gguf::{Metadata, Value};
use crate::{Activation, Error, LayerSpec, ModelSpec, Result, RopeSpec, RopeStyle};

/// Metadata seen from one architecture: keys are prefixed with its name.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata, arch: &'static str) -> Self {
        Keys { metadata, arch }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    pub(super) fn field(&self, key: &str) -> String {
        format!("metadata '{}'", self.key(key))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&self.key(key))
    }

    pub(super) fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        if let Some(Value::Array(_)) = self.get(key) {
            return Err(Error::Unsupported(format!("{} differs from layer to layer", self.field(key))));
        }
        Ok(self.metadata.opt_u32(&self.key(key))?.map(|n| n as usize))
    }

    pub(super) fn usize(&self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| Error::malformed(self.field(key), "missing; expected an integer"))
    }

    pub(super) fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.metadata.opt_f32(&self.key(key))
    }

    /// Names of the model's file, of the experts and of the caps on logits that nothing here computes.
    fn refuse(&self) -> Result<()> {
        if let Some(parts) = self.metadata.opt_u32("split.count")?.filter(|&parts| parts > 1) {
            return Err(Error::Unsupported(format!(
                "metadata 'split.count': one of {parts} parts; join them with gguf-split --merge"
            )));
        }
        if let Some(experts) = self.opt_usize("expert_count")?.filter(|&n| n > 0) {
            return Err(Error::Unsupported(format!("{}: a mixture of {experts} experts", self.field("expert_count"))));
        }
        for key in
            ["attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias"]
        {
            if let Some(x) = self.opt_f32(key)?.filter(|&x| x != 0.0) {
                return Err(Error::Unsupported(format!("{} of {x}", self.field(key))));
            }
        }
        if self.metadata.opt_bool(&self.key("attention.causal"))? == Some(false) {
            return Err(Error::Unsupported(format!("{} is false", self.field("attention.causal"))));
        }
        Ok(())
    }

    /// An error when the file asks for a window that its context could outgrow.
    pub(super) fn refuse_window(&self, context_len: usize) -> Result<()> {
        let key = "attention.sliding_window";
        match self.opt_usize(key)? {
            Some(window) if window > 0 && window < context_len => {
                Err(Error::Unsupported(format!("{} of {window} in a model of arch '{}'", self.field(key), self.arch)))
            }
            _ => Ok(()),
        }
    }

    /// A spec with what all architectures share: SwiGLU, one RoPE in halves, no windows, no scales.
    pub(super) fn spec(&self) -> Result<ModelSpec> {
        self.refuse()?;
        let named = |key: &str| Ok::<_, Error>((self.usize(key)?, self.field(key)));
        let n_heads = named("attention.head_count")?;
        let groups_key = "attention.head_count_kv";
        let tokens_key = "tokenizer.ggml.tokens";
        let sizes = Sizes {
            n_layers: named("block_count")?,
            dim: named("embedding_length")?,
            ffn: named("feed_forward_length")?,
            n_groups: (self.opt_usize(groups_key)?.unwrap_or(n_heads.0), self.field(groups_key)),
            n_heads,
            head_dim: (self.opt_usize("attention.key_length")?, self.field("attention.key_length")),
            vocab: (self.metadata.strings(tokens_key)?.len(), format!("metadata '{tokens_key}'")),
            context_len: named("context_length")?,
        };
        let head_dim = sizes.check()?;
        for (key, what) in [
            ("attention.value_length", "values of another size than keys"),
            ("rope.dimension_count", "rotating a part of each head"),
        ] {
            if let Some(found) = self.opt_usize(key)?.filter(|&found| found != head_dim) {
                return Err(Error::Unsupported(format!(
                    "{} of {found} with heads of {head_dim}: {what}",
                    self.field(key)
                )));
            }
        }
        let eps_key = "attention.layer_norm_rms_epsilon";
        let norm_eps = self
            .opt_f32(eps_key)?
            .ok_or_else(|| Error::malformed(self.field(eps_key), "missing; expected a number"))?;
        let scale_key = "attention.scale";
        Ok(ModelSpec {
            arch: self.arch.into(),
            name: self.metadata.opt_str("general.name")?.unwrap_or_default().into(),
            dim: sizes.dim.0,
            ffn: sizes.ffn.0,
            n_heads: sizes.n_heads.0,
            n_groups: sizes.n_groups.0,
            head_dim,
            vocab: sizes.vocab.0,
            context_len: sizes.context_len.0,
            norm_eps,
            norm_offset: 0.0,
            embed_scale: 1.0,
            attn_scale: match self.opt_f32(scale_key)?.filter(|&scale| scale != 0.0) {
                Some(scale) => scale,
                None => 1.0 / (head_dim as f32).sqrt(),
            },
            activation: Activation::Silu,
            rope_style: RopeStyle::Halves,
            ropes: vec![self.rope()?],
            layers: vec![LayerSpec { rope: 0, window: None }; sizes.n_layers.0],
        })
    }

    /// RoPE of the layers that see everything. Base and linear scaling.
    fn rope(&self) -> Result<RopeSpec> {
        let base = self.opt_f32("rope.freq_base")?.map_or(rope::DEFAULT_BASE, f64::from);
        let type_key = "rope.scaling.type";
        let scaling = self.metadata.opt_str(&self.key(type_key))?;
        let factor = match self.opt_f32("rope.scaling.factor")? {
            None => self.opt_f32("rope.scale_linear")?, // the key of old files
            factor => factor,
        };
        let scale = match scaling {
            Some("none") => 1.0,
            // A factor of 0 is how writers say that there is none.
            None | Some("linear") => factor.filter(|&f| f != 0.0).map_or(1.0, f64::from),
            Some(other) => {
                return Err(Error::Unsupported(format!(
                    "{} of '{other}'; 'none' and 'linear' are computed",
                    self.field(type_key)
                )));
            }
        };
        Ok(RopeSpec { base, scale, factors: Vec::new() })
    }
}
