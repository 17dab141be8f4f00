//! Recovery adapters while they are trained.

use anyhow::Result;
use candle_core::{Tensor, Var};

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
    /// All adapters, in the order in which they are stored: layer by layer, `o` before `down`.
    pub fn iter(&self) -> impl Iterator<Item = &Adapter> {
        self.layers.iter().flat_map(|layer| layer.o.iter().chain(&layer.down))
    }

    /// All variables.
    pub fn vars(&self) -> Vec<Var> {
        self.iter().flat_map(|adapter| adapter.vars().map(Clone::clone)).collect()
    }
}
