//! The model's file with its units in another order, on disk.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use concertina_elastic::LayerOrder;
use concertina_formats::gguf::{UnitOrder, reorder};
use concertina_formats::{ByteSource, DType, Model};

/// How a file is written anew.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// Original units at each place, by layer.
    pub order: &'a [LayerOrder],
    /// Mean squares of each original neuron, by layer: errors of `down` are weighted by them where that pays. At 8 bits it
    /// does not, and then whoever has the order can write the same file.
    pub energy: &'a [Vec<f32>],
    /// Type of `down`, and of O where its blocks must be broken.
    pub down: DType,
}

/// Write the model at `source`, which is a GGUF file, to `to`.
///
/// # Errors
/// If it cannot be read or written, or the order is not of this model.
pub fn rewrite(source: &dyn ByteSource, model: &Model, to: &Path, rewrite: Rewrite<'_>) -> Result<()> {
    let weighted = !matches!(rewrite.down, DType::Q8_0 | DType::F16 | DType::F32);
    let order: Vec<UnitOrder<'_>> = rewrite
        .order
        .iter()
        .enumerate()
        .map(|(layer, order)| UnitOrder {
            groups: &order.groups,
            heads: &order.heads,
            neurons: &order.neurons,
            weights: rewrite.energy.get(layer).map(Vec::as_slice).filter(|_| weighted),
        })
        .collect();
    let temporary = to.with_extension("tmp");
    let what = || format!("cannot write {}", to.display());
    let mut out = BufWriter::new(File::create(&temporary).with_context(what)?);
    reorder(source, model, &order, rewrite.down, &mut out).with_context(what)?;
    out.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).with_context(what)?;
    std::fs::rename(&temporary, to).with_context(what)
}

#[cfg(test)]
mod tests {
    use concertina_formats::testing::TinyModel;
    use concertina_formats::{MemorySource, open_gguf};

    use super::*;
    use crate::file::open_model;
    use crate::net::{Batch, Net, Pass};
    use crate::ops::to_vec;

    /// A model with heads of whole blocks.
    fn tiny(arch: &'static str, matrices: DType) -> Vec<u8> {
        let mut tiny = TinyModel::new(arch);
        (tiny.head_dim, tiny.dim, tiny.ffn, tiny.matrices) = (32, 128, 96, matrices);
        tiny.gguf()
    }

    #[test]
    fn the_function_stays() {
        for (arch, matrices, down, bound) in [
            ("llama", DType::F32, DType::F32, 1e-4),
            ("qwen2", DType::F32, DType::F32, 1e-4),
            ("qwen2", DType::Q4_1, DType::Q8_0, 0.05),
        ] {
            let bytes = tiny(arch, matrices);
            let model = open_gguf(Box::new(MemorySource(bytes.clone()))).unwrap();
            let order = LayerOrder {
                groups: vec![1, 0],
                heads: vec![3, 2, 0, 1],
                neurons: (0..96).map(|i| (i * 5 + 7) % 96).collect(),
            };
            assert_eq!(order.problem(), None);
            let order = vec![order; 2];
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out.gguf");
            let energy = vec![vec![1.0; 96]; 2];
            let how = Rewrite { order: &order, energy: &energy, down };
            rewrite(&MemorySource(bytes), &model, &path, how).unwrap();
            let (old, new) = (Net::load(&model).unwrap(), Net::load(&open_model(&path).unwrap()).unwrap());
            let batch = Batch { ids: (0..24).map(|i| i * 7 % 90).collect(), tokens: 12 };
            let full = old.full();
            let hidden = |net: &Net| to_vec(&Pass::new(net, &full, None).unwrap().hidden(&batch).unwrap()).unwrap();
            let (a, b) = (hidden(&old), hidden(&new));
            let difference = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum::<f32>().sqrt();
            let size = a.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(difference <= bound * size, "{arch} {matrices:?}: {difference} of {size}");
            // The file's model and the one permuted in memory are cut alike.
            if matrices == DType::F32 {
                let mut units = full.clone();
                (units[0].neurons, units[1].groups) = (32, 1);
                let permuted = old.permuted(&order).unwrap();
                let cut = |net: &Net| to_vec(&Pass::new(net, &units, None).unwrap().hidden(&batch).unwrap()).unwrap();
                let (a, b) = (cut(&permuted), cut(&new));
                assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-4));
            }
        }
    }
}
