//! Heads as bytes.

use safetensors::tensor::Dtype;

use super::layer::{BLOCK, BLOCK_BYTES, matrices};
use super::{EncoderId, FILE, Head, Heads, Layer, Linear, VERSION};
use crate::Error;
use crate::container::{Stored, to_bytes};

impl Heads {
    /// The bytes of the file.
    ///
    /// # Errors
    /// If it is one that reading would refuse.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let head = Head {
            version: VERSION,
            encoder: self.encoder.clone(),
            model_blake3: self.model_blake3.clone(),
            ttft_targets: self.ttft_targets.clone(),
            tpot_targets: self.tpot_targets.clone(),
            prompt_levels: self.prompt_levels.clone(),
            model_levels: self.model_levels.clone(),
            report: self.report.clone(),
        };
        let (id, decision) = (&self.encoder, &self.decision);
        let mut tensors = Vec::new();
        add_layer(&mut tensors, "score", id, &self.score.layer);
        add_layer(&mut tensors, "decision", id, &decision.layer);
        for (name, linear) in
            [("score.out", &self.score.out), ("decision.prompt", &decision.prompt), ("decision.model", &decision.model)]
        {
            let Linear { weight, bias } = linear;
            tensors.push(floats(format!("{name}.weight"), vec![bias.len(), id.dim], weight));
            tensors.push(floats(format!("{name}.bias"), vec![bias.len()], bias));
        }
        for (name, rows) in [("decision.ttft", &decision.ttft), ("decision.tpot", &decision.tpot)] {
            tensors.push(floats(name.into(), vec![rows.len() / id.dim, id.dim], rows));
        }
        to_bytes(FILE, &head, &tensors)
    }
}

fn floats(name: String, shape: Vec<usize>, values: &[f32]) -> Stored {
    (name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn add_layer(tensors: &mut Vec<Stored>, head: &str, id: &EncoderId, layer: &Layer) {
    for ((name, rows, cols), dense) in matrices(id).into_iter().zip(layer.dense()) {
        let name = format!("{head}.layer.{name}");
        let shape = vec![rows, cols / BLOCK * BLOCK_BYTES];
        tensors.push((format!("{name}.weight"), Dtype::U8, shape, dense.weight.blocks.clone()));
        tensors.push(floats(format!("{name}.bias"), vec![rows], &dense.bias));
    }
    for (name, norm) in layer.norms() {
        let name = format!("{head}.layer.{name}");
        tensors.push(floats(format!("{name}.weight"), vec![id.dim], &norm.weight));
        tensors.push(floats(format!("{name}.bias"), vec![id.dim], &norm.bias));
    }
}
