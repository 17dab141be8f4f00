//! What the whole model says of the training text.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};

use crate::data::Windows;
use crate::file;
use crate::importance::batches;
use crate::net::{Batch, Net, Pass};
use crate::ops::exp::{exp, log_sum_exp};
use crate::ops::head::{Target, each_row};
use crate::ops::to_vec;

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

/// Keep lessons in a file.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, lessons: &[Lesson]) -> Result<()> {
    let targets = || lessons.iter().flat_map(|lesson| &lesson.targets);
    let top = targets().map(|target| target.teacher.len()).next().unwrap_or(0);
    let ids: Vec<u32> = lessons.iter().flat_map(|lesson| &lesson.batch.ids).copied().collect();
    let (likely, shares): (Vec<u32>, Vec<f32>) = targets().flat_map(|target| &target.teacher).copied().unzip();
    let rows = ids.len();
    let tensors = HashMap::from([
        ("ids", Tensor::from_vec(ids, rows, &Device::Cpu)?),
        ("likely", Tensor::from_vec(likely, (rows, top), &Device::Cpu)?),
        ("shares", Tensor::from_vec(shares, (rows, top), &Device::Cpu)?),
    ]);
    let temporary = path.with_extension("part");
    candle_core::safetensors::save(&tensors, &temporary)?;
    file::write_whole(path, &std::fs::read(&temporary)?)?;
    Ok(std::fs::remove_file(&temporary)?)
}

/// Lessons that [`save`] wrote, if they are of these windows.
pub fn load(path: &Path, windows: &Windows) -> Option<Vec<Lesson>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).ok()?;
    let ids: Vec<u32> = tensors.get("ids")?.to_vec1().ok()?;
    let (rows, top) = tensors.get("likely")?.dims2().ok()?;
    let likely: Vec<u32> = tensors.get("likely")?.flatten_all().ok()?.to_vec1().ok()?;
    let shares = to_vec(tensors.get("shares")?).ok()?;
    let batches = batches(windows);
    let all: Vec<u32> = batches.iter().flat_map(|batch| &batch.ids).copied().collect();
    if all != ids || rows != ids.len() || shares.len() != likely.len() {
        return None;
    }
    let mut teacher = likely.chunks_exact(top.max(1)).zip(shares.chunks_exact(top.max(1)));
    let mut lesson = |batch: Batch| {
        let rows = (0..batch.ids.len()).map(|i| {
            let (likely, shares) = teacher.next()?;
            let teacher = likely.iter().copied().zip(shares.iter().copied()).collect();
            Some(Target { next: batch.ids.get(i + 1).copied().unwrap_or(0), teacher })
        });
        let targets = rows.collect::<Option<_>>()?;
        Some(Lesson { batch, targets })
    };
    batches.into_iter().map(&mut lesson).collect()
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

#[cfg(test)]
mod tests {
    use concertina_formats::testing::TinyModel;
    use concertina_formats::{MemorySource, open_gguf};

    use super::*;
    use crate::data::Kind;

    #[test]
    fn lessons_are_kept() {
        let net = Net::load(&open_gguf(Box::new(MemorySource(TinyModel::new("llama").gguf()))).unwrap()).unwrap();
        let windows = |seed: u32| Windows {
            tokens: 8,
            all: (0..3).map(|w| (Kind::Brown, (0..8).map(|i| (i * 7 + w * 11 + seed) % 90).collect())).collect(),
        };
        let found = lessons(&net, &windows(0), 4, &mut |_, _| {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lessons.safetensors");
        assert!(load(&path, &windows(0)).is_none());
        save(&path, &found).unwrap();
        let kept = load(&path, &windows(0)).expect("the same windows");
        assert_eq!(kept.len(), 2);
        for (kept, found) in kept.iter().zip(&found) {
            assert_eq!((&kept.batch.ids, kept.batch.tokens), (&found.batch.ids, found.batch.tokens));
            for (kept, found) in kept.targets.iter().zip(&found.targets) {
                assert_eq!((kept.next, &kept.teacher), (found.next, &found.teacher));
            }
        }
        assert!(load(&path, &windows(1)).is_none(), "other text");
        std::fs::write(&path, b"torn").unwrap();
        assert!(load(&path, &windows(0)).is_none());
    }
}
