//! One layer of BERT: attention both ways, then an MLP, each followed by a norm of the sum.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor, Var};
use concertina_elastic::heads;
use concertina_formats::dequant::dequantize_row;
use concertina_formats::{DType, quant::quantize_row};

use crate::ops::linear::linear;
use crate::ops::to_vec;

/// Added to the variance.
const EPS: f64 = 1e-12;

/// `y = x·wᵀ + b`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// `(outputs, inputs)`.
    pub weight: Tensor,
    /// `(outputs)`.
    pub bias: Tensor,
}

/// A LayerNorm's gain and shift.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `(dim)`.
    pub weight: Tensor,
    /// `(dim)`.
    pub bias: Tensor,
}

/// A layer.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // the names are those of `concertina_elastic::heads::Layer`
pub struct Layer {
    pub q: Dense,
    pub k: Dense,
    pub v: Dense,
    pub o: Dense,
    pub attn_norm: Norm,
    pub up: Dense,
    pub down: Dense,
    pub ffn_norm: Norm,
}

impl Dense {
    /// `x (n, inputs)` to `(n, outputs)`.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.weight)?.broadcast_add(&self.bias)?)
    }

    /// As stored: Q8_0 blocks.
    fn stored(&self) -> Result<heads::Dense> {
        let (rows, cols) = self.weight.dims2()?;
        let mut blocks = Vec::new();
        for row in to_vec(&self.weight)?.chunks(cols) {
            quantize_row(DType::Q8_0, row, None, &mut blocks)?;
        }
        Ok(heads::Dense { weight: heads::Matrix { rows, cols, blocks }, bias: to_vec(&self.bias)? })
    }

    fn restored(stored: &heads::Dense) -> Result<Self> {
        let heads::Matrix { rows, cols, blocks } = &stored.weight;
        let mut values = vec![0f32; rows * cols];
        dequantize_row(DType::Q8_0, blocks, &mut values)?;
        let weight = Tensor::from_vec(values, (*rows, *cols), &Device::Cpu)?;
        Ok(Self { weight, bias: vector(&stored.bias)? })
    }
}

impl Norm {
    /// Rows of `x (n, dim)` with mean 0 and variance 1, times the gain, plus the shift.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + EPS)?.sqrt()?)?;
        Ok(normed.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }

    fn stored(&self) -> Result<heads::Norm> {
        Ok(heads::Norm { weight: to_vec(&self.weight)?, bias: to_vec(&self.bias)? })
    }

    fn restored(stored: &heads::Norm) -> Result<Self> {
        Ok(Self { weight: vector(&stored.weight)?, bias: vector(&stored.bias)? })
    }
}

fn vector(values: &[f32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, values.len(), &Device::Cpu)?)
}

impl Layer {
    /// Layer `i` of a BERT file's tensors.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub(super) fn read(tensors: &HashMap<String, Tensor>, i: usize, dim: usize, ffn: usize) -> Result<Self> {
        let get = |name: &str, shape: &[usize]| -> Result<Tensor> {
            let name = format!("encoder.layer.{i}.{name}");
            let tensor = tensors.get(&name).with_context(|| format!("tensor '{name}' is missing"))?;
            ensure!(tensor.dims() == shape, "tensor '{name}' is {:?}, expected {shape:?}", tensor.dims());
            Ok(tensor.clone())
        };
        let dense = |name: &str, rows: usize, cols: usize| -> Result<Dense> {
            let weight = get(&format!("{name}.weight"), &[rows, cols])?;
            Ok(Dense { weight, bias: get(&format!("{name}.bias"), &[rows])? })
        };
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm { weight: get(&format!("{name}.weight"), &[dim])?, bias: get(&format!("{name}.bias"), &[dim])? })
        };
        Ok(Self {
            q: dense("attention.self.query", dim, dim)?,
            k: dense("attention.self.key", dim, dim)?,
            v: dense("attention.self.value", dim, dim)?,
            o: dense("attention.output.dense", dim, dim)?,
            attn_norm: norm("attention.output.LayerNorm")?,
            up: dense("intermediate.dense", ffn, dim)?,
            down: dense("output.dense", dim, ffn)?,
            ffn_norm: norm("output.LayerNorm")?,
        })
    }

    /// Rows `x (n, dim)`, all of which see each other, with this many attention heads.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn forward(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (n, dim) = x.dims2()?;
        let width = dim / heads;
        let split = |y: Tensor| -> Result<Tensor> { Ok(y.reshape((n, heads, width))?.transpose(0, 1)?.contiguous()?) };
        let (q, k, v) = (split(self.q.apply(x)?)?, split(self.k.apply(x)?)?, split(self.v.apply(x)?)?);
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / (width as f64).sqrt())?;
        // The largest score is taken away so that nothing overflows; the softmax does not change by it.
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let shares = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        let seen = shares.matmul(&v)?.transpose(0, 1)?.contiguous()?.reshape((n, dim))?;
        let x = self.attn_norm.apply(&(x + self.o.apply(&seen)?)?)?;
        let neurons = self.up.apply(&x)?.gelu_erf()?;
        self.ffn_norm.apply(&(&x + self.down.apply(&neurons)?)?)
    }

    /// Its tensors, in a fixed order.
    pub(crate) fn tensors_mut(&mut self) -> [&mut Tensor; 16] {
        [
            &mut self.q.weight,
            &mut self.q.bias,
            &mut self.k.weight,
            &mut self.k.bias,
            &mut self.v.weight,
            &mut self.v.bias,
            &mut self.o.weight,
            &mut self.o.bias,
            &mut self.attn_norm.weight,
            &mut self.attn_norm.bias,
            &mut self.up.weight,
            &mut self.up.bias,
            &mut self.down.weight,
            &mut self.down.bias,
            &mut self.ffn_norm.weight,
            &mut self.ffn_norm.bias,
        ]
    }

    /// The same layer with every tensor a variable, and those variables.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn trainable(&self) -> Result<(Self, Vec<Var>)> {
        let mut layer = self.clone();
        let mut vars = Vec::new();
        for tensor in layer.tensors_mut() {
            let var = Var::from_tensor(tensor)?;
            *tensor = var.as_tensor().clone();
            vars.push(var);
        }
        Ok((layer, vars))
    }

    /// As stored.
    ///
    /// # Errors
    /// If the widths are no whole number of quant blocks.
    pub fn stored(&self) -> Result<heads::Layer> {
        Ok(heads::Layer {
            q: self.q.stored()?,
            k: self.k.stored()?,
            v: self.v.stored()?,
            o: self.o.stored()?,
            attn_norm: self.attn_norm.stored()?,
            up: self.up.stored()?,
            down: self.down.stored()?,
            ffn_norm: self.ffn_norm.stored()?,
        })
    }

    /// As it acts when it is read: to measure what runs, not what was trained.
    ///
    /// # Errors
    /// If the blocks are not those of the shape.
    pub fn restored(stored: &heads::Layer) -> Result<Self> {
        Ok(Self {
            q: Dense::restored(&stored.q)?,
            k: Dense::restored(&stored.k)?,
            v: Dense::restored(&stored.v)?,
            o: Dense::restored(&stored.o)?,
            attn_norm: Norm::restored(&stored.attn_norm)?,
            up: Dense::restored(&stored.up)?,
            down: Dense::restored(&stored.down)?,
            ffn_norm: Norm::restored(&stored.ffn_norm)?,
        })
    }
}
