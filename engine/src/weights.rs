//! Weights on the device: matrices in panels, cut into parts that fit a binding, and loaded in bounded pieces.

use std::ops::Range;

use concertina_formats::{ByteSource, DType, LayerTensors, Model, TensorInfo, dequant::dequantize_row};
use concertina_shaders::{PanelLayout, WeightFormat};

use crate::record::Slice;
use crate::{Backend, Error, Result};

/// Bytes packed on the host before they are written to the device.
const STAGE_BYTES: usize = 2 << 20;
/// Bytes written before waiting for the device to take them.
const FLUSH_BYTES: usize = 4 << 20;

/// Along which dimension a sub-model slices a matrix; decides its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// By output features: Q, K, V, gate, up, embedding, output.
    Rows,
    /// By input features: O, down.
    Cols,
}

/// A part of a matrix that fits a binding.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Where it lies.
    pub slice: Slice,
    /// First row, or first panel, of the matrix.
    pub first: usize,
    /// Rows, or panels.
    pub count: usize,
}

/// A matrix `(rows, cols)` on the device.
#[derive(Debug)]
pub struct Matrix {
    /// Shape and format.
    pub layout: PanelLayout,
    /// How it is cut.
    pub cut: Cut,
    /// Its parts in order. A residency table: today every part is resident.
    pub parts: Vec<Part>,
}

/// Rows of gate, then rows of up, that take turns in their joined matrix: what the kernels' gated MLP expects.
const GLU_RUN: usize = 2;

/// Weights of one layer. `(rows, cols)` as in [`LayerTensors`]; vectors are f32.
#[allow(missing_docs)]
pub struct LayerWeights {
    pub attn_norm: Slice,
    /// One matrix whose rows are ordered by KV group (its queries, its key, its value), or Q, K and V where their formats
    /// differ.
    pub qkv: Vec<Matrix>,
    /// Their biases, in the same order of rows.
    pub qkv_bias: Vec<Option<Slice>>,
    pub q_norm: Option<Slice>,
    pub k_norm: Option<Slice>,
    pub o: Matrix,
    pub post_attn_norm: Option<Slice>,
    pub ffn_norm: Slice,
    /// One matrix whose rows take turns, two of gate and two of up, or gate and up where their formats differ.
    pub gate_up: Vec<Matrix>,
    pub down: Matrix,
    pub post_ffn_norm: Option<Slice>,
}

/// All weights of a model.
#[allow(missing_docs)]
pub struct Weights {
    pub embed: Matrix,
    pub layers: Vec<LayerWeights>,
    pub final_norm: Slice,
    /// `None`: tied to `embed`.
    pub output: Option<Matrix>,
}

/// Told after each tensor: bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Load all weights of `model`.
pub async fn load(backend: &mut Backend, model: &Model, progress: Progress<'_>) -> Result<Weights> {
    let total = all_tensors(model).map(|t| t.bytes).sum();
    let mut loader = Loader { backend, model, progress, total, done: 0, unflushed: 0 };
    let tensors = &model.tensors;
    let embed = loader.matrix(&tensors.embed, Cut::Rows).await?;
    let mut layers = Vec::with_capacity(tensors.layers.len());
    for layer in &tensors.layers {
        layers.push(loader.layer(layer).await?);
    }
    let final_norm = loader.vector(&tensors.final_norm)?;
    let output = match &tensors.output {
        Some(output) => Some(loader.matrix(output, Cut::Rows).await?),
        None => None,
    };
    loader.backend.flush().await?;
    // Tensors do not end where pages do: what each left behind is dropped in one go.
    model.sources.iter().for_each(|source| source.done_with(0, source.len()));
    Ok(Weights { embed, layers, final_norm, output })
}

/// A vector of a model, as f32.
pub(crate) fn values(model: &Model, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let mut stored = vec![0u8; tensor.bytes as usize];
    let source = model.sources[tensor.source].as_ref();
    source.read_at(tensor.offset, &mut stored).map_err(|e| Error::Format(e.into()))?;
    let mut values = vec![0f32; tensor.cols];
    dequantize_row(tensor.dtype, &stored, &mut values)?;
    Ok(values)
}

fn all_tensors(model: &Model) -> impl Iterator<Item = &TensorInfo> {
    let t = &model.tensors;
    let layers = t.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
    [&t.embed].into_iter().chain(layers).chain(t.output.as_ref())
}

/// The matrices that a pass multiplies with, how each is cut, and whether it is that of the logits.
pub(crate) fn products(model: &Model) -> impl Iterator<Item = (WeightFormat, usize, usize, Cut, bool)> {
    let t = &model.tensors;
    let of = |t: &TensorInfo, cut, head| (weight_format(t.dtype), t.rows, t.cols, cut, head);
    let joined = move |tensors: &[&TensorInfo]| {
        let mut all: Vec<_> = tensors.iter().map(|t| of(t, Cut::Rows, false)).collect();
        if same_format(tensors) {
            all[0].1 = tensors.iter().map(|t| t.rows).sum();
            all.truncate(1);
        }
        all
    };
    let layers = t.layers.iter().flat_map(move |l| {
        let rows = joined(&[&l.q, &l.k, &l.v]).into_iter().chain(joined(&[&l.gate, &l.up]));
        rows.chain([&l.o, &l.down].map(|m| of(m, Cut::Cols, false)))
    });
    layers.chain([of(t.output.as_ref().unwrap_or(&t.embed), Cut::Rows, true)])
}

/// Format, rows, columns and groups of every layer's Q, K, V where they lie in one matrix: what a sub-model of fewer groups has a
/// prefix of.
pub(crate) fn grouped_products(model: &Model) -> impl Iterator<Item = (WeightFormat, usize, usize, usize)> {
    let groups = model.spec.n_groups;
    model.tensors.layers.iter().filter_map(move |l| {
        let rows = l.q.rows + l.k.rows + l.v.rows;
        same_format(&[&l.q, &l.k, &l.v]).then(|| (weight_format(l.q.dtype), rows, l.q.cols, groups))
    })
}

/// Whether rows of these can lie in one matrix.
fn same_format(tensors: &[&TensorInfo]) -> bool {
    tensors.iter().all(|t| (t.dtype, t.cols) == (tensors[0].dtype, tensors[0].cols))
}

pub(crate) fn weight_format(dtype: DType) -> WeightFormat {
    match dtype {
        DType::F32 => WeightFormat::F32,
        DType::F16 => WeightFormat::F16,
        DType::BF16 => WeightFormat::BF16,
        DType::Q4_0 => WeightFormat::Q4_0,
        DType::Q4_1 => WeightFormat::Q4_1,
        DType::Q5_0 => WeightFormat::Q5_0,
        DType::Q5_1 => WeightFormat::Q5_1,
        DType::Q8_0 => WeightFormat::Q8_0,
        DType::Q4_K => WeightFormat::Q4_K,
        DType::Q5_K => WeightFormat::Q5_K,
        DType::Q6_K => WeightFormat::Q6_K,
    }
}

struct Loader<'a> {
    backend: &'a mut Backend,
    model: &'a Model,
    progress: Progress<'a>,
    total: u64,
    done: u64,
    unflushed: usize,
}

impl Loader<'_> {
    async fn layer(&mut self, t: &LayerTensors) -> Result<LayerWeights> {
        let spec = &self.model.spec;
        let group = [spec.n_heads / spec.n_groups * spec.head_dim, spec.head_dim, spec.head_dim];
        let biases = [&t.q_bias, &t.k_bias, &t.v_bias];
        let qkv = self.joined(&[&t.q, &t.k, &t.v], &group).await?;
        let qkv_bias = match qkv.len() {
            1 => vec![self.joined_vector(&biases, &group, spec.n_groups)?],
            _ => biases.iter().map(|bias| self.optional(bias)).collect::<Result<_>>()?,
        };
        Ok(LayerWeights {
            attn_norm: self.vector(&t.attn_norm)?,
            qkv,
            qkv_bias,
            q_norm: self.optional(&t.q_norm)?,
            k_norm: self.optional(&t.k_norm)?,
            o: self.matrix(&t.o, Cut::Cols).await?,
            post_attn_norm: self.optional(&t.post_attn_norm)?,
            ffn_norm: self.vector(&t.ffn_norm)?,
            gate_up: self.joined(&[&t.gate, &t.up], &[GLU_RUN; 2]).await?,
            down: self.matrix(&t.down, Cut::Cols).await?,
            post_ffn_norm: self.optional(&t.post_ffn_norm)?,
        })
    }

    fn source(&self, tensor: &TensorInfo) -> &dyn ByteSource {
        self.model.sources[tensor.source].as_ref()
    }

    fn read(&self, tensor: &TensorInfo, at: u64, out: &mut [u8]) -> Result<()> {
        self.source(tensor).read_at(tensor.offset + at, out).map_err(|e| Error::Format(e.into()))
    }

    fn optional(&mut self, tensor: &Option<TensorInfo>) -> Result<Option<Slice>> {
        tensor.as_ref().map(|t| self.vector(t)).transpose()
    }

    /// A vector, as f32.
    fn vector(&mut self, tensor: &TensorInfo) -> Result<Slice> {
        let values = values(self.model, tensor)?;
        self.upload(&tensor.name, &values)
    }

    fn upload(&mut self, label: &str, values: &[f32]) -> Result<Slice> {
        let slice = self.backend.alloc(label, (values.len() * 4) as u64)?;
        self.backend.write(slice, bytemuck::cast_slice(values))?;
        Ok(slice)
    }

    /// Vectors that take turns, `runs[i]` elements of vector `i` each time, `times` times; zeros for one that is absent.
    fn joined_vector(
        &mut self,
        vectors: &[&Option<TensorInfo>],
        runs: &[usize],
        times: usize,
    ) -> Result<Option<Slice>> {
        let Some(name) = vectors.iter().find_map(|t| t.as_ref().map(|t| t.name.clone())) else { return Ok(None) };
        let values = vectors
            .iter()
            .zip(runs)
            .map(|(t, run)| t.as_ref().map_or_else(|| Ok(vec![0f32; run * times]), |t| values(self.model, t)))
            .collect::<Result<Vec<_>>>()?;
        let mut all = Vec::new();
        for turn in 0..times {
            for (values, run) in values.iter().zip(runs) {
                all.extend_from_slice(&values[turn * run..(turn + 1) * run]);
            }
        }
        self.upload(&name, &all).map(Some)
    }

    /// Matrices whose rows take turns, as one; each on its own where their formats differ.
    async fn joined(&mut self, tensors: &[&TensorInfo], runs: &[usize]) -> Result<Vec<Matrix>> {
        if same_format(tensors) {
            return Ok(vec![self.rows(&Turns { tensors, runs }, Cut::Rows).await?]);
        }
        let mut matrices = Vec::new();
        for tensor in tensors {
            matrices.push(self.matrix(tensor, Cut::Rows).await?);
        }
        Ok(matrices)
    }

    async fn matrix(&mut self, tensor: &TensorInfo, cut: Cut) -> Result<Matrix> {
        self.rows(&Turns { tensors: &[tensor], runs: &[tensor.rows] }, cut).await
    }

    /// The matrix of these rows.
    async fn rows(&mut self, turns: &Turns<'_>, cut: Cut) -> Result<Matrix> {
        let tensor = turns.tensors[0];
        let rows = turns.tensors.iter().map(|t| t.rows).sum();
        let format = weight_format(tensor.dtype);
        let layout = match cut {
            Cut::Rows => PanelLayout::by_rows(format, rows, tensor.cols),
            Cut::Cols => PanelLayout::by_cols(format, rows, tensor.cols),
        };
        let Some(layout) = layout else {
            return Err(Error::Unsupported(format!(
                "tensor '{}' has {} columns, which is no multiple of {}",
                tensor.name,
                tensor.cols,
                format.panel_cols()
            )));
        };
        // A part holds whole row blocks, or whole panels of the only row block.
        let (unit_bytes, units, per_unit) = match cut {
            Cut::Rows => (layout.row_block_bytes(), layout.row_blocks(), layout.row_block),
            Cut::Cols => (layout.region_bytes(), layout.panels(), 1),
        };
        let limits = self.backend.buffer_limits();
        let fit = (limits.binding.min(limits.buffer) / unit_bytes as u64) as usize;
        if fit == 0 {
            return Err(Error::Unsupported(format!(
                "tensor '{}': {unit_bytes} bytes must be bound at once, the device allows {}",
                tensor.name, limits.binding
            )));
        }
        let mut parts = Vec::new();
        for first in (0..units).step_by(fit) {
            let n = fit.min(units - first);
            let slice = self.backend.alloc(&tensor.name, (n * unit_bytes) as u64)?;
            self.fill(turns, &layout, cut, first, n, slice).await?;
            let all = match cut {
                Cut::Rows => layout.rows,
                Cut::Cols => units,
            };
            let count = (n * per_unit).min(all - first * per_unit);
            parts.push(Part { slice, first: first * per_unit, count });
        }
        for tensor in turns.tensors {
            self.source(tensor).done_with(tensor.offset, tensor.bytes);
            self.done += tensor.bytes;
        }
        (self.progress)(self.done, self.total);
        Ok(Matrix { layout, cut, parts })
    }

    /// Pack units `first..first + n` of a matrix into `to`, a bounded piece at a time.
    async fn fill(
        &mut self,
        turns: &Turns<'_>,
        layout: &PanelLayout,
        cut: Cut,
        first: usize,
        n: usize,
        to: Slice,
    ) -> Result<()> {
        let unit_bytes = if cut == Cut::Rows { layout.row_block_bytes() } else { layout.region_bytes() };
        let per_stage = (STAGE_BYTES / unit_bytes).max(1);
        let stored_row = layout.stored_row_bytes() as u64;
        let block = layout.format.block_bytes();
        let mut at = to.offset;
        for begin in (first..first + n).step_by(per_stage) {
            let units = per_stage.min(first + n - begin);
            let mut staged = vec![0u8; units * unit_bytes];
            match cut {
                Cut::Rows => {
                    let rows = begin * layout.row_block..((begin + units) * layout.row_block).min(layout.rows);
                    let pieces = turns.pieces(rows.clone());
                    let mut stored = Vec::new();
                    for (tensor, piece) in turns.tensors.iter().zip(&pieces) {
                        let mut bytes = vec![0u8; piece.len() * stored_row as usize];
                        let start = piece.start as u64 * stored_row;
                        self.read(tensor, start, &mut bytes)?;
                        self.source(tensor).done_with(tensor.offset + start, bytes.len() as u64);
                        stored.push(bytes);
                    }
                    for (i, row) in rows.enumerate() {
                        let (tensor, from) = turns.source(row);
                        let at = (from - pieces[tensor].start) * stored_row as usize;
                        let bytes = &stored[tensor][at..at + stored_row as usize];
                        let block = &mut staged[i / layout.row_block * unit_bytes..][..unit_bytes];
                        layout.pack(bytes, bytes.len(), i % layout.row_block, 1, layout.panels(), block);
                    }
                }
                Cut::Cols => {
                    let mut stored = vec![0u8; units * block];
                    let tensor = turns.tensors[0];
                    for row in 0..layout.rows {
                        self.read(tensor, row as u64 * stored_row + (begin * block) as u64, &mut stored)?;
                        layout.pack(&stored, stored.len(), row, 1, units, &mut staged);
                    }
                }
            }
            self.backend.write(Slice { offset: at, len: staged.len() as u64, ..to }, &staged)?;
            at += staged.len() as u64;
            self.unflushed += staged.len();
            if self.unflushed >= FLUSH_BYTES {
                self.backend.flush().await?;
                self.unflushed = 0;
            }
        }
        Ok(())
    }
}

/// Rows of a matrix that come from several tensors in turns: `runs[i]` rows of tensor `i`, and so on round.
struct Turns<'a> {
    tensors: &'a [&'a TensorInfo],
    runs: &'a [usize],
}

impl Turns<'_> {
    /// Tensor and row that row `row` comes from.
    fn source(&self, row: usize) -> (usize, usize) {
        let all: usize = self.runs.iter().sum();
        let (turn, mut place) = (row / all, row % all);
        for (i, run) in self.runs.iter().enumerate() {
            if place < *run {
                return (i, turn * run + place);
            }
            place -= run;
        }
        unreachable!("a place within the turn")
    }

    /// The rows of each tensor that rows `rows` come from.
    fn pieces(&self, rows: Range<usize>) -> Vec<Range<usize>> {
        let all: usize = self.runs.iter().sum();
        let mut before = 0;
        let mut pieces = Vec::new();
        for run in self.runs {
            let count = |row: usize| row / all * run + (row % all).saturating_sub(before).min(*run);
            pieces.push(count(rows.start)..count(rows.end));
            before += run;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_from_the_piece_of_its_tensor() {
        let turns = Turns { tensors: &[], runs: &[3, 1, 2] };
        for (start, end) in [(0, 6), (2, 5), (5, 29), (7, 7), (13, 24)] {
            let pieces = turns.pieces(start..end);
            let mut seen: Vec<usize> = pieces.iter().map(|piece| piece.start).collect();
            for row in start..end {
                let (tensor, from) = turns.source(row);
                assert_eq!(from, seen[tensor], "row {row} of {start}..{end}");
                seen[tensor] += 1;
            }
            assert_eq!(seen, pieces.iter().map(|piece| piece.end).collect::<Vec<_>>());
        }
    }
}
