//! Dispatches of a pass, gathered by kernel and shape.

use concertina::tune::{Family, Shape, Table};
use concertina::{Ceilings, Dispatch, Profiled};
use serde_json::{Value, json};

use crate::data::stats::median;

/// The least part of a time that must be left when its timestamp's cost is taken off.
const LEAST_LEFT: f64 = 0.2;

/// A kind of pass, measured several times.
pub struct Pass {
    pub name: String,
    /// Rows of the batch.
    pub rows: usize,
    pub passes: Vec<Profiled>,
}

/// One kernel and shape in a pass.
#[derive(Debug, Clone)]
pub struct Row {
    pub kernel: &'static str,
    pub shape: String,
    pub is_matrix: bool,
    /// Whether sub-models make it smaller.
    pub cut: bool,
    pub count: usize,
    /// Nanoseconds of one dispatch, without its timestamp: median over passes of the mean.
    pub ns: f64,
    /// Whether that is more than noise beside what was taken off: rates follow from it.
    pub told: bool,
    /// Of all of them, as a share of the pass.
    pub share: f64,
    /// Bytes and operations of one dispatch.
    pub bytes: Option<f64>,
    pub flops: Option<f64>,
    /// Share of what memory and arithmetic allow for this many operations a byte.
    pub of_ceiling: Option<f64>,
    /// Whether memory is what limits it, rather than arithmetic.
    pub memory_bound: Option<bool>,
    /// The tuner's time for the fastest kernel of that shape over this time.
    pub of_best: Option<f64>,
}

impl Row {
    pub fn gb_s(&self) -> Option<f64> {
        self.bytes.filter(|_| self.told).map(|bytes| bytes / self.ns)
    }

    pub fn gflop_s(&self) -> Option<f64> {
        self.flops.filter(|_| self.told).map(|flops| flops / self.ns)
    }
}

impl Pass {
    /// Median nanoseconds of a pass, without timestamps between its dispatches.
    pub fn ns(&self) -> f64 {
        let times: Vec<f64> = self.passes.iter().map(|pass| pass.whole_ns).collect();
        median(&times).unwrap_or(0.0)
    }

    /// Median nanoseconds of a pass with a timestamp after each dispatch.
    pub fn stamped_ns(&self) -> f64 {
        let sums: Vec<f64> = self.passes.iter().map(|pass| pass.dispatches.iter().map(|d| d.ns).sum()).collect();
        median(&sums).unwrap_or(0.0)
    }

    /// Nanoseconds that a timestamp adds to a dispatch of this pass: what the pass takes longer with one after each, shared among
    /// them. After an empty dispatch a timestamp costs something else.
    pub fn stamp_ns(&self) -> f64 {
        (self.stamped_ns() - self.ns()).max(0.0) / self.dispatches().max(1) as f64
    }

    pub fn dispatches(&self) -> usize {
        self.passes.first().map_or(0, |pass| pass.dispatches.len())
    }

    /// By falling share. Bytes and operations are the mean over the dispatches of a row.
    pub fn rows(&self, ceilings: &Ceilings, table: &Table) -> Vec<Row> {
        let mut groups: Vec<(&Dispatch, Vec<usize>)> = Vec::new();
        for (i, d) in self.passes.first().into_iter().flat_map(|pass| &pass.dispatches).enumerate() {
            let same = |(first, _): &&mut (&Dispatch, Vec<usize>)| {
                (first.variant.name, &first.shape, first.cut) == (d.variant.name, &d.shape, d.cut)
            };
            match groups.iter_mut().find(same) {
                Some((_, at)) => at.push(i),
                None => groups.push((d, vec![i])),
            }
        }
        // Of the same passes as the rows are, whatever disturbed the others.
        let whole = self.stamped_ns() - self.stamp_ns() * self.dispatches() as f64;
        let mut rows: Vec<Row> = groups.iter().map(|(d, at)| self.row(d, at, whole, ceilings, table)).collect();
        rows.sort_by(|a, b| b.share.total_cmp(&a.share));
        rows
    }

    fn row(&self, d: &Dispatch, at: &[usize], whole: f64, ceilings: &Ceilings, table: &Table) -> Row {
        let means: Vec<f64> = self
            .passes
            .iter()
            .map(|pass| at.iter().filter_map(|i| pass.dispatches.get(*i)).map(|d| d.ns).sum::<f64>() / at.len() as f64)
            .collect();
        let stamped = median(&means).unwrap_or(0.0);
        let ns = (stamped - self.stamp_ns()).max(1.0);
        let told = ns > LEAST_LEFT * stamped;
        let first = self.passes.first().map_or(&[][..], |pass| &pass.dispatches);
        let mean = |pick: fn(&Dispatch) -> Option<u64>| -> Option<f64> {
            let all: Option<Vec<u64>> = at.iter().map(|i| pick(&first[*i])).collect();
            all.map(|all| all.iter().sum::<u64>() as f64 / at.len() as f64)
        };
        let (bytes, flops) = (mean(|d| d.bytes), mean(|d| d.flops));
        let least = bytes.zip(flops).filter(|_| told).map(|(b, f)| (b / ceilings.gb_s(), f / ceilings.f32_gflop_s));
        let is_matrix = d.matrix.is_some();
        Row {
            kernel: d.variant.name,
            shape: d.shape.clone(),
            is_matrix,
            cut: d.cut,
            count: at.len(),
            ns,
            told,
            share: if whole > 0.0 { ns * at.len() as f64 / whole } else { 0.0 },
            bytes,
            flops,
            of_ceiling: least.map(|(memory, arithmetic)| memory.max(arithmetic) / ns),
            memory_bound: least.map(|(memory, arithmetic)| memory >= arithmetic),
            of_best: best_ns(d, self.rows, table).map(|best| best / ns),
        }
    }
}

/// What the tuner found for the fastest kernel of a matrix of this size; the mean where it is cut both ways.
fn best_ns(d: &Dispatch, rows: usize, table: &Table) -> Option<f64> {
    let ((n, k), format) = (d.matrix?, d.variant.format?);
    let family = table.family(rows);
    // Logits are made for one row of a batch.
    let family = if family == Family::Wide && d.groups[1] == 1 { Family::Narrow } else { family };
    let is_it = |s: &Shape| s.n == n && s.k == k && s.format == format;
    let found: Vec<f64> =
        table.choices.iter().filter(|c| c.family == family && is_it(&c.shape)).map(|c| c.ns).collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

/// Share of the pass that goes to matrix kernels.
pub fn matrix_share(rows: &[Row]) -> f64 {
    rows.iter().filter(|row| row.is_matrix).map(|row| row.share).sum()
}

/// Rows as text.
pub fn text(pass: &Pass, rows: &[Row]) -> String {
    let dash = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
    let percent = |value: Option<f64>| value.map_or("-".into(), |v| format!("{:.0} %", 100.0 * v));
    let (ms, count) = (pass.ns() / 1e6, pass.dispatches());
    let mut text = format!("\n{}: {ms:.2} ms, {count} dispatches\n", pass.name);
    text += &format!(
        "  {:<30} {:<18} {:>3} {:>9} {:>7} {:>7} {:>8} {:>8} {:>8}\n",
        "kernel", "shape", "n", "us each", "share", "GB/s", "GFLOP/s", "ceiling", "best"
    );
    for row in rows {
        let limit = match row.memory_bound {
            Some(true) => "m",
            Some(false) => "a",
            None => " ",
        };
        text += &format!(
            "  {:<30} {:<18} {:>3} {:>9.1} {:>7} {:>7} {:>8} {:>7}{limit} {:>8}\n",
            row.kernel,
            row.shape,
            row.count,
            row.ns / 1e3,
            percent(Some(row.share)),
            dash(row.gb_s(), 2),
            dash(row.gflop_s(), 2),
            percent(row.of_ceiling),
            percent(row.of_best),
        );
    }
    text += &format!("  matrix kernels: {:.0} % of the pass\n", 100.0 * matrix_share(rows));
    let stamp_ns = pass.stamp_ns();
    text + &format!(
        "  with a timestamp after each dispatch {:.2} ms: {:.1} us each, which is taken off\n",
        pass.stamped_ns() / 1e6,
        stamp_ns / 1e3
    )
}

/// Rows as JSON.
pub fn as_json(pass: &Pass, rows: &[Row]) -> Value {
    let rows_json: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "kernel": row.kernel, "shape": row.shape, "matrix": row.is_matrix, "cut": row.cut, "count": row.count,
                "us": row.ns / 1e3, "share": row.share, "bytes": row.bytes, "flops": row.flops,
                "gb_s": row.gb_s(), "gflop_s": row.gflop_s(), "of_ceiling": row.of_ceiling,
                "memory_bound": row.memory_bound, "of_best": row.of_best,
            })
        })
        .collect();
    json!({
        "pass": pass.name, "rows": pass.rows, "dispatches": pass.dispatches(), "passes": pass.passes.len(),
        "ms": pass.ns() / 1e6, "timestamp_us": pass.stamp_ns() / 1e3,
        "matrix_share": matrix_share(rows), "kernels": rows_json,
    })
}
