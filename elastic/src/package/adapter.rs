//! Recovery adapters: what gives back some of what a cut took.

use serde::{Deserialize, Serialize};

/// The matrix that an adapter stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// Attention's output matrix: its inputs are the kept heads' outputs.
    O,
    /// The MLP's output matrix: its inputs are the kept neurons.
    Down,
}

/// `y += Bᵀ·(A·x) + c`, where `x` is the kept input of the matrix and `y` its output. Numbers are signed bytes with scales:
/// `A[r][i] = a[r·inputs + i]·a_scales[r]`, `B[r][o] = b[r·outputs + o]·b_scales[r]`, `c[o] = c[o]·c_scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Rank.
    pub rank: usize,
    /// Kept inputs of the matrix.
    pub inputs: usize,
    /// Outputs of the matrix: the width of the residual stream.
    pub outputs: usize,
    /// `(rank, inputs)`.
    pub a: Vec<i8>,
    /// A scale for each row of `a`.
    pub a_scales: Vec<f32>,
    /// `(rank, outputs)`.
    pub b: Vec<i8>,
    /// A scale for each row of `b`.
    pub b_scales: Vec<f32>,
    /// `(outputs)`.
    pub c: Vec<i8>,
    /// The scale of `c`.
    pub c_scale: f32,
}

/// The adapters of a level, by rising layer, `o` before `down`.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelAdapters {
    /// The level.
    pub level: u32,
    /// Rank of all of them.
    pub rank: usize,
    /// Layer, matrix, adapter.
    pub sites: Vec<(usize, Site, Adapter)>,
}

impl LevelAdapters {
    /// The adapter of a matrix, if it has one.
    pub fn get(&self, layer: usize, site: Site) -> Option<&Adapter> {
        let found = self.sites.binary_search_by_key(&(layer, site), |(layer, site, _)| (*layer, *site));
        found.ok().map(|i| &self.sites[i].2)
    }
}

impl Adapter {
    /// Bytes that its numbers take.
    pub fn bytes(&self) -> usize {
        self.a.len() + self.b.len() + self.c.len() + 4 * (self.a_scales.len() + self.b_scales.len() + 1)
    }

    /// Round numbers to bytes: `a (rank, inputs)`, `b (rank, outputs)`, `c (outputs)`.
    ///
    /// # Panics
    /// If their lengths are not these.
    pub fn quantise(rank: usize, a: &[f32], b: &[f32], c: &[f32]) -> Self {
        let (inputs, outputs) = (a.len() / rank.max(1), c.len());
        assert_eq!((a.len(), b.len()), (rank * inputs, rank * outputs), "matrices of rank {rank}");
        let rows = |values: &[f32], width: usize| -> (Vec<i8>, Vec<f32>) {
            let mut codes = Vec::with_capacity(values.len());
            let scales = values.chunks(width.max(1)).map(|row| bytes(row, &mut codes)).collect();
            (codes, scales)
        };
        let (a, a_scales) = rows(a, inputs);
        let (b, b_scales) = rows(b, outputs);
        let mut codes = Vec::with_capacity(outputs);
        let c_scale = bytes(c, &mut codes);
        Self { rank, inputs, outputs, a, a_scales, b, b_scales, c: codes, c_scale }
    }

    /// `A (rank, inputs)` as numbers.
    pub fn a_values(&self) -> Vec<f32> {
        scaled(&self.a, &self.a_scales, self.inputs)
    }

    /// `B (rank, outputs)` as numbers.
    pub fn b_values(&self) -> Vec<f32> {
        scaled(&self.b, &self.b_scales, self.outputs)
    }

    /// `c (outputs)` as numbers.
    pub fn c_values(&self) -> Vec<f32> {
        scaled(&self.c, &[self.c_scale], self.outputs)
    }
}

/// Append `row` as bytes; the scale.
fn bytes(row: &[f32], codes: &mut Vec<i8>) -> f32 {
    let most = row.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = if most.is_finite() { most / 127.0 } else { 0.0 };
    let code = |x: &f32| if scale > 0.0 { (x / scale).round().clamp(-127.0, 127.0) as i8 } else { 0 };
    codes.extend(row.iter().map(code));
    scale
}

fn scaled(codes: &[i8], scales: &[f32], width: usize) -> Vec<f32> {
    let rows = codes.chunks(width.max(1)).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |code| f32::from(*code) * scale)).collect()
}
