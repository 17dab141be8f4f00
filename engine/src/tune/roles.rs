//! The shapes that a model multiplies with, and the batches it does so in.

use std::fmt;

use concertina_formats::Model;
use concertina_shaders::WeightFormat;

use crate::weights::{self, Cut};

/// Rows that stand for a few: what decode of several contexts has.
const FEW_ROWS: usize = 4;

/// How many rows a batch has. Each family has recordings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// One, or so few that the kernel for one is still the fastest.
    Narrow,
    /// Some.
    Few,
    /// A piece of prefill.
    Wide,
}

impl Family {
    /// All of them, by rising rows.
    pub const ALL: [Family; 3] = [Family::Narrow, Family::Few, Family::Wide];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Family::Narrow => "narrow",
            Family::Few => "few",
            Family::Wide => "wide",
        }
    }
}

/// A matrix as kernels see it: `n` output features of `k` input features each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Format of the weights.
    pub format: WeightFormat,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Along which dimension sub-models cut it, which decides how it lies in memory.
    pub cut: Cut,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = match self.cut {
            Cut::Rows => "rows",
            Cut::Cols => "cols",
        };
        write!(f, "{} {}x{} by {cut}", self.format.name(), self.n, self.k)
    }
}

/// A shape in a family: what a variant is picked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixRole {
    /// The matrix.
    pub shape: Shape,
    /// The batch.
    pub family: Family,
    /// Rows that it is measured with.
    pub rows: usize,
    /// Matrices of that shape in the model.
    pub count: usize,
}

impl fmt::Display for MatrixRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} rows)", self.family.name(), self.shape, self.rows)
    }
}

/// The roles of a model whose prefill takes `wide_rows` rows at once: what a decoded token spends most on first.
pub fn matrix_roles(model: &Model, wide_rows: usize) -> Vec<MatrixRole> {
    let mut shapes: Vec<(Shape, usize, bool)> = Vec::new();
    for (format, n, k, cut, head) in weights::products(model) {
        let shape = Shape { format, n, k, cut };
        match shapes.iter_mut().find(|(s, _, _)| *s == shape) {
            Some((_, count, _)) => *count += 1,
            None => shapes.push((shape, 1, head)),
        }
    }
    shapes.sort_by_key(|(shape, count, _)| std::cmp::Reverse(shape.n * shape.k * count));
    let role = |family: Family| {
        let rows = match family {
            Family::Narrow => 1,
            Family::Few => FEW_ROWS,
            Family::Wide => wide_rows.max(FEW_ROWS),
        };
        // Only a few rows of a batch get logits.
        let of_layers = move |head: bool| family != Family::Wide || !head;
        shapes.iter().filter(move |(_, _, head)| of_layers(*head)).map(move |(shape, count, _)| MatrixRole {
            shape: *shape,
            family,
            rows,
            count: *count,
        })
    };
    // A few rows after a piece of prefill: they are less common. Sub-models last, so left out first where time is short.
    let mut roles: Vec<MatrixRole> = [Family::Narrow, Family::Wide, Family::Few].into_iter().flat_map(role).collect();
    for (format, n, k, groups) in weights::grouped_products(model) {
        for kept in prefixes(groups) {
            let shape = Shape { format, n: n / groups * kept, k, cut: Cut::Rows };
            match roles.iter_mut().find(|role| role.shape == shape && role.family == Family::Narrow) {
                Some(role) => role.count += 1,
                None => roles.push(MatrixRole { shape, family: Family::Narrow, rows: 1, count: 1 }),
            }
        }
    }
    roles
}

/// Numbers of groups that sub-models keep, as far as they are measured: a matrix of a few hundred rows is a few workgroups, and which
/// tile is the fastest depends on how many. What lies between takes after its neighbour.
fn prefixes(groups: usize) -> impl Iterator<Item = usize> {
    let mut kept: Vec<usize> =
        (1..4).map(|quarter| (groups * quarter).div_ceil(4)).filter(|kept| *kept < groups).collect();
    kept.dedup();
    kept.into_iter()
}
