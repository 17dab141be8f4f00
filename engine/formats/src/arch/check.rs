//! What every spec must satisfy before its tensors are looked for.

use crate::{Error, ModelSpec, Result};

const MAX_LAYERS: usize = 1024;
const MAX_DIM: usize = 1 << 17;
const MAX_FFN: usize = 1 << 20;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
const MAX_VOCAB: usize = 1 << 24;
const MAX_CONTEXT: usize = 1 << 30;
/// Elements of a quant block that widths are cut along.
const BLOCK: usize = 32;

/// Sizes that both worlds state, with what each world calls them for errors.
pub(super) struct Sizes {
    pub(super) n_layers: (usize, String),
    pub(super) dim: (usize, String),
    pub(super) ffn: (usize, String),
    pub(super) n_heads: (usize, String),
    pub(super) n_groups: (usize, String),
    /// `None`: `dim / n_heads`.
    pub(super) head_dim: (Option<usize>, String),
    pub(super) vocab: (usize, String),
    pub(super) context_len: (usize, String),
}

impl Sizes {
    /// Check every size against its bounds, and return the size of a head.
    pub(super) fn check(&self) -> Result<usize> {
        for ((found, field), max) in [
            (&self.n_layers, MAX_LAYERS),
            (&self.dim, MAX_DIM),
            (&self.ffn, MAX_FFN),
            (&self.n_heads, MAX_HEADS),
            (&self.n_groups, MAX_HEADS),
            (&self.vocab, MAX_VOCAB),
            (&self.context_len, MAX_CONTEXT),
        ] {
            if !(1..=max).contains(found) {
                return Err(Error::malformed(field, format!("found {found}, expected 1 to {max}")));
            }
        }
        let ((n_heads, heads_field), (n_groups, groups_field)) = (&self.n_heads, &self.n_groups);
        if n_heads % n_groups != 0 {
            return Err(Error::malformed(
                groups_field,
                format!("{n_groups} KV heads do not divide {n_heads} query heads"),
            ));
        }
        let (head_dim, field) = &self.head_dim;
        let dim = self.dim.0;
        let head_dim = match head_dim {
            Some(head_dim) => *head_dim,
            None if dim.is_multiple_of(*n_heads) => dim / n_heads,
            None => {
                return Err(Error::malformed(
                    heads_field,
                    format!("{n_heads} heads do not divide the width {dim}, and no head size is given"),
                ));
            }
        };
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(Error::malformed(field, format!("found {head_dim}, expected 1 to {MAX_HEAD_DIM}")));
        }
        Ok(head_dim)
    }
}

/// What the kernels ask of a model's shape, and that its constants are numbers one can compute with.
pub(super) fn spec(spec: &ModelSpec) -> Result<()> {
    if !spec.head_dim.is_multiple_of(4) {
        return Err(Error::Unsupported(format!(
            "heads of {} dimensions; the kernels take multiples of 4",
            spec.head_dim
        )));
    }
    let hq = spec.n_heads * spec.head_dim;
    for (what, width) in [("residual width", spec.dim), ("MLP width", spec.ffn), ("query heads' width", hq)] {
        if width % BLOCK != 0 {
            return Err(Error::Unsupported(format!("{what} of {width}; the kernels take multiples of {BLOCK}")));
        }
    }
    let mut numbers = vec![
        ("norm epsilon", f64::from(spec.norm_eps)),
        ("attention scale", f64::from(spec.attn_scale)),
        ("embedding scale", f64::from(spec.embed_scale)),
    ];
    for rope in &spec.ropes {
        numbers.push(("rope base", rope.base));
        numbers.push(("rope scale", rope.scale));
        numbers.extend(rope.factors.iter().map(|&f| ("rope factors", f64::from(f))));
        if !rope.factors.is_empty() && rope.factors.len() != spec.head_dim / 2 {
            return Err(Error::malformed(
                "rope factors",
                format!("{} of them for heads of {}", rope.factors.len(), spec.head_dim),
            ));
        }
    }
    for (what, number) in numbers {
        if !(number.is_finite() && number > 0.0) {
            return Err(Error::malformed(what, format!("found {number}, expected a number above 0")));
        }
    }
    if spec.layers.iter().any(|layer| layer.window == Some(0)) {
        return Err(Error::malformed("sliding window", "found 0, expected at least 1"));
    }
    Ok(())
}
