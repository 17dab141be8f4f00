//! Dequantised weights, and units moved about in them.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use concertina_elastic::{LayerShape, LayerUnits};
use concertina_formats::{Activation, Model, ModelSpec, TensorInfo, dequant::dequantize_row};

/// Weights of a layer; matrices are `(outputs, inputs)`.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names are those of `concertina_formats::LayerTensors`
pub struct LayerNet {
    pub attn_norm: Arc<Vec<f32>>,
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub q_bias: Option<Tensor>,
    pub k_bias: Option<Tensor>,
    pub v_bias: Option<Tensor>,
    pub o: Tensor,
    pub ffn_norm: Arc<Vec<f32>>,
    pub gate: Tensor,
    pub up: Tensor,
    pub down: Tensor,
}

/// A whole model.
#[derive(Debug, Clone)]
pub struct Net {
    /// Hyperparameters.
    pub spec: ModelSpec,
    /// Embedding `(vocab, dim)`.
    pub embed: Tensor,
    /// Layers in order.
    pub layers: Vec<LayerNet>,
    /// Gains of the last norm.
    pub final_norm: Arc<Vec<f32>>,
    /// Matrix of the logits `(vocab, dim)`.
    pub head: Tensor,
    /// What can be cut of each layer, and in which steps.
    pub shapes: Vec<LayerShape>,
}

impl Net {
    /// Read and dequantise all weights.
    ///
    /// # Errors
    /// If the model has parts that the trainer does not compute, or cannot be read.
    pub fn load(model: &Model) -> Result<Self> {
        let spec = model.spec.clone();
        let windows = spec.layers.iter().any(|layer| layer.window.is_some());
        let t = &model.tensors;
        let norms = t.layers.iter().any(|l| l.q_norm.is_some() || l.post_attn_norm.is_some());
        if !matches!(spec.arch.as_str(), "llama" | "qwen2") || windows || norms || spec.activation != Activation::Silu {
            bail!("the trainer computes models of arch llama and qwen2, not {}", spec.arch);
        }
        ensure!(spec.ropes.len() == 1, "{} rotary embeddings; the trainer computes one", spec.ropes.len());
        let vector = |info: &TensorInfo| -> Result<Arc<Vec<f32>>> {
            let mut gains = values(model, info)?;
            gains.iter_mut().for_each(|g| *g += spec.norm_offset);
            Ok(Arc::new(gains))
        };
        let matrix = |info: &TensorInfo| -> Result<Tensor> {
            Ok(Tensor::from_vec(values(model, info)?, (info.rows, info.cols), &Device::Cpu)?)
        };
        let bias = |info: &Option<TensorInfo>| -> Result<Option<Tensor>> {
            let Some(info) = info else { return Ok(None) };
            Ok(Some(Tensor::from_vec(values(model, info)?, info.cols, &Device::Cpu)?))
        };
        let mut layers = Vec::with_capacity(t.layers.len());
        for l in &t.layers {
            layers.push(LayerNet {
                attn_norm: vector(&l.attn_norm)?,
                q: matrix(&l.q)?,
                k: matrix(&l.k)?,
                v: matrix(&l.v)?,
                q_bias: bias(&l.q_bias)?,
                k_bias: bias(&l.k_bias)?,
                v_bias: bias(&l.v_bias)?,
                o: matrix(&l.o)?,
                ffn_norm: vector(&l.ffn_norm)?,
                gate: matrix(&l.gate)?,
                up: matrix(&l.up)?,
                down: matrix(&l.down)?,
            });
        }
        let embed = matrix(&t.embed)?;
        let head = t.output.as_ref().map_or_else(|| Ok(embed.clone()), matrix)?;
        Ok(Self { final_norm: vector(&t.final_norm)?, shapes: shapes(model), spec, embed, layers, head })
    }

    /// All units of every layer.
    pub fn full(&self) -> Vec<LayerUnits> {
        self.shapes.iter().map(|s| LayerUnits { groups: s.groups, neurons: s.neurons }).collect()
    }

    /// The same model with every matrix of the layers a variable, so that it gets a gradient.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn trainable(&self) -> Result<Self> {
        let var = |t: &Tensor| -> Result<Tensor> { Ok(Var::from_tensor(t)?.as_tensor().clone()) };
        let mut net = self.clone();
        for layer in &mut net.layers {
            for matrix in layer.matrices_mut() {
                *matrix = var(matrix)?;
            }
        }
        Ok(net)
    }
}

impl LayerNet {
    fn matrices_mut(&mut self) -> [&mut Tensor; 7] {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.o, &mut self.gate, &mut self.up, &mut self.down]
    }
}

/// The values of a tensor of a model.
pub(crate) fn values(model: &Model, info: &TensorInfo) -> Result<Vec<f32>> {
    let read = || -> Result<Vec<f32>> {
        let mut stored = vec![0u8; usize::try_from(info.bytes)?];
        model.sources[info.source].read_at(info.offset, &mut stored)?;
        let mut out = vec![0f32; info.rows * info.cols];
        dequantize_row(info.dtype, &stored, &mut out)?;
        Ok(out)
    };
    read().with_context(|| format!("tensor '{}'", info.name))
}

/// What the engine can cut of each layer: whole panels of O and `down`, which are one quant block wide.
pub fn shapes(model: &Model) -> Vec<LayerShape> {
    let spec = &model.spec;
    let group_cols = spec.n_heads / spec.n_groups * spec.head_dim;
    let panel = |info: &TensorInfo| info.dtype.block().0.max(32);
    let of = |l: &concertina_formats::LayerTensors| LayerShape {
        groups: spec.n_groups,
        neurons: spec.ffn,
        group_step: (1..=spec.n_groups).find(|n| (n * group_cols).is_multiple_of(panel(&l.o))).unwrap_or(spec.n_groups),
        neuron_step: panel(&l.down),
    };
    model.tensors.layers.iter().map(of).collect()
}
