//! Recovery adapters on the device: what a level's cut matrices get back at run time (`concertina_elastic::package`).

use concertina_elastic::package::{Adapter, LevelAdapters, Site};

use crate::record::Slice;
use crate::{Backend, Error, Result};

/// Ranks that the kernel takes; fewer are padded with zeros.
const RANKS: usize = 8;

/// An adapter as the kernel reads it.
#[derive(Debug, Clone, Copy)]
pub struct AdapterWeights {
    /// Signed bytes: A `(inputs / 4, ranks, 4)`, B `(outputs / 4, ranks, 4)`, c `(outputs)`.
    pub codes: Slice,
    /// f32: of each rank, A's times B's; then c's.
    pub scales: Slice,
    /// Inputs of A.
    pub inputs: usize,
    /// Outputs of B.
    pub outputs: usize,
}

/// The adapters of a level: by layer, beside O and beside `down`.
#[derive(Debug, Clone, Default)]
pub struct LevelWeights(Vec<[Option<AdapterWeights>; 2]>);

impl LevelWeights {
    /// Bring a level's adapters onto the device.
    ///
    /// # Errors
    /// If their rank is above what the kernel takes, or their sizes are odd; as allocation and writing.
    pub fn upload(backend: &mut Backend, level: &LevelAdapters, layers: usize) -> Result<Self> {
        let mut all = Self(vec![[None; 2]; layers]);
        match all.fill(backend, level, layers) {
            Ok(()) => Ok(all),
            Err(e) => {
                all.release(backend);
                Err(e)
            }
        }
    }

    fn fill(&mut self, backend: &mut Backend, level: &LevelAdapters, layers: usize) -> Result<()> {
        for (layer, site, adapter) in &level.sites {
            let label = format!("adapter of level {} beside {site:?} of layer {layer}", level.level);
            let refused = |why: String| Error::Unsupported(format!("{label}: {why}"));
            let (rank, inputs, outputs) = (adapter.rank, adapter.inputs, adapter.outputs);
            if rank > RANKS {
                return Err(refused(format!("its rank is {rank}, at most {RANKS} is supported")));
            }
            if !inputs.is_multiple_of(4) || !outputs.is_multiple_of(4) {
                return Err(refused(format!("{inputs} inputs and {outputs} outputs are not multiples of 4")));
            }
            let place = self.0.get_mut(*layer).ok_or_else(|| refused(format!("the model has {layers} layers")))?;
            let (codes, scales) = (codes(adapter), scales(adapter));
            let codes_at = backend.alloc(&label, codes.len() as u64)?;
            let scales_at = match backend.alloc(&label, 4 * scales.len() as u64) {
                Ok(at) => at,
                Err(e) => {
                    backend.release(codes_at);
                    return Err(e);
                }
            };
            place[usize::from(*site == Site::Down)] =
                Some(AdapterWeights { codes: codes_at, scales: scales_at, inputs, outputs });
            backend.write(codes_at, &codes)?;
            backend.write(scales_at, bytemuck::cast_slice(&scales))?;
        }
        Ok(())
    }

    /// Free them. No recording may read them any more.
    pub fn release(self, backend: &mut Backend) {
        for weights in self.0.into_iter().flatten().flatten() {
            backend.release(weights.codes);
            backend.release(weights.scales);
        }
    }

    /// The adapter beside a matrix.
    pub fn get(&self, layer: usize, site: Site) -> Option<AdapterWeights> {
        self.0.get(layer)?[usize::from(site == Site::Down)]
    }
}

/// Four features of each rank together, so that a load of four words holds four ranks.
fn codes(adapter: &Adapter) -> Vec<u8> {
    let mut out = Vec::new();
    for (values, width) in [(&adapter.a, adapter.inputs), (&adapter.b, adapter.outputs)] {
        for feature in (0..width).step_by(4) {
            for rank in 0..RANKS {
                let four = |i| if rank < adapter.rank { values[rank * width + feature + i] as u8 } else { 0 };
                out.extend((0..4).map(four));
            }
        }
    }
    out.extend(adapter.c.iter().map(|code| *code as u8));
    out.resize(out.len().next_multiple_of(16), 0);
    out
}

fn scales(adapter: &Adapter) -> Vec<f32> {
    let mut out: Vec<f32> = adapter.a_scales.iter().zip(&adapter.b_scales).map(|(a, b)| a * b).collect();
    out.resize(RANKS, 0.0);
    out.extend([adapter.c_scale, 0.0, 0.0, 0.0]);
    out
}
