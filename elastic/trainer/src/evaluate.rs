//! How well a part of the model predicts text.

use std::collections::BTreeMap;

use anyhow::Result;
use concertina_elastic::LayerUnits;
use serde::Serialize;

use crate::data::{Kind, Windows};
use crate::importance::batches;
use crate::net::{Adapters, Net, Pass};
use crate::ops::head::surprises;

/// Surprise over held-out text.
#[derive(Debug, Clone, Serialize)]
pub struct Surprise {
    /// Mean negative log-likelihood of a token in nats, by kind of text.
    pub by_kind: BTreeMap<&'static str, f64>,
    /// Over all tokens.
    pub mean: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
}

impl Surprise {
    /// Perplexity over all tokens.
    pub fn perplexity(&self) -> f64 {
        self.mean.exp()
    }
}

/// Surprise of a part of the model, with adapters or without, over the windows.
///
/// # Errors
/// Where candle refuses.
pub fn surprise(net: &Net, units: &[LayerUnits], adapters: Option<&Adapters>, windows: &Windows) -> Result<Surprise> {
    let pass = Pass::new(net, units, adapters)?;
    let each = windows.tokens;
    let mut by_kind: BTreeMap<Kind, (f64, usize)> = BTreeMap::new();
    let mut kinds = windows.all.iter().map(|(kind, _)| *kind);
    for batch in batches(windows) {
        let hidden = pass.hidden(&batch)?;
        let losses = surprises(&hidden, &net.head, &batch.ids, each)?;
        for (window, kind) in losses.chunks(each - 1).zip(&mut kinds) {
            let entry = by_kind.entry(kind).or_default();
            entry.0 += window.iter().map(|l| f64::from(*l)).sum::<f64>();
            entry.1 += window.len();
        }
    }
    let (sum, tokens) = by_kind.values().fold((0.0, 0), |(s, n), e| (s + e.0, n + e.1));
    Ok(Surprise {
        by_kind: by_kind.into_iter().map(|(kind, (sum, n))| (kind.name(), sum / n as f64)).collect(),
        mean: sum / tokens.max(1) as f64,
        tokens,
    })
}
