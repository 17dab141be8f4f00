//! Weights on the device: matrices in panels, cut into parts that fit a binding, and loaded in bounded pieces.

use concertina_formats::{ByteSource, DType, LayerTensors, Model, TensorInfo, dequant::dequantize_row};
use concertina_shaders::{PanelLayout, WeightFormat};

use crate::record::Slice;
use crate::{Backend, Error, Result};

/// Bytes packed on the host before they are written to the device.
const STAGE_BYTES: usize = 4 << 20;
/// Bytes written before waiting for the device to take them.
const FLUSH_BYTES: usize = 16 << 20;

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

/// Weights of one layer. `(rows, cols)` as in [`LayerTensors`]; vectors are f32.
#[allow(missing_docs)]
pub struct LayerWeights {
    pub attn_norm: Slice,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub q_bias: Option<Slice>,
    pub k_bias: Option<Slice>,
    pub v_bias: Option<Slice>,
    pub q_norm: Option<Slice>,
    pub k_norm: Option<Slice>,
    pub o: Matrix,
    pub post_attn_norm: Option<Slice>,
    pub ffn_norm: Slice,
    pub gate: Matrix,
    pub up: Matrix,
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

fn all_tensors(model: &Model) -> impl Iterator<Item = &TensorInfo> {
    let t = &model.tensors;
    let layers = t.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
    [&t.embed].into_iter().chain(layers).chain(t.output.as_ref())
}

/// The matrices that a pass multiplies with, how each is cut, and whether it is that of the logits.
pub(crate) fn products(model: &Model) -> impl Iterator<Item = (&TensorInfo, Cut, bool)> {
    let t = &model.tensors;
    let layers = t.layers.iter().flat_map(|l| {
        let rows = [&l.q, &l.k, &l.v, &l.gate, &l.up].map(|m| (m, Cut::Rows, false));
        rows.into_iter().chain([&l.o, &l.down].map(|m| (m, Cut::Cols, false)))
    });
    layers.chain([(t.output.as_ref().unwrap_or(&t.embed), Cut::Rows, true)])
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
        Ok(LayerWeights {
            attn_norm: self.vector(&t.attn_norm)?,
            q: self.matrix(&t.q, Cut::Rows).await?,
            k: self.matrix(&t.k, Cut::Rows).await?,
            v: self.matrix(&t.v, Cut::Rows).await?,
            q_bias: self.optional(&t.q_bias)?,
            k_bias: self.optional(&t.k_bias)?,
            v_bias: self.optional(&t.v_bias)?,
            q_norm: self.optional(&t.q_norm)?,
            k_norm: self.optional(&t.k_norm)?,
            o: self.matrix(&t.o, Cut::Cols).await?,
            post_attn_norm: self.optional(&t.post_attn_norm)?,
            ffn_norm: self.vector(&t.ffn_norm)?,
            gate: self.matrix(&t.gate, Cut::Rows).await?,
            up: self.matrix(&t.up, Cut::Rows).await?,
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
        let mut stored = vec![0u8; tensor.bytes as usize];
        self.read(tensor, 0, &mut stored)?;
        let mut values = vec![0f32; tensor.cols];
        dequantize_row(tensor.dtype, &stored, &mut values)?;
        let slice = self.backend.alloc(&tensor.name, (values.len() * 4) as u64)?;
        self.backend.write(slice, bytemuck::cast_slice(&values))?;
        Ok(slice)
    }

    async fn matrix(&mut self, tensor: &TensorInfo, cut: Cut) -> Result<Matrix> {
        let format = weight_format(tensor.dtype);
        let layout = match cut {
            Cut::Rows => PanelLayout::by_rows(format, tensor.rows, tensor.cols),
            Cut::Cols => PanelLayout::by_cols(format, tensor.rows, tensor.cols),
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
            self.fill(tensor, &layout, cut, first, n, slice).await?;
            let all = match cut {
                Cut::Rows => layout.rows,
                Cut::Cols => units,
            };
            let count = (n * per_unit).min(all - first * per_unit);
            parts.push(Part { slice, first: first * per_unit, count });
        }
        self.source(tensor).done_with(tensor.offset, tensor.bytes);
        self.done += tensor.bytes;
        (self.progress)(self.done, self.total);
        Ok(Matrix { layout, cut, parts })
    }

    /// Pack units `first..first + n` of a matrix into `to`, a bounded piece at a time.
    async fn fill(
        &mut self,
        tensor: &TensorInfo,
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
                    let mut stored = vec![0u8; rows.len() * stored_row as usize];
                    let start = rows.start as u64 * stored_row;
                    self.read(tensor, start, &mut stored)?;
                    self.source(tensor).done_with(tensor.offset + start, stored.len() as u64);
                    let of_block = layout.row_block * stored_row as usize;
                    for (stored, staged) in stored.chunks(of_block).zip(staged.chunks_mut(unit_bytes)) {
                        let rows = stored.len() / stored_row as usize;
                        layout.pack(stored, stored_row as usize, 0, rows, layout.panels(), staged);
                    }
                }
                Cut::Cols => {
                    let mut stored = vec![0u8; units * block];
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
