//! Adapters between training and the package.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use concertina_elastic::package::{Adapter as Stored, LevelAdapters, Site};

use crate::net::{Adapter, Adapters, LayerAdapters};
use crate::ops::to_vec;

/// As the package stores them, as bytes.
///
/// # Errors
/// Where candle refuses.
pub fn stored(level: u32, adapters: &Adapters) -> Result<LevelAdapters> {
    let (mut sites, mut rank) = (Vec::new(), 1);
    for (l, layer) in adapters.layers.iter().enumerate() {
        for (site, adapter) in [(Site::O, &layer.o), (Site::Down, &layer.down)] {
            let Some(adapter) = adapter else { continue };
            rank = adapter.a.dims2()?.0;
            let [a, b, c] = adapter.vars().map(|var| to_vec(var.as_tensor()));
            sites.push((l, site, Stored::quantise(rank, &a?, &b?, &c?)));
        }
    }
    Ok(LevelAdapters { level, rank, sites })
}

/// As they act when they are read: to measure what runs, not what was trained.
///
/// # Errors
/// Where candle refuses.
pub fn restored(stored: &LevelAdapters, layers: usize) -> Result<Adapters> {
    let mut all = vec![LayerAdapters::default(); layers];
    let var = |values: Vec<f32>, rows: usize, cols: usize| -> Result<Var> {
        Ok(Var::from_tensor(&Tensor::from_vec(values, (rows, cols), &Device::Cpu)?)?)
    };
    for (l, site, adapter) in &stored.sites {
        let Some(layer) = all.get_mut(*l) else { continue };
        let restored = Adapter {
            a: var(adapter.a_values(), adapter.rank, adapter.inputs)?,
            b: var(adapter.b_values(), adapter.rank, adapter.outputs)?,
            c: Var::from_tensor(&Tensor::from_vec(adapter.c_values(), adapter.outputs, &Device::Cpu)?)?,
        };
        match site {
            Site::O => layer.o = Some(restored),
            Site::Down => layer.down = Some(restored),
        }
    }
    Ok(Adapters { layers: all })
}
