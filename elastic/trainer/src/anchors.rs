//! Which layers are never cut, and how much each layer changes the residual stream.

use anyhow::Result;
use candle_core::Tensor;
use concertina_elastic::LayerUnits;

use crate::data::Windows;
use crate::importance::batches;
use crate::net::{Net, Pass, Site};
use crate::ops::head::surprises;
use crate::ops::to_vec;

/// What removing each layer does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct LayerHarm {
    /// Mean surprise of the whole model in nats.
    pub whole: f64,
    /// Mean surprise without each layer.
    pub without: Vec<f64>,
    /// ShortGPT's block influence (arXiv 2403.03853): one minus the mean cosine between the residual stream before and
    /// after each layer.
    pub influence: Vec<f64>,
}

impl LayerHarm {
    /// The `count` layers whose loss hurts most, in rising order of layers.
    pub fn anchors(&self, count: usize) -> Vec<usize> {
        let mut layers: Vec<usize> = (0..self.without.len()).collect();
        layers.sort_by(|a, b| self.without[*b].total_cmp(&self.without[*a]));
        layers.truncate(count);
        layers.sort_unstable();
        layers
    }
}

/// Measure on the windows. `progress` hears of batches done and in all.
///
/// # Errors
/// Where candle refuses.
pub fn measure(net: &Net, windows: &Windows, progress: &mut dyn FnMut(usize, usize)) -> Result<LayerHarm> {
    let layers = net.layers.len();
    let full = net.full();
    let (mut whole, mut without, mut influence) = (0f64, vec![0f64; layers], vec![0f64; layers]);
    let (mut tokens, mut rows) = (0usize, 0usize);
    let batches = batches(windows);
    for (i, batch) in batches.iter().enumerate() {
        let mut residuals: Vec<Tensor> = Vec::new();
        let hidden = Pass::new(net, &full, None)?.hidden_seen(batch, &mut |_, site, x| {
            if site == Site::Residual {
                residuals.push(x.clone());
            }
            Ok(None)
        })?;
        let sum = |hidden: &Tensor| -> Result<(f64, usize)> {
            let losses = surprises(hidden, &net.head, &batch.ids, batch.tokens)?;
            Ok((losses.iter().map(|l| f64::from(*l)).sum(), losses.len()))
        };
        let (loss, count) = sum(&hidden)?;
        whole += loss;
        tokens += count;
        rows += batch.ids.len();
        for l in 0..layers {
            let mut units = full.clone();
            units[l] = LayerUnits { groups: 0, neurons: 0 };
            let pass = Pass::new(net, &units, None)?;
            let hidden = pass.from_layer(l, residuals[l].clone(), batch.tokens, &mut |_, _, _| Ok(None))?;
            without[l] += sum(&hidden)?.0;
            if let Some(after) = residuals.get(l + 1) {
                influence[l] += turned(&residuals[l], after)?;
            }
        }
        progress(i + 1, batches.len());
    }
    without.iter_mut().for_each(|v| *v /= tokens as f64);
    influence.iter_mut().for_each(|v| *v /= rows as f64);
    // What the last layer does to the stream is not seen by a later one; nobody drops it first.
    if let Some(last) = influence.last_mut() {
        *last = f64::MAX;
    }
    Ok(LayerHarm { whole: whole / tokens as f64, without, influence })
}

/// Each layer's influence on the residual stream alone, as [`LayerHarm::influence`]: one pass.
///
/// # Errors
/// Where candle refuses.
pub fn influence(net: &Net, windows: &Windows) -> Result<Vec<f64>> {
    let (full, mut rows) = (net.full(), 0usize);
    let mut influence = vec![0f64; full.len()];
    for batch in batches(windows) {
        let mut before: Option<Tensor> = None;
        Pass::new(net, &full, None)?.hidden_seen(&batch, &mut |layer, site, x| {
            if site == Site::Residual {
                if let (Some(before), Some(l)) = (&before, layer.checked_sub(1)) {
                    influence[l] += turned(before, x)?;
                }
                before = Some(x.clone());
            }
            Ok(None)
        })?;
        rows += batch.ids.len();
    }
    influence.iter_mut().for_each(|v| *v /= rows as f64);
    if let Some(last) = influence.last_mut() {
        *last = f64::MAX;
    }
    Ok(influence)
}

/// Sum over rows of one minus their cosine.
fn turned(before: &Tensor, after: &Tensor) -> Result<f64> {
    let dim = before.dims2()?.1;
    let (before, after) = (to_vec(before)?, to_vec(after)?);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let rows = before.chunks(dim).zip(after.chunks(dim));
    Ok(rows.map(|(a, b)| 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-30)).sum())
}
