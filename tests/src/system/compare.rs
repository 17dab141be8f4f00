//! How far two rows of logits lie apart.

/// Sum of squares, in f64.
fn square_sum(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum()
}

/// ‖a − b‖ / ‖b‖. Infinite where a value is not a number.
///
/// # Panics
/// If the lengths differ.
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "rows of different lengths");
    let d = square_sum(a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b))).sqrt();
    let norm = square_sum(b.iter().map(|b| f64::from(*b))).sqrt();
    let ratio = if norm > 0.0 { d / norm } else { d };
    if ratio.is_nan() { f64::INFINITY } else { ratio }
}

/// Greatest absolute difference. Infinite where a value is not a number.
pub fn max_abs(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

/// Index of the greatest value, the first of equals.
pub fn top_index(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}

/// Worst deviation of some rows from their references.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deviation {
    /// Greatest ‖a − b‖ / ‖b‖ of a row.
    pub relative: f64,
    /// Greatest absolute difference of a value.
    pub max_abs: f64,
}

impl Deviation {
    /// Of rows from their references.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn of(rows: &[Vec<f32>], references: &[Vec<f32>]) -> Self {
        assert_eq!(rows.len(), references.len(), "different numbers of rows");
        rows.iter().zip(references).fold(Self::default(), |worst, (a, b)| worst.max(a, b))
    }

    /// The worse of this and of one more row.
    #[must_use]
    pub fn max(self, row: &[f32], reference: &[f32]) -> Self {
        Self {
            relative: self.relative.max(relative(row, reference)),
            max_abs: self.max_abs.max(max_abs(row, reference)),
        }
    }

    /// The worse of two.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { relative: self.relative.max(other.relative), max_abs: self.max_abs.max(other.max_abs) }
    }
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "|d|/|ref| {:.2e}, max abs {:.2e}", self.relative, self.max_abs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_number_is_never_close() {
        assert_eq!(relative(&[f32::NAN, 1.0], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(max_abs(&[f32::NAN], &[0.0]), f64::INFINITY);
        assert!((relative(&[3.0, 4.4], &[3.0, 4.0]) - 0.08).abs() < 1e-6);
    }
}
