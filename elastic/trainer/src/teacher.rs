//! What the whole model says of the training text.

use anyhow::Result;

use crate::data::Windows;
use crate::importance::batches;
use crate::net::{Batch, Net, Pass};
use crate::ops::exp::{exp, log_sum_exp};
use crate::ops::head::{Target, each_row};

/// A batch and what each of its rows should predict. The last row of a window has no next token and counts for the
/// teacher alone.
#[derive(Debug, Clone)]
pub struct Lesson {
    /// The tokens.
    pub batch: Batch,
    /// A target for each row.
    pub targets: Vec<Target>,
}

/// The `top` likeliest tokens after every row, by the whole model. `progress` hears of batches done and in all.
///
/// # Errors
/// Where candle refuses.
pub fn lessons(
    net: &Net,
    windows: &Windows,
    top: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Lesson>> {
    let units = net.full();
    let pass = Pass::new(net, &units, None)?;
    let batches = batches(windows);
    let all = batches.len();
    let mut lessons = Vec::with_capacity(all);
    for (i, batch) in batches.into_iter().enumerate() {
        let hidden = pass.hidden(&batch)?;
        let targets = each_row(&hidden, &net.head, |i, row| {
            // The last row of a batch predicts nothing that is known: its own token keeps the index in range.
            let next = batch.ids.get(i + 1).copied().unwrap_or(0);
            Target { next, teacher: likeliest(row, top) }
        })?;
        lessons.push(Lesson { batch, targets });
        progress(i + 1, all);
    }
    Ok(lessons)
}

/// The `top` largest logits as probabilities.
fn likeliest(row: &[f32], top: usize) -> Vec<(u32, f32)> {
    let all = log_sum_exp(row);
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    let top = top.min(ids.len());
    if top < ids.len() {
        ids.select_nth_unstable_by(top, |a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        ids.truncate(top);
    }
    ids.into_iter().map(|id| (id, exp(row[id as usize] - all))).collect()
}
