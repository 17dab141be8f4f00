//! The judge: what a dispatch may have done to memory, and how close it is to its twin.

use half::f16;

use super::{Buffer, Case, Compare, Image};

/// Why a run is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

/// How close a run was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Largest normalised error of an f32 buffer.
    pub norm: f64,
    /// Its bound.
    pub bound: f64,
}

fn fail<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure(what.into()))
}

/// Judge what an adapter (`got`) and the twin (`want`) made of `before`.
///
/// # Errors
/// The first thing found wrong.
pub fn check(case: &Case, before: &Image, want: &Image, got: &Image) -> Result<Report, Failure> {
    memory(case, before, want).map_err(|e| Failure(format!("the twin is wrong: {}", e.0)))?;
    memory(case, before, got)?;
    let mut report = Report::default();
    for (i, buffer) in case.buffers.iter().enumerate().filter(|(_, b)| b.alias.is_none()) {
        let close = values(buffer, want.words(i), got.words(i)).map_err(|e| at(case, i, e))?;
        // Of all buffers the one that comes closest to its bound.
        if report.bound == 0.0 || close.norm / close.bound > report.norm / report.bound {
            report = close;
        }
    }
    if let Some(verify) = &case.verify {
        let all = |image: &Image| (0..case.buffers.len()).map(|i| image.words(i).to_vec()).collect::<Vec<_>>();
        for (who, image) in [("the twin", want), ("the adapter", got)] {
            let words = all(image);
            let words: Vec<&[u32]> = words.iter().map(Vec::as_slice).collect();
            verify(&words).map_err(|e| Failure(format!("{who}: {e}")))?;
        }
    }
    Ok(report)
}

fn at(case: &Case, binding: usize, e: Failure) -> Failure {
    Failure(format!("{}: {}", case.variant.bindings[binding + 2].name, e.0))
}

/// Guards, inputs and everything that must not be written keep their bits.
fn memory(case: &Case, before: &Image, after: &Image) -> Result<(), Failure> {
    for (i, buffer) in case.buffers.iter().enumerate().filter(|(_, b)| b.alias.is_none()) {
        let pairs = before.words(i).iter().zip(after.words(i)).zip(&buffer.written);
        if let Some((word, ((old, new), _))) = pairs.enumerate().find(|(_, ((old, new), w))| !**w && old != new) {
            let what = format!("word {word} must keep {old:#010x} and became {new:#010x} ({})", f32::from_bits(*new));
            return Err(at(case, i, Failure(what)));
        }
    }
    for (arena, (old, new)) in before.arenas.iter().zip(&after.arenas).enumerate() {
        if old.len() != new.len() {
            return fail(format!("arena {arena} has {} words, not {}", new.len(), old.len()));
        }
        let changed = (0..old.len()).find(|&word| old[word] != new[word] && before.is_guard(arena, word));
        if let Some(word) = changed {
            return fail(format!("a guard changed: word {word} of arena {arena} became {:#010x}", new[word]));
        }
    }
    Ok(())
}

/// Written words against the twin's.
fn values(buffer: &Buffer, want: &[u32], got: &[u32]) -> Result<Report, Failure> {
    let written = || (0..want.len()).filter(|&i| buffer.written[i]);
    match buffer.compare {
        Compare::Verified => {}
        Compare::Unwritten => {
            if written().next().is_some() {
                return fail("the case expects a write to what is not compared");
            }
        }
        Compare::Bits => {
            if let Some(i) = written().find(|&i| want[i] != got[i]) {
                return fail(format!("word {i}: {:#010x}, the twin has {:#010x}", got[i], want[i]));
            }
        }
        Compare::Half => {
            for i in written() {
                let halves = |w: u32| [w as u16, (w >> 16) as u16].map(f16::from_bits);
                for (half, (w, g)) in halves(want[i]).into_iter().zip(halves(got[i])).enumerate() {
                    if !w.is_finite() || !g.is_finite() || ordered(w).abs_diff(ordered(g)) > 1 {
                        return fail(format!("half {}: {g:?}, the twin has {w:?}", 2 * i + half));
                    }
                }
            }
        }
        Compare::Halves { each } => {
            for i in written() {
                let halves = |w: u32| [w as u16, (w >> 16) as u16].map(|h| f16::from_bits(h).to_f32());
                for (half, (w, g)) in halves(want[i]).into_iter().zip(halves(got[i])).enumerate() {
                    if !w.is_finite() || !g.is_finite() || (w - g).abs() > each * w.abs().max(1.0) {
                        return fail(format!("half {}: {g:?}, the twin has {w:?}", 2 * i + half));
                    }
                }
            }
        }
        Compare::F32 { norm, each, usual } => {
            let pairs: Vec<(usize, f32, f32)> =
                written().map(|i| (i, f32::from_bits(want[i]), f32::from_bits(got[i]))).collect();
            return floats(&pairs, norm, each, usual);
        }
    }
    Ok(Report::default())
}

/// Neighbouring f16 map to neighbouring integers.
fn ordered(v: f16) -> i32 {
    let bits = i32::from(v.to_bits());
    if bits & 0x8000 == 0 { bits } else { 0x8000 - bits }
}

fn floats(pairs: &[(usize, f32, f32)], norm: f64, each: f64, usual_rms: f64) -> Result<Report, Failure> {
    if let Some((i, w, _)) = pairs.iter().find(|(_, w, _)| !w.is_finite()) {
        return fail(format!("word {i}: the twin has {w}"));
    }
    if let Some((i, w, g)) = pairs.iter().find(|(_, _, g)| !g.is_finite()) {
        let why = if g.is_nan() { "not written, or NaN" } else { "infinite" };
        return fail(format!("word {i}: {why} ({:#010x}), the twin has {w}", g.to_bits()));
    }
    // What stands for "nothing" is compared bit for bit and kept out of the norm.
    let (huge, usual): (Vec<_>, Vec<_>) = pairs.iter().partition(|(_, w, _)| w.abs() >= 1e20);
    if let Some((i, w, g)) = huge.iter().find(|(_, w, g)| w != g) {
        return fail(format!("word {i}: {g:e}, the twin has {w:e}"));
    }
    let (mut error, mut size) = (0f64, 0f64);
    for (_, w, g) in &usual {
        error += (f64::from(*g) - f64::from(*w)).powi(2);
        size += f64::from(*w).powi(2);
    }
    let count = usual.len().max(1) as f64;
    let rms = (size / count).sqrt().max(usual_rms);
    // Errors below the least normal f32 do not count, so that all zeros are equal to all zeros.
    let relative = error.sqrt() / (rms * count.sqrt()).max(f64::from(f32::MIN_POSITIVE));
    let off = |w: f32, g: f32| (f64::from(g) - f64::from(w)).abs();
    let worst = usual.iter().max_by(|a, b| off(a.1, a.2).total_cmp(&off(b.1, b.2)));
    let shown = worst.map(|(i, w, g)| format!("worst word {i}: {g}, the twin has {w}")).unwrap_or_default();
    if relative > norm {
        return fail(format!("normalised error {relative:.2e} > {norm:.0e}; {shown}"));
    }
    let limit = |w: f32| each * (rms + f64::from(w.abs())) + f64::from(f32::MIN_POSITIVE);
    if let Some((i, w, g)) = usual.iter().find(|(_, w, g)| off(*w, *g) > limit(*w)) {
        return fail(format!("word {i}: {g}, the twin has {w}; more than {:.1e} apart", limit(*w)));
    }
    Ok(Report { norm: relative, bound: norm })
}
