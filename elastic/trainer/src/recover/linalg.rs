//! Least squares in f32, in blocks, so that products do the work.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use crate::ops::gemm::{Mat, matmul};
use crate::random::Random;

/// Rows of a block.
const BLOCK: usize = 64;

/// `L` with `L·Lᵀ = g` for a symmetric positive definite `g (n, n)`; what is above its diagonal means nothing.
///
/// # Errors
/// If `g` is not positive definite.
pub fn cholesky(mut g: Vec<f32>, n: usize) -> Result<Vec<f32>> {
    for first in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - first);
        let below = n - first;
        if first > 0 {
            let mut product = vec![0f32; below * width];
            let rows = Mat::strided(&g[first * n..], below, first, n);
            let own = Mat::strided(&g[first * n..], width, first, n);
            matmul(&mut product, rows, own.t(), false, true);
            for (row, product) in product.chunks_exact(width).enumerate() {
                let at = (first + row) * n + first;
                g[at..at + width].iter_mut().zip(product).for_each(|(g, p)| *g -= p);
            }
        }
        for j in 0..width {
            let at = |row: usize, col: usize| (first + row) * n + first + col;
            let squares: f32 = (0..j).map(|k| g[at(j, k)] * g[at(j, k)]).sum();
            let pivot = g[at(j, j)] - squares;
            ensure!(pivot > 0.0, "a matrix that should be positive definite is not: pivot {pivot} at {}", first + j);
            g[at(j, j)] = pivot.sqrt();
            for i in j + 1..width {
                let dot: f32 = (0..j).map(|k| g[at(i, k)] * g[at(j, k)]).sum();
                g[at(i, j)] = (g[at(i, j)] - dot) / g[at(j, j)];
            }
        }
        let (top, rest) = g.split_at_mut((first + width) * n);
        let triangle = |row: usize, col: usize| top[(first + row) * n + first + col];
        rest.par_chunks_mut(n).for_each(|row| {
            for j in 0..width {
                let dot: f32 = (0..j).map(|k| row[first + k] * triangle(j, k)).sum();
                row[first + j] = (row[first + j] - dot) / triangle(j, j);
            }
        });
    }
    Ok(g)
}

/// `x` with `L·Lᵀ·x = c`, for `c (n, m)`.
pub fn solve(l: &[f32], n: usize, mut c: Vec<f32>, m: usize) -> Vec<f32> {
    let starts: Vec<usize> = (0..n).step_by(BLOCK).collect();
    for &first in &starts {
        let width = BLOCK.min(n - first);
        let (done, own) = c.split_at_mut(first * m);
        let own = &mut own[..width * m];
        let mut product = vec![0f32; width * m];
        matmul(&mut product, Mat::strided(&l[first * n..], width, first, n), Mat::new(done, first, m), false, true);
        own.iter_mut().zip(&product).for_each(|(c, p)| *c -= p);
        for i in 0..width {
            let (before, row) = own.split_at_mut(i * m);
            for (k, before) in before.chunks_exact(m).enumerate() {
                let factor = l[(first + i) * n + first + k];
                row[..m].iter_mut().zip(before).for_each(|(r, b)| *r -= factor * b);
            }
            let pivot = l[(first + i) * n + first + i];
            row[..m].iter_mut().for_each(|r| *r /= pivot);
        }
    }
    for &first in starts.iter().rev() {
        let width = BLOCK.min(n - first);
        let after = n - first - width;
        let (own, done) = c.split_at_mut((first + width) * m);
        let own = &mut own[first * m..];
        if after > 0 {
            let mut product = vec![0f32; width * m];
            let below = Mat::strided(&l[(first + width) * n + first..], after, width, n);
            matmul(&mut product, below.t(), Mat::new(done, after, m), false, true);
            own.iter_mut().zip(&product).for_each(|(c, p)| *c -= p);
        }
        for i in (0..width).rev() {
            let (head, tail) = own.split_at_mut((i + 1) * m);
            let row = &mut head[i * m..];
            for (k, after) in tail.chunks_exact(m).enumerate() {
                let factor = l[(first + i + 1 + k) * n + first + i];
                row.iter_mut().zip(after).for_each(|(r, a)| *r -= factor * a);
            }
            let pivot = l[(first + i) * n + first + i];
            row.iter_mut().for_each(|r| *r /= pivot);
        }
    }
    c
}

/// The `count` leading eigenvectors of a symmetric positive semidefinite `p (n, n)`, as rows, by subspace iteration.
pub fn leading(p: &[f32], n: usize, count: usize) -> Vec<f32> {
    let width = (count + 8).min(n);
    let mut random = Random::new(1);
    let mut v: Vec<f32> = (0..width * n).map(|_| random.unit() as f32 - 0.5).collect();
    orthonormal(&mut v, n);
    for _ in 0..40 {
        let mut next = vec![0f32; width * n];
        matmul(&mut next, Mat::new(&v, width, n), Mat::new(p, n, n), false, true);
        v = next;
        orthonormal(&mut v, n);
    }
    // Rayleigh–Ritz would order them; the iteration already does, up to vectors of equal weight.
    v.truncate(count.min(n) * n);
    v
}

/// Rows made orthonormal one after the other (Gram–Schmidt, twice for accuracy).
fn orthonormal(v: &mut [f32], n: usize) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    for i in 0..v.len() / n {
        let (done, row) = v.split_at_mut(i * n);
        let row = &mut row[..n];
        for _ in 0..2 {
            for other in done.chunks_exact(n) {
                let along = dot(row, other) as f32;
                row.iter_mut().zip(other).for_each(|(r, o)| *r -= along * o);
            }
        }
        let length = dot(row, row).sqrt().max(1e-30) as f32;
        row.iter_mut().for_each(|r| *r /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..n).map(|_| random.unit() as f32 - 0.5).collect()
    }

    #[test]
    fn systems_are_solved() {
        for n in [1, 63, 64, 150] {
            let x = values(2 * n * n, 3);
            let mut g = vec![0f32; n * n];
            matmul(&mut g, Mat::new(&x, 2 * n, n).t(), Mat::new(&x, 2 * n, n), false, false);
            (0..n).for_each(|i| g[i * n + i] += 0.1);
            let c = values(n * 5, 4);
            let l = cholesky(g.clone(), n).unwrap();
            let found = solve(&l, n, c.clone(), 5);
            let mut back = vec![0f32; n * 5];
            matmul(&mut back, Mat::new(&g, n, n), Mat::new(&found, n, 5), false, false);
            assert!(back.iter().zip(&c).all(|(a, b)| (a - b).abs() < 1e-3), "{n}");
        }
        assert!(cholesky(vec![1.0, 2.0, 2.0, 1.0], 2).is_err());
    }

    #[test]
    fn leading_directions() {
        let n = 20;
        let mut p = vec![0f32; n * n];
        (0..n).for_each(|i| p[i * n + i] = 0.5f32.powi(i as i32));
        let v = leading(&p, n, 2);
        assert!((v[0].abs() - 1.0).abs() < 1e-3 && (v[n + 1].abs() - 1.0).abs() < 1e-3, "{v:?}");
    }
}
