//! What the decision head computes of its targets' rows alone: once, when it is loaded.

use bytemuck::cast_slice;
use concertina_shaders::Step;

use super::EncoderFiles;
use super::layers::{Buffers, Out, Recorder};
use super::weights::Weights;
use crate::forward::Kernels;
use crate::record::Recording;
use crate::{Backend, Result};

/// A target's row, and what attention needs of it.
pub(super) struct TargetRow {
    /// `(dim)`: the row itself.
    pub row: Vec<f32>,
    /// `(dim)`: its query.
    pub query: Vec<f32>,
    /// `(2, dim)`: its key and its value.
    pub key_value: Vec<f32>,
}

/// All targets that the heads know.
pub(super) struct Targets {
    pub ttft: Vec<TargetRow>,
    pub tpot: Vec<TargetRow>,
}

impl Targets {
    pub async fn compute(
        backend: &mut Backend,
        files: &EncoderFiles,
        kernels: &Kernels,
        w: &Weights,
        b: &Buffers,
    ) -> Result<Self> {
        let (decision, spec) = (&files.heads.decision, &files.bert.spec);
        let all: Vec<f32> = decision.ttft.iter().chain(&decision.tpot).copied().collect();
        let n = all.len() / b.dim;
        let mut recorder =
            Recorder { buffers: b, kernels, heads: spec.heads, eps: spec.eps, recording: Recording::default() };
        let wide = Out { stride: Some(b.wide_stride()), ..Out::default() };
        recorder.product(&w.heads, b.hidden, b.wide_rows(), wide)?;
        recorder.product(&w.decision_q, b.hidden, b.attended, Out::default())?;
        let recording = backend.prepare(recorder.recording)?;
        backend.write(b.hidden.prefix(4 * all.len() as u64), cast_slice(&all))?;
        let step = Step { rows: n as u32, ..Step::default() };
        let keys = b.wide_rows().prefix((4 * n * b.wide_stride()) as u64);
        let keys: Vec<f32> = bytemuck::pod_collect_to_vec(&backend.run(&step, &[&recording], Some(keys)).await?);
        let queries = b.attended.prefix(4 * all.len() as u64);
        let queries: Vec<f32> = bytemuck::pod_collect_to_vec(&backend.read(queries).await?);
        let row = |i: usize| TargetRow {
            row: all[i * b.dim..(i + 1) * b.dim].to_vec(),
            query: queries[i * b.dim..(i + 1) * b.dim].to_vec(),
            // The last two parts are this head's.
            key_value: keys[((i + 1) * b.wide_stride() - 2 * b.dim)..(i + 1) * b.wide_stride()].to_vec(),
        };
        let ttft = files.heads.ttft_targets.len();
        Ok(Self { ttft: (0..ttft).map(row).collect(), tpot: (ttft..n).map(row).collect() })
    }
}
