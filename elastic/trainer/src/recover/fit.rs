//! Adapters in closed form.
//!
//! Layer by layer, with what came before already cut and repaired: the adapter of a matrix is the map of given rank from
//! its kept inputs to what the dropped ones would have added (reduced-rank regression, with a ridge). The constant alone
//! is the mean of that (FLAP, arXiv 2312.11983). Rows are weighted so that each counts by its direction: the next thing
//! that happens to the stream is a norm.
//!
//! What a half of a layer would have added that is left out whole is made up for by the next adapter. Beside a matrix of
//! which nothing is cut, an adapter is fitted to what the whole model's stream has there: it makes up for what came before.
//! Where something is cut, fitting to that stream gave back less.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use concertina_elastic::LayerUnits;

use super::linalg::{cholesky, leading, solve};
use crate::net::{Adapter, Adapters, Batch, LayerAdapters, Net, Pass, Site, repaired};
use crate::ops::gemm::{Mat, matmul};
use crate::ops::to_vec;

/// Ridge, in means of the inputs' squares.
const RIDGE: f32 = 0.03;

/// Adapters of rank `rank` (0: constants alone) for all layers that have some ([`repaired`]), from some text.
///
/// # Errors
/// Where candle refuses.
pub fn fit(
    net: &Net,
    units: &[LayerUnits],
    anchors: &[usize],
    batch: &Batch,
    rank: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Adapters> {
    let (full, repaired) = (net.full(), repaired(net, units, anchors));
    let (pass, whole) = (Pass::new(net, units, None)?, Pass::new(net, &full, None)?);
    let mut x = pass.embed(batch)?;
    let mut uncut_stream = x.clone();
    // What halves that were left out would have added since the last adapter.
    let mut owed: Option<Tensor> = None;
    let mut layers = vec![LayerAdapters::default(); net.layers.len()];
    for l in 0..net.layers.len() {
        for site in [Site::Heads, Site::Neurons] {
            let step = |stream: &Tensor| -> Result<(Tensor, Tensor)> {
                let all = whole.inputs(l, site, stream, batch.tokens)?;
                let after = whole.output(l, site, stream, &all, &None)?;
                Ok((all, after))
            };
            uncut_stream = step(&uncut_stream)?.1.detach();
            let (all, uncut) = step(&x)?;
            let kept = pass.kept(l, site);
            if kept == 0 {
                let added = (uncut - &x)?;
                owed = Some(match owed {
                    Some(owed) => (owed + added)?.detach(),
                    None => added.detach(),
                });
                continue;
            }
            if !repaired[l] {
                x = uncut.detach();
                continue;
            }
            // A level is a prefix.
            let inputs = all.narrow(1, 0, kept)?.contiguous()?;
            let y = pass.output(l, site, &x, &inputs, &None)?;
            let is_whole = kept == whole.kept(l, site);
            let target = match owed.take() {
                Some(owed) => (uncut + owed)?,
                None if is_whole => uncut_stream.clone(),
                None => uncut,
            };
            let adapter = fit_one(&inputs, &(&target - &y)?, &target, rank)?;
            x = (y + adapter.apply(&inputs)?)?.detach();
            *(if site == Site::Heads { &mut layers[l].o } else { &mut layers[l].down }) = Some(adapter);
        }
        progress(l + 1, net.layers.len());
    }
    Ok(Adapters { layers })
}

/// The map from `inputs (n, k)` to `missing (n, dim)`; `target` gives the weights of rows.
fn fit_one(inputs: &Tensor, missing: &Tensor, target: &Tensor, rank: usize) -> Result<Adapter> {
    let ((n, k), dim) = (inputs.dims2()?, missing.dims2()?.1);
    let (mut x, mut r, target) = (to_vec(inputs)?, to_vec(missing)?, to_vec(target)?);
    let weights: Vec<f32> =
        target.chunks_exact(dim).map(|row| dim as f32 / row.iter().map(|v| v * v).sum::<f32>().max(1e-6)).collect();
    let (mean_x, mean_r) = (centred(&mut x, k, &weights), centred(&mut r, dim, &weights));
    // A rank of none is written as one of zeros.
    let (mut a, mut b, mut c) = (vec![0f32; rank.max(1) * k], vec![0f32; rank.max(1) * dim], mean_r);
    if rank > 0 {
        let mut g = vec![0f32; k * k];
        matmul(&mut g, Mat::new(&x, n, k).t(), Mat::new(&x, n, k), false, true);
        let mean = (0..k).map(|i| f64::from(g[i * k + i])).sum::<f64>() / k as f64;
        (0..k).for_each(|i| g[i * k + i] += RIDGE * mean.max(1e-20) as f32);
        let mut cross = vec![0f32; k * dim];
        matmul(&mut cross, Mat::new(&x, n, k).t(), Mat::new(&r, n, dim), false, true);
        let full = solve(&cholesky(g, k)?, k, cross.clone(), dim);
        let mut explained = vec![0f32; dim * dim];
        matmul(&mut explained, Mat::new(&full, k, dim).t(), Mat::new(&cross, k, dim), false, true);
        b = leading(&explained, dim, rank);
        matmul(&mut a, Mat::new(&b, rank, dim), Mat::new(&full, k, dim).t(), false, true);
        // The constant makes up for the inputs' means.
        let low: Vec<f32> = a.chunks_exact(k).map(|row| row.iter().zip(&mean_x).map(|(a, m)| a * m).sum()).collect();
        for (row, low) in b.chunks_exact(dim).zip(low) {
            c.iter_mut().zip(row).for_each(|(c, b)| *c -= low * b);
        }
    }
    let var = |values: Vec<f32>, rows: usize, cols: usize| -> Result<Var> {
        Ok(Var::from_tensor(&Tensor::from_vec(values, (rows, cols), &Device::Cpu)?)?)
    };
    balance(&mut a, &mut b, k, dim);
    let rank = rank.max(1);
    Ok(Adapter {
        a: var(a, rank, k)?,
        b: var(b, rank, dim)?,
        c: Var::from_tensor(&Tensor::from_vec(c, dim, &Device::Cpu)?)?,
    })
}

/// Take the weighted mean off each column, then scale rows by the roots of their weights. The means.
fn centred(values: &mut [f32], width: usize, weights: &[f32]) -> Vec<f32> {
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let mut mean = vec![0f64; width];
    for (row, w) in values.chunks_exact(width).zip(weights) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) * f64::from(*w));
    }
    let mean: Vec<f32> = mean.iter().map(|m| (m / total) as f32).collect();
    for (row, w) in values.chunks_exact_mut(width).zip(weights) {
        let root = w.sqrt();
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v = (*v - m) * root);
    }
    mean
}

/// Give both factors of each rank the same length, so that one rate of learning fits both.
fn balance(a: &mut [f32], b: &mut [f32], k: usize, dim: usize) {
    let length = |row: &[f32]| (row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32).sqrt();
    for (a, b) in a.chunks_exact_mut(k).zip(b.chunks_exact_mut(dim)) {
        let (la, lb) = (length(a), length(b));
        if la > 0.0 && lb > 0.0 {
            let factor = (lb / la).sqrt();
            a.iter_mut().for_each(|v| *v *= factor);
            b.iter_mut().for_each(|v| *v /= factor);
        }
    }
}
