//! Matrix products as recordings have them.

use concertina_formats::Activation;
use concertina_shaders::{AdapterParams, MatmulParams};

use super::Kernels;
use crate::adapters::AdapterWeights;
use crate::record::{Recording, Slice, Work};
use crate::tune::{Family, Shape};
use crate::weights::{Cut, Matrix};
use crate::{Error, Result};

/// Both views of a part of the weights that kernels bind.
pub fn twice(slice: Slice) -> [Slice; 2] {
    [slice, slice]
}

/// A matrix product to record.
pub struct Product<'a> {
    pub w: &'a Matrix,
    pub x: Slice,
    pub y: Slice,
    pub bias: Option<Slice>,
    /// Rows of W kept.
    pub n: usize,
    /// Input features kept.
    pub k: usize,
    /// Where in a row of y the output features lie.
    pub to: Place,
    /// Gains of an RMSNorm of x.
    pub norm: Option<Slice>,
    /// The gated MLP on the way out.
    pub glu: Option<Activation>,
    /// What stands beside W: it adds to y what it makes of x.
    pub adapter: Option<AdapterWeights>,
    pub accumulate: bool,
    pub out_rows: bool,
}

/// Where the output features of a product lie in a row.
#[derive(Clone, Copy)]
pub struct Place {
    pub offset: usize,
    pub stride: usize,
    /// Features side by side, and from one run to the next; 0: all side by side.
    pub run: usize,
    pub step: usize,
}

impl<'a> Product<'a> {
    /// All of `w` times `x` into `y`.
    pub fn new(w: &'a Matrix, x: Slice, y: Slice) -> Self {
        let to = Place { offset: 0, stride: w.layout.rows, run: 0, step: 0 };
        let (n, k) = (w.layout.rows, w.layout.cols);
        let (bias, norm, glu, adapter) = (None, None, None, None);
        Self { w, x, y, bias, n, k, to, norm, glu, adapter, accumulate: false, out_rows: false }
    }
}

fn glu_code(activation: Activation) -> u32 {
    match activation {
        Activation::Silu => 1,
        Activation::GeluTanh => 2,
    }
}

/// What products of one recording share.
pub struct Products<'a> {
    pub kernels: &'a Kernels,
    /// Of the batch.
    pub family: Family,
    /// Stands in for what a kernel does not read.
    pub none: Slice,
    /// Of RMSNorms on the way in: what is added to the mean of squares, and to each gain.
    pub norm: (f32, f32),
}

impl Products<'_> {
    /// y = x Wᵀ, part by part, and what an adapter adds: in the same dispatch where its kernel can, else in one more.
    pub fn record(&self, recording: &mut Recording, p: Product<'_>) -> Result<()> {
        let layout = &p.w.layout;
        let shape = Shape { format: layout.format, n: p.n, k: p.k, cut: p.w.cut };
        let mut variant = self.kernels.matrix(shape, self.family);
        let cols = layout.format.panel_cols();
        if let Some(adapter) = p.adapter.filter(|a| a.outputs != p.n || a.inputs != p.k) {
            let AdapterWeights { inputs, outputs, .. } = adapter;
            return Err(Error::Invalid(format!("an adapter of {inputs} to {outputs} beside {} to {}", p.k, p.n)));
        }
        let whole = p.adapter.filter(|_| p.w.parts.len() == 1);
        let inside = whole.and_then(|adapter| Some((adapter, self.kernels.adapted(variant)?)));
        if let Some((_, adapted)) = inside {
            variant = adapted;
        }
        if !p.k.is_multiple_of(cols) {
            return Err(Error::Invalid(format!("{} input features do not fill panels of {cols}", p.k)));
        }
        let panels = p.k / cols;
        for part in &p.w.parts {
            // What is kept of this part: a prefix of the whole is a prefix of every part.
            let (n, panels, x_offset, first_row, panels_stored) = match p.w.cut {
                Cut::Rows => (p.n.saturating_sub(part.first).min(part.count), panels, 0, part.first, layout.panels()),
                Cut::Cols => (p.n, panels.saturating_sub(part.first).min(part.count), part.first * cols, 0, part.count),
            };
            if n == 0 || panels == 0 {
                break;
            }
            let first = p.w.cut == Cut::Rows || part.first == 0;
            let params = MatmulParams {
                n: n as u32,
                panels: panels as u32,
                panels_stored: panels_stored as u32,
                row_block: layout.row_block as u32,
                x_offset: x_offset as u32,
                x_stride: layout.cols as u32,
                first: first_row as u32,
                y_offset: p.to.offset as u32,
                y_stride: p.to.stride as u32,
                y_run: p.to.run as u32,
                y_step: p.to.step as u32,
                bias: u32::from(p.bias.is_some() && first),
                accumulate: u32::from(p.accumulate || !first),
                out_rows: u32::from(p.out_rows),
                norm: u32::from(p.norm.is_some()),
                glu: p.glu.map_or(0, glu_code),
                eps: self.norm.0,
                gain_offset: self.norm.1,
                ..Default::default()
            };
            let [w, ws] = twice(part.slice);
            let rows = if p.out_rows { Work::OutRows } else { Work::Rows };
            let mut args = vec![p.x, w, ws, p.bias.unwrap_or(self.none), p.norm.unwrap_or(self.none), p.y];
            args.extend(inside.iter().flat_map(|(adapter, _)| [adapter.codes, adapter.scales]));
            recording.push(variant, &params, &args, [Work::Fixed(n as u32), rows]);
        }
        if let Some(adapter) = p.adapter.filter(|_| inside.is_none()) {
            self.adapter(recording, &p, adapter);
        }
        Ok(())
    }

    /// y += Bᵀ(A x) + c.
    fn adapter(&self, recording: &mut Recording, p: &Product<'_>, adapter: AdapterWeights) {
        let params = AdapterParams {
            inputs: adapter.inputs as u32,
            outputs: adapter.outputs as u32,
            x_stride: p.w.layout.cols as u32,
            y_stride: p.to.stride as u32,
            few: u32::from(self.family == Family::Narrow && self.kernels.narrow_rows() <= 2),
            ..Default::default()
        };
        let args = [p.x, adapter.codes, adapter.scales, p.y];
        recording.push(self.kernels.best("adapter"), &params, &args, [Work::Fixed(1), Work::Rows]);
    }
}
