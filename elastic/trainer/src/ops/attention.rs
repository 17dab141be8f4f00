//! Causal attention of several sequences side by side, rotary embedding included.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use concertina_formats::RopeStyle;
use rayon::prelude::*;

use super::exp::exp;
use super::gemm::{Mat, matmul};
use super::linear::cpu;
use super::values;

/// Cosine and sine of each position and pair of dimensions, and which dimensions are pairs.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// `[position][pair]`.
    pub cos_sin: Arc<Vec<(f32, f32)>>,
    /// Which dimensions are a pair.
    pub style: RopeStyle,
}

impl Rotary {
    /// Rotate one head's dimensions by a position, or back.
    pub(super) fn rotate(&self, row: &mut [f32], position: usize, back: bool) {
        let half = row.len() / 2;
        for (i, &(cos, sin)) in self.cos_sin[position * half..][..half].iter().enumerate() {
            let (a, b) = match self.style {
                RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                RopeStyle::Halves => (i, i + half),
            };
            let sin = if back { -sin } else { sin };
            (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[a] * sin + row[b] * cos);
        }
    }
}

/// Shape of an attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Tokens of each sequence; rows are whole sequences, one after the other.
    pub tokens: usize,
    /// Query heads of a KV group.
    pub heads_per_group: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Multiplies `q·k`.
    pub scale: f32,
    /// Rotation of queries and keys.
    pub rotary: Rotary,
}

/// Attention of `q (n, heads·dim)` over `k` and `v (n, groups·dim)`: `(n, heads·dim)`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, shape: Attention) -> Result<Tensor> {
    q.apply_op3(k, v, shape)
}

/// Rotated queries of each head, rotated keys, and values, of one sequence and group.
struct Group {
    q: Vec<Vec<f32>>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Attention {
    /// Column block `head` of the rows of a sequence.
    fn take(&self, x: &[f32], cols: usize, sequence: usize, head: usize) -> Vec<f32> {
        let (t, d) = (self.tokens, self.head_dim);
        let mut out = Vec::with_capacity(t * d);
        for row in sequence * t..(sequence + 1) * t {
            out.extend_from_slice(&x[row * cols + head * d..][..d]);
        }
        out
    }

    /// Rotate each row by its position, or back.
    fn rotate(&self, x: &mut [f32], back: bool) {
        for (position, row) in x.chunks_exact_mut(self.head_dim).enumerate() {
            self.rotary.rotate(row, position, back);
        }
    }

    fn group(&self, q: &[f32], k: &[f32], v: &[f32], groups: usize, sequence: usize, group: usize) -> Group {
        let (r, d) = (self.heads_per_group, self.head_dim);
        let q = (0..r)
            .map(|head| {
                let mut q = self.take(q, groups * r * d, sequence, group * r + head);
                self.rotate(&mut q, false);
                q
            })
            .collect();
        let mut k = self.take(k, groups * d, sequence, group);
        self.rotate(&mut k, false);
        Group { q, k, v: self.take(v, groups * d, sequence, group) }
    }

    /// Probabilities of each query (row) over the keys up to its own.
    fn probabilities(&self, q: &[f32], k: &[f32]) -> Vec<f32> {
        let (t, d) = (self.tokens, self.head_dim);
        let mut p = vec![0f32; t * t];
        matmul(&mut p, Mat::new(q, t, d), Mat::new(k, t, d).t(), false, false);
        for (i, row) in p.chunks_exact_mut(t).enumerate() {
            let (seen, hidden) = row.split_at_mut(i + 1);
            hidden.fill(0.0);
            let top = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            seen.iter_mut().for_each(|s| *s = exp((*s - top) * self.scale));
            let sum: f32 = seen.iter().sum();
            seen.iter_mut().for_each(|s| *s /= sum);
        }
        p
    }

    /// Put blocks of `(tokens, head_dim)` back: block `i` of a sequence is column block `i`.
    fn join(&self, blocks: &[Vec<f32>], heads: usize) -> Vec<f32> {
        let (t, d) = (self.tokens, self.head_dim);
        let mut out = vec![0f32; blocks.len() * t * d];
        out.par_chunks_mut(heads * d).enumerate().with_min_len(32).for_each(|(row, out)| {
            let (sequence, token) = (row / t, row % t);
            for (head, out) in out.chunks_exact_mut(d).enumerate() {
                out.copy_from_slice(&blocks[sequence * heads + head][token * d..][..d]);
            }
        });
        out
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        lq: &Layout,
        k: &CpuStorage,
        lk: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, cols) = lq.shape().dims2()?;
        let (q, k, v) = (values(q, lq)?, values(k, lk)?, values(v, lv)?);
        let (t, d, r) = (self.tokens, self.head_dim, self.heads_per_group);
        let groups = cols / (r * d);
        let blocks: Vec<Vec<f32>> = (0..n / t * groups)
            .into_par_iter()
            .flat_map_iter(|i| {
                let group = self.group(q, k, v, groups, i / groups, i % groups);
                group
                    .q
                    .iter()
                    .map(|q| {
                        let p = self.probabilities(q, &group.k);
                        let mut out = vec![0f32; t * d];
                        matmul(&mut out, Mat::new(&p, t, t), Mat::new(&group.v, t, d), false, false);
                        out
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        Ok((CpuStorage::F32(self.join(&blocks, groups * r)), (n, cols).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (n, cols) = q.dims2()?;
        let (t, d, r) = (self.tokens, self.head_dim, self.heads_per_group);
        let groups = cols / (r * d);
        let grad = grad.contiguous()?;
        let ((qs, lq), (ks, lk)) = (q.storage_and_layout(), k.storage_and_layout());
        let ((vs, lv), (gs, lg)) = (v.storage_and_layout(), grad.storage_and_layout());
        let (qv, kv, vv, gv) = (cpu(&qs, lq)?, cpu(&ks, lk)?, cpu(&vs, lv)?, cpu(&gs, lg)?);
        type Grads = (Vec<Vec<f32>>, Vec<f32>, Vec<f32>);
        let all: Vec<Grads> = (0..n / t * groups)
            .into_par_iter()
            .map(|i| {
                let group = self.group(qv, kv, vv, groups, i / groups, i % groups);
                let (mut dk, mut dv) = (vec![0f32; t * d], vec![0f32; t * d]);
                let dq = group.q.iter().enumerate().map(|(head, q)| {
                    let p = self.probabilities(q, &group.k);
                    let dout = self.take(gv, cols, i / groups, i % groups * r + head);
                    let dout = Mat::new(&dout, t, d);
                    matmul(&mut dv, Mat::new(&p, t, t).t(), dout, true, false);
                    let mut ds = vec![0f32; t * t];
                    matmul(&mut ds, dout, Mat::new(&group.v, t, d).t(), false, false);
                    for (ds, p) in ds.chunks_exact_mut(t).zip(p.chunks_exact(t)) {
                        let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                        ds.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean) * self.scale);
                    }
                    let ds = Mat::new(&ds, t, t);
                    let mut dq = vec![0f32; t * d];
                    matmul(&mut dq, ds, Mat::new(&group.k, t, d), false, false);
                    matmul(&mut dk, ds.t(), Mat::new(q, t, d), true, false);
                    self.rotate(&mut dq, true);
                    dq
                });
                let dq = dq.collect();
                self.rotate(&mut dk, true);
                (dq, dk, dv)
            })
            .collect();
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        for (q, k, v) in all {
            dq.extend(q);
            dk.push(k);
            dv.push(v);
        }
        let tensor =
            |blocks: &[Vec<f32>], heads: usize| Tensor::from_vec(self.join(blocks, heads), (n, heads * d), q.device());
        Ok((Some(tensor(&dq, groups * r)?), Some(tensor(&dk, groups)?), Some(tensor(&dv, groups)?)))
    }
}
