//! Halves of layers in the order in which they are best left out.
//!
//! A layer's attention or its MLP can be left out whole: the residual stream passes by. That saves more time than as many
//! weights elsewhere do, for its kernels need not be started and its keys not be read. Halves are taken out one after the
//! other, always the one whose loss moves the predictions least for what it frees, with those before it gone (attention
//! and MLP apart, as in "What Matters in Transformers?", arXiv 2406.15786). A half that looked bad is not measured again
//! until all that looked better have been: what a half is worth rises as others go.

use anyhow::Result;
use concertina_elastic::LayerUnits;
use serde::{Deserialize, Serialize};

use crate::levels::UnitWeights;

/// The part of a layer that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Half {
    /// Attention, with its keys and values.
    Attention,
    /// The gated MLP.
    Mlp,
}

/// A half that was left out, and the divergence from the whole model with it and all before it gone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The layer.
    pub layer: usize,
    /// Its half.
    pub half: Half,
    /// Nats a token.
    pub divergence: f64,
}

/// What starting a kernel costs, in weights that could be read meanwhile: on llvmpipe some 35 µs, at about 3.3 weights a
/// nanosecond. Other adapters were not measured.
const DISPATCH: usize = 100_000;
/// Kernels of attention and of an MLP.
const DISPATCHES: [usize; 2] = [4, 2];

impl Half {
    /// Take it out.
    pub fn take_from(self, units: &mut LayerUnits) {
        match self {
            Half::Attention => units.groups = 0,
            Half::Mlp => units.neurons = 0,
        }
    }

    /// What leaving it out frees, in weights.
    fn frees(self, units: LayerUnits, weights: &UnitWeights) -> usize {
        match self {
            Half::Attention => units.groups * weights.group + DISPATCHES[0] * DISPATCH,
            Half::Mlp => units.neurons * weights.neuron + DISPATCHES[1] * DISPATCH,
        }
    }
}

/// Leave out `halves` of the layers of `start`, one after the other, until it is `enough`: which hears of units, and how many were
/// left out. `measure` tells the divergence of units; `progress` hears of units and their divergence.
///
/// # Errors
/// Those of `measure`.
pub fn order(
    weights: UnitWeights,
    start: Vec<LayerUnits>,
    halves: impl IntoIterator<Item = (usize, Half)>,
    enough: impl Fn(&[LayerUnits], usize) -> bool,
    measure: &mut dyn FnMut(&[LayerUnits]) -> Result<f64>,
    progress: &mut dyn FnMut(&[LayerUnits], f64),
) -> Result<Vec<LeftOut>> {
    let mut units = start;
    // Harm a weight as it was when it was last measured, and how many were out then.
    let mut open: Vec<(f64, Option<usize>, usize, Half)> = halves.into_iter().map(|(l, h)| (0.0, None, l, h)).collect();
    let (mut out, mut divergence) = (Vec::new(), measure(&units)?);
    while !enough(&units, out.len()) && !open.is_empty() {
        let Some(best) = (0..open.len()).min_by(|a, b| open[*a].0.total_cmp(&open[*b].0)) else { break };
        let (_, measured, layer, half) = open[best];
        if measured == Some(out.len()) {
            let (harm, _, layer, half) = open.swap_remove(best);
            divergence += harm * half.frees(units[layer], &weights) as f64;
            half.take_from(&mut units[layer]);
            out.push(LeftOut { layer, half, divergence });
            progress(&units, divergence);
            continue;
        }
        let mut without = units.clone();
        half.take_from(&mut without[layer]);
        let harm = (measure(&without)? - divergence) / half.frees(units[layer], &weights) as f64;
        open[best] = (harm, Some(out.len()), layer, half);
    }
    Ok(out)
}
