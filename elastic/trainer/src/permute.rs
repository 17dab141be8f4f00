//! Units in another order: of the model in memory, and of the model's file.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use concertina_elastic::LayerOrder;

use crate::net::{LayerNet, Net};

impl Net {
    /// The same function with each layer's units in this order.
    ///
    /// # Errors
    /// If it is no order of this model's units.
    pub fn permuted(&self, order: &[LayerOrder]) -> Result<Net> {
        ensure!(order.len() == self.layers.len(), "an order of {} layers, not {}", order.len(), self.layers.len());
        let mut net = self.clone();
        for ((layer, order), l) in net.layers.iter_mut().zip(order).zip(0..) {
            if let Some(problem) = order.problem() {
                anyhow::bail!("the order of layer {l}: {problem}");
            }
            let spec = &self.spec;
            let sizes = (order.groups.len(), order.heads.len(), order.neurons.len());
            ensure!(sizes == (spec.n_groups, spec.n_heads, spec.ffn), "the order of layer {l} is of {sizes:?} units");
            permute_layer(layer, order, spec.head_dim)?;
        }
        Ok(net)
    }
}

fn permute_layer(layer: &mut LayerNet, order: &LayerOrder, head_dim: usize) -> Result<()> {
    let heads = blocks(&order.heads, head_dim);
    let groups = blocks(&order.groups, head_dim);
    let neurons = blocks(&order.neurons, 1);
    let pick = |t: &mut Tensor, index: &[u32], dim: usize| -> Result<()> {
        let index = Tensor::from_slice(index, index.len(), &Device::Cpu)?;
        *t = t.index_select(&index, dim)?;
        Ok(())
    };
    pick(&mut layer.q, &heads, 0)?;
    pick(&mut layer.o, &heads, 1)?;
    pick(&mut layer.k, &groups, 0)?;
    pick(&mut layer.v, &groups, 0)?;
    for (bias, index) in [(&mut layer.q_bias, &heads), (&mut layer.k_bias, &groups), (&mut layer.v_bias, &groups)] {
        if let Some(bias) = bias {
            pick(bias, index, 0)?;
        }
    }
    pick(&mut layer.gate, &neurons, 0)?;
    pick(&mut layer.up, &neurons, 0)?;
    pick(&mut layer.down, &neurons, 1)?;
    Ok(())
}

/// Old rows at each new place, where a unit is `each` rows.
fn blocks(order: &[u32], each: usize) -> Vec<u32> {
    order.iter().flat_map(|unit| (0..each as u32).map(move |i| unit * each as u32 + i)).collect()
}
