//! Recovery adapters while they are trained.

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use concertina_elastic::LayerUnits;

use super::Net;
use crate::ops::linear::linear;

/// `y += (x · aᵀ) · b + c`, where `x` is the kept input of the matrix that gives `y`.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `(rank, kept inputs)`.
    pub a: Var,
    /// `(rank, outputs)`.
    pub b: Var,
    /// `(outputs)`.
    pub c: Var,
}

impl Adapter {
    /// What it adds.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let low = linear(x, self.a.as_tensor())?;
        Ok(low.matmul(self.b.as_tensor())?.broadcast_add(self.c.as_tensor())?)
    }

    /// Its three parts.
    pub fn vars(&self) -> [&Var; 3] {
        [&self.a, &self.b, &self.c]
    }
}

/// The adapters of a layer.
#[derive(Debug, Clone, Default)]
pub struct LayerAdapters {
    /// On attention's output matrix.
    pub o: Option<Adapter>,
    /// On the MLP's output matrix.
    pub down: Option<Adapter>,
}

/// The adapters of a level: an entry a layer.
#[derive(Debug, Clone, Default)]
pub struct Adapters {
    /// In order.
    pub layers: Vec<LayerAdapters>,
}

impl Adapters {
    /// Adapters of zeros where a sub-model has adapters: beside the output matrices of [`repaired`] layers, where anything is
    /// kept before them.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn zeros(net: &Net, units: &[LayerUnits], anchors: &[usize], rank: usize) -> Result<Self> {
        let spec = &net.spec;
        let group_cols = spec.n_heads / spec.n_groups * spec.head_dim;
        let zeros = |shape: &[usize]| Var::zeros(shape, DType::F32, &Device::Cpu);
        let adapter = |inputs: usize| -> Result<Option<Adapter>> {
            if inputs == 0 {
                return Ok(None);
            }
            Ok(Some(Adapter { a: zeros(&[rank, inputs])?, b: zeros(&[rank, spec.dim])?, c: zeros(&[spec.dim])? }))
        };
        let layer = |(units, repaired): (&LayerUnits, bool)| -> Result<LayerAdapters> {
            if !repaired {
                return Ok(LayerAdapters::default());
            }
            Ok(LayerAdapters { o: adapter(units.groups * group_cols)?, down: adapter(units.neurons)? })
        };
        Ok(Self { layers: units.iter().zip(repaired(net, units, anchors)).map(layer).collect::<Result<_>>()? })
    }

    /// All adapters, in the order in which they are stored: layer by layer, `o` before `down`.
    pub fn iter(&self) -> impl Iterator<Item = &Adapter> {
        self.layers.iter().flat_map(|layer| layer.o.iter().chain(&layer.down))
    }

    /// All variables.
    pub fn vars(&self) -> Vec<Var> {
        self.iter().flat_map(|adapter| adapter.vars().map(Clone::clone)).collect()
    }
}

/// Which layers have adapters: those that are cut, and behind a half that is left out all others but the anchors.
pub fn repaired(net: &Net, units: &[LayerUnits], anchors: &[usize]) -> Vec<bool> {
    let full = net.full();
    let mut is_behind = false;
    let layers = units.iter().zip(&full).enumerate();
    layers
        .map(|(l, (units, whole))| {
            is_behind |= units.groups == 0 || units.neurons == 0;
            units != whole || (is_behind && !anchors.contains(&l))
        })
        .collect()
}
