//! Products of f32 matrices in slices.

use gemm::Parallelism;

/// A matrix that lies somewhere in a slice.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix whose rows begin `stride` elements apart.
    ///
    /// # Panics
    /// If it does not lie in `data`.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride, "rows overlap");
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(), "a matrix past its slice");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// A row-major matrix without gaps.
    ///
    /// # Panics
    /// If it does not lie in `data`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows and columns exchanged.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// `out = a · b` (or `out += a · b`), row-major; on all threads, or on this one.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul(out: &mut [f32], a: Mat<'_>, b: Mat<'_>, add: bool, parallel: bool) {
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    assert_eq!(out.len(), a.rows * b.cols, "the product has another size");
    if out.is_empty() {
        return;
    }
    if a.cols == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    let parallelism = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: `Mat` holds only matrices that lie in their slices, by their strides; `out` is exactly the product's size
    // and row-major, and it is borrowed exclusively, so that it overlaps neither factor.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            b.cols as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_with_strides_and_transposes() {
        let a = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0];
        let a = Mat::strided(&a, 2, 2, 3);
        let b = [5.0, 6.0, 7.0, 8.0];
        let b = Mat::new(&b, 2, 2);
        let mut out = [1.0; 4];
        matmul(&mut out, a, b, false, false);
        assert_eq!(out, [19.0, 22.0, 43.0, 50.0]);
        matmul(&mut out, a.t(), b.t(), true, true);
        assert_eq!(out, [19.0 + 23.0, 22.0 + 31.0, 43.0 + 34.0, 50.0 + 46.0]);
        matmul(&mut out, Mat::new(&[], 2, 0), Mat::new(&[], 0, 2), false, false);
        assert_eq!(out, [0.0; 4]);
    }
}
