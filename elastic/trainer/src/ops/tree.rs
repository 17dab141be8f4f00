//! Attention of sequences that share their beginnings: a trunk, and branches that leave it.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::attention::Rotary;
use super::exp::exp;
use super::gemm::{Mat, matmul};
use super::linear::cpu;
use super::values;

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

    /// The trunk and the branches alike.
    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![Line { at: 0, first: 0, own: self.trunk }];
        let mut first = self.trunk;
        for &(at, own) in &self.branches {
            lines.push(Line { at, first, own });
            first += own;
        }
        lines
    }
}

/// Rows that see each other and the trunk's before them.
#[derive(Clone, Copy)]
struct Line {
    /// Rows of the trunk that are seen.
    at: usize,
    /// The first own row.
    first: usize,
    /// Own rows.
    own: usize,
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
    q.apply_op3(k, v, TreeAttention { trees: trees.to_vec(), heads: heads.clone() })
}

struct TreeAttention {
    trees: Vec<TreeRows>,
    heads: TreeHeads,
}

/// The heads of one group of one tree, rotated: `q (rows, heads·dim)`, `k` and `v (rows, dim)`.
struct Group<'a> {
    heads: &'a TreeHeads,
    lines: Vec<Line>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl TreeAttention {
    /// Each group of each tree: the tree, its first row, the group.
    fn work(&self, n: usize, groups: usize) -> Vec<(&TreeRows, usize, usize)> {
        let (mut work, mut first) = (Vec::new(), 0);
        for tree in &self.trees {
            work.extend((0..groups).map(|group| (tree, first, group)));
            first += tree.rows();
        }
        assert_eq!(first, n, "the trees have other rows");
        work
    }

    fn group(&self, [q, k, v]: [&[f32]; 3], groups: usize, work: (&TreeRows, usize, usize)) -> Group<'_> {
        let (tree, first, group) = work;
        let (d, r) = (self.heads.dim, self.heads.per_group);
        let take = |x, width| block(x, groups, width, first..first + tree.rows(), group);
        let (mut q, mut k, v) = (take(q, r * d), take(k, d), take(v, d));
        let mut group = Group { heads: &self.heads, lines: tree.lines(), q: Vec::new(), k: Vec::new(), v };
        group.rotate(&mut q, r, false);
        group.rotate(&mut k, 1, false);
        (group.q, group.k) = (q, k);
        group
    }

    /// Blocks of all groups of all trees side by side again, `width` columns each.
    fn joined<'a>(
        &self,
        n: usize,
        groups: usize,
        width: usize,
        blocks: impl Iterator<Item = &'a Vec<f32>>,
    ) -> Vec<f32> {
        let mut out = vec![0f32; n * groups * width];
        for ((tree, first, group), block) in self.work(n, groups).into_iter().zip(blocks) {
            for (row, values) in (first..first + tree.rows()).zip(block.chunks_exact(width)) {
                out[(row * groups + group) * width..][..width].copy_from_slice(values);
            }
        }
        out
    }
}

/// Columns of a group in some rows.
fn block(x: &[f32], groups: usize, width: usize, rows: std::ops::Range<usize>, group: usize) -> Vec<f32> {
    rows.flat_map(|row| &x[(row * groups + group) * width..][..width]).copied().collect()
}

impl Group<'_> {
    /// Rotate the `heads` heads of each row by its position, or back.
    fn rotate(&self, x: &mut [f32], heads: usize, back: bool) {
        let d = self.heads.dim;
        for line in &self.lines {
            for i in 0..line.own {
                for head in x[(line.first + i) * heads * d..][..heads * d].chunks_exact_mut(d) {
                    self.heads.rotary.rotate(head, line.at + i, back);
                }
            }
        }
    }

    /// Rows of keys or values that a line sees.
    fn seen(&self, x: &[f32], line: Line) -> Vec<f32> {
        let d = self.heads.dim;
        [&x[..line.at * d], &x[line.first * d..(line.first + line.own) * d]].concat()
    }

    /// A line's own rows of `x`, of all heads of the group as one matrix: row `i·r + h` is head `h` of own row `i`.
    fn own<'a>(&self, x: &'a [f32], line: Line) -> Mat<'a> {
        let (d, r) = (self.heads.dim, self.heads.per_group);
        Mat::new(&x[line.first * r * d..(line.first + line.own) * r * d], line.own * r, d)
    }

    /// Probabilities of those rows over the keys up to their own.
    fn probabilities(&self, k: &[f32], line: Line) -> Vec<f32> {
        let (d, r, seen) = (self.heads.dim, self.heads.per_group, line.at + line.own);
        let mut p = vec![0f32; line.own * r * seen];
        matmul(&mut p, self.own(&self.q, line), Mat::new(k, seen, d).t(), false, false);
        for (row, p) in p.chunks_exact_mut(seen.max(1)).enumerate() {
            let (p, hidden) = p.split_at_mut(line.at + row / r + 1);
            hidden.fill(0.0);
            let top = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            p.iter_mut().for_each(|s| *s = exp((*s - top) * self.heads.scale));
            let sum: f32 = p.iter().sum();
            p.iter_mut().for_each(|s| *s /= sum);
        }
        p
    }

    fn out(&self) -> Vec<f32> {
        let (d, r) = (self.heads.dim, self.heads.per_group);
        let mut out = vec![0f32; self.q.len()];
        for &line in &self.lines {
            let seen = line.at + line.own;
            let (k, v) = (self.seen(&self.k, line), self.seen(&self.v, line));
            let p = self.probabilities(&k, line);
            let out = &mut out[line.first * r * d..(line.first + line.own) * r * d];
            matmul(out, Mat::new(&p, line.own * r, seen), Mat::new(&v, seen, d), false, false);
        }
        out
    }

    /// Gradients by queries, keys and values, from that by what came out.
    fn back(&self, grad: &[f32]) -> [Vec<f32>; 3] {
        let (d, r) = (self.heads.dim, self.heads.per_group);
        let (mut dq, mut dk, mut dv) = (vec![0f32; self.q.len()], vec![0f32; self.k.len()], vec![0f32; self.v.len()]);
        for &line in &self.lines {
            let (rows, seen) = (line.own * r, line.at + line.own);
            let (k, v) = (self.seen(&self.k, line), self.seen(&self.v, line));
            let p = self.probabilities(&k, line);
            let dout = self.own(grad, line);
            let mut by_value = vec![0f32; seen * d];
            matmul(&mut by_value, Mat::new(&p, rows, seen).t(), dout, false, false);
            let mut ds = vec![0f32; rows * seen];
            matmul(&mut ds, dout, Mat::new(&v, seen, d).t(), false, false);
            for (ds, p) in ds.chunks_exact_mut(seen.max(1)).zip(p.chunks_exact(seen.max(1))) {
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                ds.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean) * self.heads.scale);
            }
            let ds = Mat::new(&ds, rows, seen);
            let own = line.first * r * d..(line.first + line.own) * r * d;
            matmul(&mut dq[own], ds, Mat::new(&k, seen, d), false, false);
            let mut by_key = vec![0f32; seen * d];
            matmul(&mut by_key, ds.t(), self.own(&self.q, line), false, false);
            for (to, by) in [(&mut dk, by_key), (&mut dv, by_value)] {
                let (trunk, own) = by.split_at(line.at * d);
                to[..trunk.len()].iter_mut().zip(trunk).for_each(|(to, by)| *to += by);
                to[line.first * d..][..own.len()].iter_mut().zip(own).for_each(|(to, by)| *to += by);
            }
        }
        self.rotate(&mut dq, r, true);
        self.rotate(&mut dk, 1, true);
        [dq, dk, dv]
    }
}

impl CustomOp3 for TreeAttention {
    fn name(&self) -> &'static str {
        "tree-attention"
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
        let all = [values(q, lq)?, values(k, lk)?, values(v, lv)?];
        let width = self.heads.per_group * self.heads.dim;
        let groups = cols / width;
        let work = self.work(n, groups);
        let blocks: Vec<Vec<f32>> = work.into_par_iter().map(|work| self.group(all, groups, work).out()).collect();
        Ok((CpuStorage::F32(self.joined(n, groups, width, blocks.iter())), (n, cols).into()))
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
        let (d, width) = (self.heads.dim, self.heads.per_group * self.heads.dim);
        let groups = cols / width;
        let grad = grad.contiguous()?;
        let ((qs, lq), (ks, lk)) = (q.storage_and_layout(), k.storage_and_layout());
        let ((vs, lv), (gs, lg)) = (v.storage_and_layout(), grad.storage_and_layout());
        let (all, grad) = ([cpu(&qs, lq)?, cpu(&ks, lk)?, cpu(&vs, lv)?], cpu(&gs, lg)?);
        let back = |work: (&TreeRows, usize, usize)| {
            let grad = block(grad, groups, width, work.1..work.1 + work.0.rows(), work.2);
            self.group(all, groups, work).back(&grad)
        };
        let blocks: Vec<[Vec<f32>; 3]> = self.work(n, groups).into_par_iter().map(back).collect();
        let tensor = |of: usize, width: usize| {
            let values = self.joined(n, groups, width, blocks.iter().map(|block| &block[of]));
            Tensor::from_vec(values, (n, groups * width), q.device())
        };
        Ok((Some(tensor(0, width)?), Some(tensor(1, d)?), Some(tensor(2, d)?)))
    }
}
