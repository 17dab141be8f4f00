//! Attention of sequences that share their beginnings: a trunk, and branches that leave it. No gradient.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::Rotary;
use super::exp::exp;
use super::gemm::{Mat, matmul};
use super::linear::cpu;

/// The rows of a trunk, then those of its branches, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeRows {
    /// Rows of the trunk, at positions from 0.
    pub trunk: usize,
    /// Rows of the trunk that a branch continues, and its own, at the positions after those.
    pub branches: Vec<(usize, usize)>,
}

impl TreeRows {
    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.trunk + self.branches.iter().map(|(_, own)| own).sum::<usize>()
    }

    /// Positions that are reached.
    pub fn positions(&self) -> usize {
        self.branches.iter().map(|(at, own)| at + own).max().unwrap_or(0).max(self.trunk)
    }

    /// The trunk and the branches alike: rows of the trunk seen, first own row, own rows.
    fn lines(&self) -> Vec<(usize, usize, usize)> {
        let mut lines = vec![(0, 0, self.trunk)];
        let mut first = self.trunk;
        for &(at, own) in &self.branches {
            lines.push((at, first, own));
            first += own;
        }
        lines
    }
}

/// Sizes of the heads.
#[derive(Debug, Clone)]
pub struct TreeHeads {
    /// Query heads of a KV group.
    pub per_group: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// Multiplies `q·k`.
    pub scale: f32,
    /// Rotation of queries and keys, for all positions that are reached.
    pub rotary: Rotary,
}

/// Attention of `q (n, heads·dim)` over `k` and `v (n, groups·dim)`, where the rows are those of the trees: `(n, heads·dim)`.
///
/// # Errors
/// If the tensors are not contiguous f32 in ordinary memory.
pub fn tree_attention(q: &Tensor, k: &Tensor, v: &Tensor, trees: &[TreeRows], heads: &TreeHeads) -> Result<Tensor> {
    let (n, cols) = q.dims2()?;
    let group_cols = heads.per_group * heads.dim;
    let groups = cols / group_cols;
    let ((qs, lq), (ks, lk), (vs, lv)) = (q.storage_and_layout(), k.storage_and_layout(), v.storage_and_layout());
    let (q_values, k_values, v_values) = (cpu(&qs, lq)?, cpu(&ks, lk)?, cpu(&vs, lv)?);
    let mut work = Vec::new();
    let mut first = 0;
    for tree in trees {
        work.extend((0..groups).map(|group| (tree, first, group)));
        first += tree.rows();
    }
    assert_eq!(first, n, "the trees have other rows");
    let blocks: Vec<Vec<f32>> = work
        .par_iter()
        .map(|&(tree, first, group)| {
            let take = |x: &[f32], each: usize, width: usize| -> Vec<f32> {
                let rows = first..first + tree.rows();
                rows.flat_map(|row| &x[row * groups * each + group * each..][..width]).copied().collect()
            };
            let q = take(q_values, group_cols, group_cols);
            let (k, v) = (take(k_values, heads.dim, heads.dim), take(v_values, heads.dim, heads.dim));
            one_group(q, k, &v, tree, heads)
        })
        .collect();
    let mut out = vec![0f32; n * cols];
    for (&(tree, first, group), block) in work.iter().zip(&blocks) {
        for (row, values) in (first..first + tree.rows()).zip(block.chunks_exact(group_cols)) {
            out[row * cols + group * group_cols..][..group_cols].copy_from_slice(values);
        }
    }
    Tensor::from_vec(out, Shape::from((n, cols)), q.device())
}

/// The heads of one group of one tree: `q (rows, heads·dim)`, `k` and `v (rows, dim)`.
fn one_group(mut q: Vec<f32>, mut k: Vec<f32>, v: &[f32], tree: &TreeRows, heads: &TreeHeads) -> Vec<f32> {
    let (d, r) = (heads.dim, heads.per_group);
    let lines = tree.lines();
    for &(at, first, own) in &lines {
        for i in 0..own {
            for head in q[(first + i) * r * d..][..r * d].chunks_exact_mut(d) {
                heads.rotary.rotate(head, at + i, false);
            }
            heads.rotary.rotate(&mut k[(first + i) * d..][..d], at + i, false);
        }
    }
    let mut out = vec![0f32; q.len()];
    for &(at, first, own) in &lines {
        let seen = at + own;
        let joined = |x: &[f32]| [&x[..at * d], &x[first * d..(first + own) * d]].concat();
        let (k, v) = (joined(&k), joined(v));
        // Rows of all heads of the group as one matrix: row i·r + h is head h of own row i.
        let q = Mat::new(&q[first * r * d..(first + own) * r * d], own * r, d);
        let mut p = vec![0f32; own * r * seen];
        matmul(&mut p, q, Mat::new(&k, seen, d).t(), false, false);
        for (row, p) in p.chunks_exact_mut(seen.max(1)).enumerate() {
            let (p, hidden) = p.split_at_mut(at + row / r + 1);
            hidden.fill(0.0);
            let top = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            p.iter_mut().for_each(|s| *s = exp((*s - top) * heads.scale));
            let sum: f32 = p.iter().sum();
            p.iter_mut().for_each(|s| *s /= sum);
        }
        let out = &mut out[first * r * d..(first + own) * r * d];
        matmul(out, Mat::new(&p, own * r, seen), Mat::new(&v, seen, d), false, false);
    }
    out
}
