//! The forward pass over whole sequences.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use concertina_elastic::LayerUnits;
use concertina_formats::RopeSpec;

use super::{Adapter, Adapters, LayerAdapters, Net};
use crate::ops::attention::{Attention, Rotary, attention};
use crate::ops::glu::swiglu;
use crate::ops::linear::linear;
use crate::ops::norm::rms_norm;
use crate::ops::tree::{TreeHeads, TreeRows, tree_attention};

/// Sequences of one length, one after the other.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tokens of all sequences.
    pub ids: Vec<u32>,
    /// Tokens of each.
    pub tokens: usize,
}

/// A place inside a layer where a caller may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Before the layer: the residual stream.
    Residual,
    /// Between attention and the MLP: the residual stream.
    Middle,
    /// Heads' outputs: the input of O.
    Heads,
    /// Neurons: the input of `down`.
    Neurons,
}

/// Sees the values at a site of a layer, and may put others in their place.
pub type Probe<'a> = &'a mut dyn FnMut(usize, Site, &Tensor) -> Result<Option<Tensor>>;

/// How rows see each other.
enum Lines<'a> {
    /// Sequences of one length.
    Even { tokens: usize, rotary: Rotary },
    /// Sequences that share their beginnings.
    Trees { trees: &'a [TreeRows], rotary: Rotary },
}

/// A forward pass through a part of the model.
pub struct Pass<'a> {
    net: &'a Net,
    units: &'a [LayerUnits],
    adapters: Option<&'a Adapters>,
}

impl<'a> Pass<'a> {
    /// Through the first units of every layer. A layer without groups or neurons is skipped in that part.
    ///
    /// # Errors
    /// If the units are not those of the model's layers.
    pub fn new(net: &'a Net, units: &'a [LayerUnits], adapters: Option<&'a Adapters>) -> Result<Self> {
        ensure!(units.len() == net.layers.len(), "{} layers, not {}", units.len(), net.layers.len());
        for (units, shape) in units.iter().zip(&net.shapes) {
            ensure!(units.groups <= shape.groups && units.neurons <= shape.neurons, "{units:?} of {shape:?}");
        }
        Ok(Self { net, units, adapters })
    }

    /// The matrix of the logits.
    pub(super) fn head(&self) -> &Tensor {
        &self.net.head
    }

    /// Final hidden states, normed: `(n, dim)`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary, or candle refuses.
    pub fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        self.hidden_seen(batch, &mut |_, _, _| Ok(None))
    }

    /// The same; `probe` sees every layer's inside.
    ///
    /// # Errors
    /// As [`Pass::hidden`], and those of `probe`.
    pub fn hidden_seen(&self, batch: &Batch, probe: Probe<'_>) -> Result<Tensor> {
        self.from_layer(0, self.embed(batch)?, batch.tokens, probe)
    }

    /// The residual stream before the first layer.
    ///
    /// # Errors
    /// As [`Pass::hidden`].
    pub fn embed(&self, batch: &Batch) -> Result<Tensor> {
        let ids = Tensor::from_slice(&batch.ids, batch.ids.len(), &Device::Cpu)?;
        let x = self.net.embed.index_select(&ids, 0)?;
        let scale = f64::from(self.net.spec.embed_scale);
        Ok(if scale == 1.0 { x } else { (x * scale)? })
    }

    /// From the residual stream before layer `first` to the final hidden states.
    ///
    /// # Errors
    /// As [`Pass::hidden`].
    pub fn from_layer(&self, first: usize, x: Tensor, tokens: usize, probe: Probe<'_>) -> Result<Tensor> {
        let spec = &self.net.spec;
        self.run(first, x, &Lines::Even { tokens, rotary: rotary(&spec.ropes[0], spec, tokens) }, probe)
    }

    /// Final hidden states of rows that lie as trees, normed: `(n, dim)`.
    ///
    /// # Errors
    /// As [`Pass::hidden`].
    pub(super) fn hidden_of_trees(&self, ids: Vec<u32>, trees: &[TreeRows]) -> Result<Tensor> {
        let spec = &self.net.spec;
        let positions = trees.iter().map(TreeRows::positions).max().unwrap_or(0);
        let lines = Lines::Trees { trees, rotary: rotary(&spec.ropes[0], spec, positions) };
        let x = self.embed(&Batch { tokens: ids.len(), ids })?;
        self.run(0, x, &lines, &mut |_, _, _| Ok(None))
    }

    fn run(&self, first: usize, mut x: Tensor, lines: &Lines<'_>, probe: Probe<'_>) -> Result<Tensor> {
        let spec = &self.net.spec;
        let none = LayerAdapters::default();
        for i in first..self.net.layers.len() {
            let adapters = self.adapters.and_then(|a| a.layers.get(i)).unwrap_or(&none);
            let (layer, units) = (&self.net.layers[i], self.units[i]);
            x = probe(i, Site::Residual, &x)?.unwrap_or(x);
            if units.groups > 0 {
                let heads = self.heads(i, &x, lines)?;
                let heads = probe(i, Site::Heads, &heads)?.unwrap_or(heads);
                x = out(&x, &heads, &layer.o, &adapters.o)?;
            }
            x = probe(i, Site::Middle, &x)?.unwrap_or(x);
            if units.neurons > 0 {
                let neurons = self.neurons(i, &x)?;
                let neurons = probe(i, Site::Neurons, &neurons)?.unwrap_or(neurons);
                x = out(&x, &neurons, &layer.down, &adapters.down)?;
            }
        }
        Ok(rms_norm(&x, &self.net.final_norm, spec.norm_eps)?)
    }

    /// What a layer's kept heads put out, or its kept neurons: the input of the matrix at `site` for the residual stream
    /// `x` before it.
    ///
    /// # Errors
    /// Where candle refuses.
    pub(crate) fn inputs(&self, layer: usize, site: Site, x: &Tensor, tokens: usize) -> Result<Tensor> {
        let spec = &self.net.spec;
        match site {
            Site::Heads => {
                let rotary = rotary(&spec.ropes[0], spec, tokens);
                self.heads(layer, x, &Lines::Even { tokens, rotary })
            }
            _ => self.neurons(layer, x),
        }
    }

    /// How many of those are kept.
    pub(crate) fn kept(&self, layer: usize, site: Site) -> usize {
        let spec = &self.net.spec;
        match site {
            Site::Heads => self.units[layer].groups * (spec.n_heads / spec.n_groups) * spec.head_dim,
            _ => self.units[layer].neurons,
        }
    }

    /// `x` with those inputs through their matrix, and an adapter, added.
    pub(crate) fn output(
        &self,
        layer: usize,
        site: Site,
        x: &Tensor,
        inputs: &Tensor,
        adapter: &Option<Adapter>,
    ) -> Result<Tensor> {
        let w = &self.net.layers[layer];
        out(x, inputs, if site == Site::Heads { &w.o } else { &w.down }, adapter)
    }

    fn heads(&self, layer: usize, x: &Tensor, lines: &Lines<'_>) -> Result<Tensor> {
        let (spec, w) = (&self.net.spec, &self.net.layers[layer]);
        let heads_per_group = spec.n_heads / spec.n_groups;
        let hk = self.units[layer].groups * spec.head_dim;
        let hq = hk * heads_per_group;
        let normed = rms_norm(x, &w.attn_norm, spec.norm_eps)?;
        let project = |m: &Tensor, bias: &Option<Tensor>, rows| -> Result<Tensor> {
            let y = linear(&normed, &first_rows(m, rows)?)?;
            Ok(match bias {
                Some(bias) => y.broadcast_add(&bias.narrow(0, 0, rows)?)?,
                None => y,
            })
        };
        let q = project(&w.q, &w.q_bias, hq)?;
        let k = project(&w.k, &w.k_bias, hk)?;
        let v = project(&w.v, &w.v_bias, hk)?;
        match lines {
            Lines::Even { tokens, rotary } => {
                let shape = Attention {
                    tokens: *tokens,
                    heads_per_group,
                    head_dim: spec.head_dim,
                    scale: spec.attn_scale,
                    rotary: rotary.clone(),
                };
                Ok(attention(&q, &k, &v, shape)?)
            }
            Lines::Trees { trees, rotary } => {
                let (dim, scale, rotary) = (spec.head_dim, spec.attn_scale, rotary.clone());
                Ok(tree_attention(&q, &k, &v, trees, &TreeHeads { per_group: heads_per_group, dim, scale, rotary })?)
            }
        }
    }

    fn neurons(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        let (w, kept) = (&self.net.layers[layer], self.units[layer].neurons);
        let normed = rms_norm(x, &w.ffn_norm, self.net.spec.norm_eps)?;
        let gate = linear(&normed, &first_rows(&w.gate, kept)?)?;
        let up = linear(&normed, &first_rows(&w.up, kept)?)?;
        Ok(swiglu(&gate, &up)?)
    }
}

/// The residual stream `x` with a block's output added: its units through their matrix, and the adapter.
fn out(x: &Tensor, units: &Tensor, matrix: &Tensor, adapter: &Option<Adapter>) -> Result<Tensor> {
    let kept = units.dims2()?.1;
    let matrix = if matrix.dims2()?.1 == kept { matrix.clone() } else { matrix.narrow(1, 0, kept)? };
    let mut y = linear(units, &matrix)?;
    if let Some(adapter) = adapter {
        y = (y + adapter.apply(units)?)?;
    }
    Ok((x + y)?)
}

fn first_rows(m: &Tensor, rows: usize) -> Result<Tensor> {
    Ok(if m.dims2()?.0 == rows { m.clone() } else { m.narrow(0, 0, rows)? })
}

/// Angles of the first `tokens` positions, from f64.
fn rotary(rope: &RopeSpec, spec: &concertina_formats::ModelSpec, tokens: usize) -> Rotary {
    let half = spec.head_dim / 2;
    let frequency = |i: usize| {
        let factor = rope.factors.get(i).map_or(1.0, |f| f64::from(*f));
        rope.base.powf(-2.0 * i as f64 / spec.head_dim as f64) / factor / rope.scale
    };
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    let angles = (0..tokens).flat_map(|position| {
        frequencies.iter().map(move |f| {
            let angle = position as f64 * f;
            (angle.cos() as f32, angle.sin() as f32)
        })
    });
    Rotary { cos_sin: Arc::new(angles.collect()), style: spec.rope_style }
}
