//! The forward pass: buffers for activations and KV pages, recordings for a sub-model, and the batch that a replay runs.

mod batch;
mod buffers;
mod centres;
mod kernels;
mod layers;
mod pages;
mod product;
mod requantise;
mod rivals;

pub use batch::{BatchRow, OutRow, Pass, Tail};
pub use buffers::{Buffers, Capacity, JOBS, geometry};
pub use centres::KeyMedians;
pub use kernels::Kernels;
pub use product::{Place, Product, Products};
pub use requantise::Job;
pub use rivals::Rival;

use std::collections::HashMap;

use concertina_elastic::package::{LevelAdapters, Site};
use concertina_elastic::{LayerShape, LayerUnits, SubModel};
use concertina_formats::{Model, ModelSpec};
use concertina_kv::Widths;

use crate::adapters::LevelWeights;
use crate::record::Recording;
use crate::tune::{Family, Table};
use crate::weights::{self, LayerWeights, Matrix, Progress, Weights};
use crate::{Backend, Error, Prepared, Result};

/// Bytes of matrices that decoding a token reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightBytes {
    /// What a level keeps of the layers.
    pub layers: u64,
    /// For the logits: the same at every level.
    pub head: u64,
}

/// What a recording of the layers is made for: a level, a family of matrix kernels, and widths of pages.
type LayersKey = (u32, Family, Widths);

/// A model on a device, ready to run batches.
pub struct Forward {
    spec: ModelSpec,
    capacity: Capacity,
    kernels: Kernels,
    buffers: Buffers,
    weights: Weights,
    inv_freq: Vec<Vec<f64>>,
    /// Of each layer: what its keys have in common for certain. Empty where no chunk is quantised.
    key_biases: Vec<Option<Vec<f32>>>,
    sub_models: HashMap<u32, SubModel>,
    adapters: HashMap<u32, LevelWeights>,
    /// Embedding to the last residual.
    layers: HashMap<LayersKey, Prepared>,
    head: HashMap<Family, Prepared>,
    sample: Prepared,
    nll: Prepared,
    /// Prepared when chunks first change their width.
    quant: Option<Prepared>,
    /// Chunks that change their width with the next batch.
    jobs: usize,
}

impl Forward {
    /// Load `model` onto a device.
    pub async fn load(
        backend: &mut Backend,
        model: &Model,
        capacity: Capacity,
        table: Table,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let spec = model.spec.clone();
        let widths = capacity.widths.iter().copied().collect();
        let kernels = Kernels::for_backend(backend, capacity.exact, widths, table);
        let narrows = capacity.widths.iter().any(|width| width.is_quantised());
        let capacity = Capacity { centres: narrows, ..capacity };
        let capacity = capacity.fitted(&spec, backend.buffer_limits())?;
        let buffers = Buffers::alloc(backend, &spec, &capacity)?;
        let weights = weights::load(backend, model, progress).await?;
        let sample = backend.prepare(layers::sample(&spec, &buffers)?)?;
        let nll = backend.prepare(layers::row_nll(&spec, &buffers)?)?;
        let inv_freq: Vec<_> = spec.ropes.iter().map(|rope| inverse_frequencies(rope, spec.head_dim)).collect();
        let key_biases = if narrows { centres::biases(model)? } else { Vec::new() };
        Ok(Self {
            spec,
            capacity,
            kernels,
            buffers,
            weights,
            inv_freq,
            key_biases,
            sub_models: HashMap::new(),
            adapters: HashMap::new(),
            layers: HashMap::new(),
            head: HashMap::new(),
            sample,
            nll,
            quant: None,
            jobs: 0,
        })
    }

    /// What the kernels were picked by.
    pub fn table(&self) -> &Table {
        self.kernels.table()
    }

    /// Sizes that buffers were made for.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Use `sub` for its level from now on.
    pub fn set_sub_model(&mut self, backend: &mut Backend, sub: SubModel) -> Result<()> {
        let shapes = self.shapes();
        if sub.layers.len() != shapes.len() {
            return Err(Error::Invalid(format!("a sub-model of {} layers, not {}", sub.layers.len(), shapes.len())));
        }
        for (i, (kept, shape)) in sub.layers.iter().zip(&shapes).enumerate() {
            // None of a half: it is left out whole.
            let fits = |n: usize, all: usize, step: usize| n == all || (n < all && n.is_multiple_of(step));
            if !fits(kept.groups, shape.groups, shape.group_step)
                || !fits(kept.neurons, shape.neurons, shape.neuron_step)
            {
                return Err(Error::Invalid(format!("layer {i} cannot be cut to {kept:?}: it has {shape:?}")));
            }
        }
        self.release_adapters(backend, sub.level);
        self.sub_models.insert(sub.level, sub);
        Ok(())
    }

    /// Use recovery adapters for their level, whose sub-model has been set, from now on.
    pub fn set_adapters(&mut self, backend: &mut Backend, adapters: &LevelAdapters) -> Result<()> {
        let sub = self.sub_model(adapters.level).clone();
        let heads_cols = self.spec.n_heads / self.spec.n_groups * self.spec.head_dim;
        for (layer, site, adapter) in &adapters.sites {
            let inputs = sub.layers.get(*layer).map(|units| match site {
                Site::O => units.groups * heads_cols,
                Site::Down => units.neurons,
            });
            if inputs != Some(adapter.inputs) || adapter.outputs != self.spec.dim {
                return Err(Error::Invalid(format!(
                    "the adapter of level {} beside {site:?} of layer {layer} is of another shape than that level",
                    adapters.level
                )));
            }
        }
        let weights = LevelWeights::upload(backend, adapters, self.spec.layers.len())?;
        self.release_adapters(backend, adapters.level);
        self.adapters.insert(adapters.level, weights);
        Ok(())
    }

    /// Run a level without recovery adapters from now on, and free theirs.
    pub fn release_adapters(&mut self, backend: &mut Backend, level: u32) {
        self.layers.retain(|(of, ..), _| *of != level);
        if let Some(weights) = self.adapters.remove(&level) {
            weights.release(backend);
        }
    }

    /// Units that each layer keeps at a level.
    ///
    /// # Panics
    /// If the level is not in 1..=100.
    pub fn sub_model(&mut self, level: u32) -> &SubModel {
        if !self.sub_models.contains_key(&level) {
            let sub = SubModel::at_level(&self.shapes(), level, &[]);
            self.sub_models.insert(level, sub);
        }
        &self.sub_models[&level]
    }

    /// Query heads that a sub-model keeps, of all layers together.
    pub fn heads(&self, sub: &SubModel) -> usize {
        sub.layers.iter().map(|layer| layer.groups * (self.spec.n_heads / self.spec.n_groups)).sum()
    }

    /// Bytes of the matrices that every token reads: of the layers as a sub-model cuts them, and of the head.
    pub fn weight_bytes(&self, sub: &SubModel) -> WeightBytes {
        let part = |m: &Matrix, kept: usize, all: usize| {
            let whole = m.layout.rows * m.layout.panels() * m.layout.format.block_bytes();
            (whole as u128 * kept as u128 / all.max(1) as u128) as u64
        };
        let (groups, neurons) = (self.spec.n_groups, self.spec.ffn);
        let of_layer = |(w, units): (&LayerWeights, &LayerUnits)| -> u64 {
            let attention = w.qkv.iter().chain([&w.o]).map(|m| part(m, units.groups, groups));
            let mlp = w.gate_up.iter().chain([&w.down]).map(|m| part(m, units.neurons, neurons));
            attention.chain(mlp).sum()
        };
        let w = &self.weights;
        WeightBytes {
            layers: w.layers.iter().zip(&sub.layers).map(of_layer).sum(),
            head: part(w.output.as_ref().unwrap_or(&w.embed), 1, 1),
        }
    }

    /// Parts that each matrix is bound in, in the order of loading.
    pub fn matrix_parts(&self) -> Vec<usize> {
        let w = &self.weights;
        let layers = w.layers.iter().flat_map(|l| l.qkv.iter().chain([&l.o]).chain(&l.gate_up).chain([&l.down]));
        [&w.embed].into_iter().chain(layers).chain(&w.output).map(|matrix| matrix.parts.len()).collect()
    }

    /// What each layer has and the steps in which it can be cut.
    pub fn shapes(&self) -> Vec<LayerShape> {
        let spec = &self.spec;
        let group_cols = spec.n_heads / spec.n_groups * spec.head_dim;
        self.weights
            .layers
            .iter()
            .map(|layer| LayerShape {
                groups: spec.n_groups,
                neurons: spec.ffn,
                group_step: step_of(group_cols, layer.o.layout.format.panel_cols(), spec.n_groups),
                neuron_step: layer.down.layout.format.panel_cols(),
            })
            .collect()
    }

    /// Make the recording of the layers for a batch ready, if it is not yet, and name it.
    fn ready(&mut self, backend: &mut Backend, level: u32, rows: usize, used: Widths) -> Result<LayersKey> {
        let key = self.key(level, rows, used)?;
        if !self.layers.contains_key(&key) {
            let recording = self.record(key)?;
            self.layers.insert(key, backend.prepare(recording)?);
        }
        Ok(key)
    }

    /// What names the recording of the layers for a batch.
    fn key(&self, level: u32, rows: usize, used: Widths) -> Result<LayersKey> {
        if !(1..=100).contains(&level) {
            return Err(Error::Invalid(format!("level {level} is not between 1 and 100 percent")));
        }
        Ok((level, self.kernels.family(rows), self.kernels.recorded(self.spec.head_dim, used)))
    }

    /// The recording of the layers of that name.
    fn record(&mut self, (level, family, widths): LayersKey) -> Result<Recording> {
        self.sub_model(level);
        let sub = &self.sub_models[&level];
        let of = layers::Of { adapters: self.adapters.get(&level), family, widths, rotate: self.capacity.rotate };
        layers::layers(&self.spec, self.capacity.rows, &self.kernels, &self.buffers, &self.weights, sub, of)
    }

    fn ready_head(&mut self, backend: &mut Backend, family: Family) -> Result<()> {
        if !self.head.contains_key(&family) {
            let recording = layers::head(&self.spec, &self.kernels, &self.buffers, &self.weights, family)?;
            self.head.insert(family, backend.prepare(recording)?);
        }
        Ok(())
    }
}

/// The least number of groups whose columns are whole panels.
fn step_of(group_cols: usize, panel_cols: usize, groups: usize) -> usize {
    (1..=groups).find(|n| (n * group_cols).is_multiple_of(panel_cols)).unwrap_or(groups)
}

fn inverse_frequencies(rope: &concertina_formats::RopeSpec, head_dim: usize) -> Vec<f64> {
    (0..head_dim / 2)
        .map(|i| {
            let factor = rope.factors.get(i).map_or(1.0, |f| f64::from(*f));
            rope.base.powf(-2.0 * i as f64 / head_dim as f64) / factor / rope.scale
        })
        .collect()
}
