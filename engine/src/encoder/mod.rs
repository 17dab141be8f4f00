//! The encoder that reads a prompt once, before the model does (ELMS / ElastiLM, arXiv 2409.09071): which words matter, and
//! which levels of prompt and model suit a latency target.
//!
//! Its bottom is the first layers of a BERT model, run by the same kernels as the language model and on the same device. On
//! the bottom's rows stand two heads, each one more layer ([`concertina_elastic::heads`]): the score head reads every row,
//! the decision head a row of its own, the target's, which attends to all others.
//!
//! All of it is one recording and one submission for each window of the text; what is read back are logits.

mod embed;
mod files;
mod layers;
mod read;
mod targets;
mod weights;

pub(crate) use files::EncoderFiles;
pub use files::Target;
pub(crate) use read::read;
pub use read::{Decision, Encoded};

use bytemuck::cast_slice;
use concertina_kv::Widths;
use concertina_shaders::Step;

use self::layers::{Buffers, ROWS_BEFORE};
use self::targets::Targets;
use crate::forward::Kernels;
use crate::record::Slice;
use crate::tune::Table;
use crate::{Backend, Error, Prepared, Result};

/// An encoder on a device. It is made before it is loaded, so that what a load allocated is known also where the load fails or
/// is dropped.
#[derive(Default)]
pub(crate) struct Encoder {
    /// Everything that it allocated.
    held: Vec<Slice>,
    loaded: Option<Loaded>,
}

/// What a window runs with.
pub(crate) struct Loaded {
    buffers: Buffers,
    recording: Prepared,
    targets: Targets,
}

/// What the heads make of one window.
pub(crate) struct Logits {
    /// Of keeping each piece, `[CLS]` and `[SEP]` included.
    pub score: Vec<f32>,
    /// Of each prompt level, then of each level of the model.
    pub levels: Vec<f32>,
}

impl Encoder {
    /// Put it on a device, unless it is there. `exact`: with kernels that round nothing but sums.
    ///
    /// # Errors
    /// If it does not fit there; then nothing of it is left.
    pub async fn load(&mut self, backend: &mut Backend, files: &EncoderFiles, exact: bool) -> Result<&Loaded> {
        if self.loaded.is_none() {
            self.release(backend);
            match self.build(backend, files, exact).await {
                Ok(loaded) => self.loaded = Some(loaded),
                Err(e) => {
                    self.release(backend);
                    return Err(e);
                }
            }
        }
        self.loaded.as_ref().ok_or_else(|| Error::Gpu("the encoder is not loaded".into()))
    }

    async fn build(&mut self, backend: &mut Backend, files: &EncoderFiles, exact: bool) -> Result<Loaded> {
        let kernels = Kernels::for_backend(backend, exact, Widths::default(), Table::default());
        let weights = weights::load(backend, files, &mut self.held).await?;
        let buffers = Buffers::alloc(backend, files, &mut self.held)?;
        let targets = Targets::compute(backend, files, &kernels, &weights, &buffers).await?;
        let recording = backend.prepare(layers::record(files, &kernels, &weights, &buffers)?)?;
        Ok(Loaded { buffers, recording, targets })
    }

    /// Free what it holds on the device.
    pub fn release(&mut self, backend: &mut Backend) {
        self.loaded = None;
        self.held.drain(..).for_each(|slice| backend.release(slice));
    }
}

impl Loaded {
    /// Run a window: `rows`, `(pieces, dim)`, are the embeddings of its pieces; `ttft` and `tpot` number the targets.
    pub async fn run(&self, backend: &mut Backend, rows: &[f32], ttft: usize, tpot: usize) -> Result<Logits> {
        let b = &self.buffers;
        let pieces = rows.len() / b.dim;
        backend.write(b.hidden.prefix(4 * rows.len() as u64), cast_slice(rows))?;
        let targets = [&self.targets.ttft[ttft], &self.targets.tpot[tpot]];
        backend.stage(b.row, cast_slice(&targets[0].row));
        backend.stage(b.query, cast_slice(&targets[0].query));
        for (i, target) in targets.into_iter().enumerate().take(ROWS_BEFORE) {
            backend.stage(b.keys_before(i), cast_slice(&target.key_value));
        }
        let step = Step { rows: pieces as u32, out_rows: 1, ..Step::default() };
        let out = Slice { len: b.score_at + 4 * pieces as u64, ..b.out };
        let bytes = backend.run(&step, &[&self.recording], Some(out)).await?;
        let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let score = floats[b.score_at as usize / 4..].to_vec();
        Ok(Logits { score, levels: floats[..b.levels].to_vec() })
    }
}
