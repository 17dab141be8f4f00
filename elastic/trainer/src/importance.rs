//! Importance of units, several ways.

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use concertina_elastic::LayerScores;
use rayon::prelude::*;

use crate::data::Windows;
use crate::net::{Batch, LayerNet, Net, Pass, Site};
use crate::ops::head::{Mix, Target, loss};
use crate::ops::to_vec;
use crate::random::Random;

/// A way to say how much a unit matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The squared effect of the unit's output on the loss of each token: see [`outputs`].
    Effect,
    /// `|∂L/∂w · w|` summed over the unit's weights (ElastiLM, LLM-Pruner), batch by batch.
    Gradient,
    /// Sum of `|w|`.
    Magnitude,
    /// Mean size of what the unit puts out.
    Activation,
    /// A seeded order.
    Random,
    /// The order of the file.
    None,
}

impl Criterion {
    /// All of them, the product's own first.
    pub const ALL: [Criterion; 6] = [
        Criterion::Effect,
        Criterion::Gradient,
        Criterion::Magnitude,
        Criterion::Activation,
        Criterion::Random,
        Criterion::None,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Effect => "effect",
            Criterion::Gradient => "gradient",
            Criterion::Magnitude => "magnitude",
            Criterion::Activation => "activation",
            Criterion::Random => "random",
            Criterion::None => "none",
        }
    }
}

/// Windows in one batch.
const BATCH: usize = 2;

/// Batches of whole windows.
pub(crate) fn batches(windows: &Windows) -> Vec<Batch> {
    let join = |some: &[(_, Vec<u32>)]| Batch {
        ids: some.iter().flat_map(|(_, ids)| ids).copied().collect(),
        tokens: windows.tokens,
    };
    windows.all.chunks(BATCH).map(join).collect()
}

/// Rows that have a next token in their window, with it.
pub(crate) fn next_tokens(batch: &Batch) -> Vec<(usize, Target)> {
    (0..batch.ids.len())
        .filter(|i| (i + 1) % batch.tokens != 0)
        .map(|i| (i, Target { next: batch.ids[i + 1], teacher: Vec::new() }))
        .collect()
}

/// Importance by gradients on the windows. `progress` hears of batches done and in all.
///
/// # Errors
/// Where candle refuses.
pub fn gradient(net: &Net, windows: &Windows, progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<LayerScores>> {
    let net = net.trainable()?;
    let units = net.full();
    let pass = Pass::new(&net, &units, None)?;
    let mut scores = vec![LayerScores::default(); net.layers.len()];
    let batches = batches(windows);
    for (i, batch) in batches.iter().enumerate() {
        let hidden = pass.hidden(batch)?;
        let loss = loss(&hidden, &net.head, next_tokens(batch), Mix { kl: 0.0, ce: 1.0 })?;
        let grads = loss.backward()?;
        for (layer, scores) in net.layers.iter().zip(&mut scores) {
            add(scores, &layer_scores(layer, &net, &mut |w| from_gradient(w, &grads))?);
        }
        progress(i + 1, batches.len());
    }
    Ok(scores)
}

/// Importance by what each unit's output does to the loss of each token: with `a` the output and `g` its gradient, the sum
/// over tokens of `|a·g|` and of `(a·g)²`. `a·g` is `∂L/∂w · w` summed over the unit's weights in O or `down`.
///
/// # Errors
/// Where candle refuses.
pub fn outputs(net: &Net, windows: &Windows, progress: &mut dyn FnMut(usize, usize)) -> Result<[Vec<LayerScores>; 2]> {
    let units = net.full();
    let pass = Pass::new(net, &units, None)?;
    let mut scores = [vec![LayerScores::default(); net.layers.len()], vec![LayerScores::default(); net.layers.len()]];
    let batches = batches(windows);
    let per_group = net.spec.n_heads / net.spec.n_groups;
    for (i, batch) in batches.iter().enumerate() {
        let mut seen: Vec<(usize, Site, Tensor, Var)> = Vec::new();
        let hidden = pass.hidden_seen(batch, &mut |layer, site, values| {
            if matches!(site, Site::Residual | Site::Middle) {
                return Ok(None);
            }
            // A variable of zeros: its gradient is that of the values.
            let zeros = Var::zeros(values.shape(), values.dtype(), values.device())?;
            seen.push((layer, site, values.detach(), zeros.clone()));
            Ok(Some((values + zeros.as_tensor())?))
        })?;
        let grads = loss(&hidden, &net.head, next_tokens(batch), Mix { kl: 0.0, ce: 1.0 })?.backward()?;
        for (layer, site, values, var) in seen {
            let Some(gradient) = grads.get(var.as_tensor()) else { continue };
            let n = if site == Site::Heads { net.spec.n_heads } else { net.spec.ffn };
            let (values, gradient) = (to_vec(&values)?, to_vec(gradient)?);
            let (mut sizes, mut squares) = (vec![0f64; n], vec![0f64; n]);
            let width = values.len() / batch.ids.len();
            for (values, gradient) in values.chunks(width).zip(gradient.chunks(width)) {
                let each = width / n;
                for (unit, (v, g)) in values.chunks(each).zip(gradient.chunks(each)).enumerate() {
                    let effect: f32 = v.iter().zip(g).map(|(v, g)| v * g).sum();
                    sizes[unit] += f64::from(effect.abs());
                    squares[unit] += f64::from(effect) * f64::from(effect);
                }
            }
            for (scores, units) in scores.iter_mut().zip([sizes, squares]) {
                let found = match site {
                    Site::Heads => {
                        let groups = units.chunks(per_group).map(|c| c.iter().sum()).collect();
                        LayerScores { groups, heads: units, neurons: Vec::new() }
                    }
                    _ => LayerScores { neurons: units, ..LayerScores::default() },
                };
                add(&mut scores[layer], &found);
            }
        }
        progress(i + 1, batches.len());
    }
    Ok(scores)
}

/// `|∂L/∂w · w|` of each weight.
fn from_gradient(w: &Tensor, grads: &GradStore) -> Result<Vec<f32>> {
    let mut values = to_vec(w)?;
    match grads.get(w) {
        None => values.fill(0.0),
        Some(gradient) => {
            let gradient = to_vec(gradient)?;
            values.par_chunks_mut(4096).zip(gradient.par_chunks(4096)).for_each(|(v, g)| {
                v.iter_mut().zip(g).for_each(|(v, g)| *v = (*v * g).abs());
            });
        }
    }
    Ok(values)
}

/// Importance by the size of weights.
///
/// # Errors
/// Where candle refuses.
pub fn magnitude(net: &Net) -> Result<Vec<LayerScores>> {
    let mut sizes = |w: &Tensor| -> Result<Vec<f32>> {
        let mut values = to_vec(w)?;
        values.par_iter_mut().with_min_len(4096).for_each(|v| *v = v.abs());
        Ok(values)
    };
    net.layers.iter().map(|layer| layer_scores(layer, net, &mut sizes)).collect()
}

/// Importance by the size of outputs on the windows.
///
/// # Errors
/// Where candle refuses.
pub fn activation(net: &Net, windows: &Windows) -> Result<Vec<LayerScores>> {
    let units = net.full();
    let pass = Pass::new(net, &units, None)?;
    let heads = net.spec.n_heads;
    let per_group = heads / net.spec.n_groups;
    let mut scores = vec![LayerScores::default(); net.layers.len()];
    for batch in batches(windows) {
        pass.hidden_seen(&batch, &mut |layer, site, values| {
            let sums = to_vec(&values.abs()?.sum(0)?)?;
            let of = |n: usize| -> Vec<f64> {
                sums.chunks(sums.len() / n).map(|c| c.iter().map(|v| f64::from(*v)).sum()).collect()
            };
            let found = match site {
                Site::Residual | Site::Middle => LayerScores::default(),
                Site::Heads => {
                    let heads = of(heads);
                    let groups = heads.chunks(per_group).map(|c| c.iter().sum()).collect();
                    LayerScores { groups, heads, neurons: Vec::new() }
                }
                Site::Neurons => LayerScores { neurons: of(sums.len()), ..LayerScores::default() },
            };
            add(&mut scores[layer], &found);
            Ok(None)
        })?;
    }
    Ok(scores)
}

/// Mean squares of neurons on the windows, by layer.
///
/// # Errors
/// Where candle refuses.
pub fn energy(net: &Net, windows: &Windows) -> Result<Vec<Vec<f32>>> {
    let units = net.full();
    let pass = Pass::new(net, &units, None)?;
    let mut sums = vec![vec![0f32; net.spec.ffn]; net.layers.len()];
    let mut rows = 0usize;
    for batch in batches(windows) {
        rows += batch.ids.len();
        pass.hidden_seen(&batch, &mut |layer, site, values| {
            if site == Site::Neurons {
                let squares = to_vec(&values.sqr()?.sum(0)?)?;
                sums[layer].iter_mut().zip(squares).for_each(|(sum, s)| *sum += s);
            }
            Ok(None)
        })?;
    }
    sums.iter_mut().flatten().for_each(|sum| *sum /= rows.max(1) as f32);
    Ok(sums)
}

/// No importance at all: a seeded draw.
pub fn random(net: &Net, seed: u64) -> Vec<LayerScores> {
    let mut random = Random::new(seed);
    let mut draw = |n: usize| (0..n).map(|_| random.unit()).collect::<Vec<f64>>();
    let spec = &net.spec;
    let layer =
        |_: &LayerNet| LayerScores { groups: draw(spec.n_groups), heads: draw(spec.n_heads), neurons: draw(spec.ffn) };
    net.layers.iter().map(layer).collect()
}

fn add(sum: &mut LayerScores, other: &LayerScores) {
    let add = |sum: &mut Vec<f64>, other: &[f64]| {
        sum.resize(sum.len().max(other.len()), 0.0);
        sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
    };
    add(&mut sum.groups, &other.groups);
    add(&mut sum.heads, &other.heads);
    add(&mut sum.neurons, &other.neurons);
}

/// Sum over each unit of what `of` says of each weight.
fn layer_scores(layer: &LayerNet, net: &Net, of: &mut dyn FnMut(&Tensor) -> Result<Vec<f32>>) -> Result<LayerScores> {
    let spec = &net.spec;
    let (d, ffn) = (spec.head_dim, spec.ffn);
    let per_group = spec.n_heads / spec.n_groups;
    let mut heads = vec![0f64; spec.n_heads];
    let mut groups = vec![0f64; spec.n_groups];
    let mut neurons = vec![0f64; ffn];
    rows(&of(&layer.q)?, d * spec.dim, &mut heads);
    columns(&of(&layer.o)?, d, &mut heads);
    rows(&of(&layer.k)?, d * spec.dim, &mut groups);
    rows(&of(&layer.v)?, d * spec.dim, &mut groups);
    for (group, heads) in groups.iter_mut().zip(heads.chunks(per_group)) {
        *group += heads.iter().sum::<f64>();
    }
    rows(&of(&layer.gate)?, spec.dim, &mut neurons);
    rows(&of(&layer.up)?, spec.dim, &mut neurons);
    columns(&of(&layer.down)?, 1, &mut neurons);
    Ok(LayerScores { groups, heads, neurons })
}

/// Unit `i` has the weights `i·each..(i + 1)·each`.
fn rows(values: &[f32], each: usize, sums: &mut [f64]) {
    for (sum, values) in sums.iter_mut().zip(values.chunks(each)) {
        *sum += f64::from(values.iter().sum::<f32>());
    }
}

/// Unit `i` has `width` columns of each row.
fn columns(values: &[f32], width: usize, sums: &mut [f64]) {
    for row in values.chunks(width * sums.len()) {
        rows(row, width, sums);
    }
}
