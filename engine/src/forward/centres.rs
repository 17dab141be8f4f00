//! The centres of keys. Where a model adds biases to its keys (Qwen2.5), a few channels of theirs are many times larger than
//! the rest, and steps wide enough for them lose everything else: 4-bit keys of Qwen2.5-Coder-0.5B took its perplexity from 83
//! to 138. Within a chunk the embedded bias of slow channels hardly changes, so its mean over the chunk's positions is taken
//! off before quantising and put back as one product a chunk and query. It follows from the bias and the chunk's number and
//! is not stored with the chunk.

use concertina_formats::{Model, ModelSpec, RopeStyle};
use concertina_kv::CHUNK_TOKENS;
use concertina_shaders::twins::hadamard;
use half::f16;

use super::{Buffers, Capacity};
use crate::record::Slice;
use crate::{Backend, Result, weights};

/// Whether a model's keys have centres: biases, and no norm after them.
pub fn wanted(model: &Model) -> bool {
    model.tensors.layers.iter().all(|layer| layer.k_bias.is_some() && layer.k_norm.is_none())
}

/// Bytes of a layer's table: (chunks, groups, head_dim) f16.
pub fn bytes(spec: &ModelSpec, chunks: usize) -> u64 {
    (chunks * spec.n_groups * spec.head_dim * 2) as u64
}

/// Write the table of every layer to the end of its arena.
pub async fn load(
    backend: &mut Backend,
    model: &Model,
    capacity: &Capacity,
    buffers: &Buffers,
    inv_freq: &[Vec<f64>],
    rotate: usize,
) -> Result<()> {
    if buffers.centres == 0 {
        return Ok(());
    }
    let spec = &model.spec;
    let layers = model.tensors.layers.iter().zip(&spec.layers).zip(&buffers.pages);
    for ((tensors, layer), pages) in layers {
        let Some(bias) = &tensors.k_bias else { continue };
        let bias = weights::values(model, bias)?;
        let mut table: Vec<f16> = Vec::with_capacity(capacity.chunks() * bias.len());
        for chunk in 0..capacity.chunks() {
            for bias in bias.chunks(spec.head_dim) {
                let mut centre = centre(bias, chunk, &inv_freq[layer.rope], spec.rope_style);
                hadamard(&mut centre, rotate);
                table.extend(centre.into_iter().map(f16::from_f32));
            }
        }
        let offset = pages.offset + 16 * u64::from(buffers.centres);
        let at = Slice { offset, len: bytes(spec, capacity.chunks()), ..*pages };
        backend.write(at, bytemuck::cast_slice(&table))?;
    }
    backend.flush().await
}

/// Mean of the embedded bias over a chunk's positions.
fn centre(bias: &[f32], chunk: usize, inv_freq: &[f64], style: RopeStyle) -> Vec<f32> {
    let mut centre = vec![0f32; bias.len()];
    for (i, f) in inv_freq.iter().enumerate() {
        let (a, b) = match style {
            RopeStyle::Halves => (i, i + bias.len() / 2),
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
        };
        let angles = (0..CHUNK_TOKENS).map(|t| f * (chunk * CHUNK_TOKENS + t) as f64);
        let (cos, sin) = angles.fold((0.0, 0.0), |(c, s), angle| (c + angle.cos(), s + angle.sin()));
        let (cos, sin) = (cos / CHUNK_TOKENS as f64, sin / CHUNK_TOKENS as f64);
        let (x, y) = (f64::from(bias[a]), f64::from(bias[b]));
        (centre[a], centre[b]) = ((x * cos - y * sin) as f32, (y * cos + x * sin) as f32);
    }
    centre
}
