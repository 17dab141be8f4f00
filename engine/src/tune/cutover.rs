//! From how many rows on the kernels for a few rows, and for many, beat those for fewer.

use super::measure::Bed;
use super::{Family, MatrixRole, Shape, Table};
use crate::{Backend, Result};

/// Rows at which narrow and few are compared.
const FEW: [usize; 6] = [2, 3, 4, 6, 8, 12];
/// Rows at which few and wide are compared.
const WIDE: [usize; 5] = [8, 12, 16, 24, 32];
/// Shapes that stand for the model: those that hold most of its weights.
const SHAPES: usize = 3;

/// Measure the cutovers into `table`. False if `late` came first: then those by default stay.
pub async fn measure(
    backend: &mut Backend,
    roles: &[MatrixRole],
    table: &mut Table,
    late: &dyn Fn() -> bool,
) -> Result<bool> {
    let few = cutover(backend, roles, table, (Family::Narrow, Family::Few), &FEW, late).await?;
    let wide = match few {
        Some(_) => cutover(backend, roles, table, (Family::Few, Family::Wide), &WIDE, late).await?,
        None => None,
    };
    if let (Some(few), Some(wide)) = (few, wide) {
        (table.few_from, table.wide_from, table.cutovers) = (few, wide.max(few), true);
    }
    Ok(table.cutovers)
}

/// The least number of rows at which `to`'s choices take less time than `from`'s; the one after the last of `steps` where
/// none does. `None` if time ran out.
async fn cutover(
    backend: &mut Backend,
    roles: &[MatrixRole],
    table: &Table,
    (from, to): (Family, Family),
    steps: &[usize],
    late: &dyn Fn() -> bool,
) -> Result<Option<usize>> {
    let most = steps[steps.len() - 1];
    // The layers' shapes: those that are multiplied with many rows.
    let of_layers = roles.iter().filter(|role| role.family == Family::Wide);
    let pick = |shape: &Shape, family| table.pick(shape, family).map(|choice| choice.variant);
    let mut totals = vec![[0.0f64; 2]; steps.len()];
    for role in of_layers.take(SHAPES) {
        let (Some(a), Some(b)) = (pick(&role.shape, from), pick(&role.shape, to)) else { continue };
        if std::ptr::eq(a, b) {
            continue;
        }
        let bed = Bed::new(backend, role, most).await?;
        let done = async {
            for (rows, total) in steps.iter().zip(&mut totals) {
                for (variant, total) in [a, b].into_iter().zip(total) {
                    if late() {
                        return Ok(false);
                    }
                    let mut runs = bed.candidate(backend, variant, *rows, f64::INFINITY).await?;
                    runs.again(backend, &bed).await?;
                    *total += runs.ns() * role.count as f64;
                }
            }
            Result::Ok(true)
        }
        .await;
        bed.free(backend);
        if !done? {
            return Ok(None);
        }
    }
    let first = totals.iter().position(|[a, b]| b <= a);
    Ok(Some(first.map_or(most + 1, |i| steps[i])))
}
