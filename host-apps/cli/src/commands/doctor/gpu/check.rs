//! Does the adapter compute what the reference computes? A tiny model with pseudo-random weights runs on both.

use anyhow::{Result, ensure};
use concertina::formats::{MemorySource, open_gguf, testing::TinyModel};
use concertina::{AdapterInfo, Engine, Options};

use super::{Finding, SECTION};
use crate::session::LEVEL;

const TOKENS: [u32; 20] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
/// Greatest difference of the logits, relative to their norm; keys and values are kept in f16.
const TOLERANCE: f64 = 2e-3;

/// The adapter that is used, why, and whether it computes rightly.
pub fn used(wanted: Option<&str>, found: &[AdapterInfo]) -> Vec<Finding> {
    let used = match logits(wanted) {
        Ok(used) => used,
        Err(e) => {
            let fix = "choose another one with --adapter, or install a newer driver";
            return vec![Finding::missing(SECTION, "adapter used", format!("{e:#}"), fix)];
        }
    };
    let name = used.adapter;
    let number = found.iter().position(|info| info.to_string() == name);
    let number = number.map(|n| format!("number {n}, ")).unwrap_or_default();
    let why = match wanted {
        Some(wanted) => format!("asked for as `{wanted}`"),
        None if found.len() == 1 => "the only one".into(),
        None => "the best: cards before processors before software; --adapter chooses another".into(),
    };
    let mut findings = vec![Finding::ok(SECTION, "adapter used", format!("{number}{name}: {why}"))];
    findings.push(match logits(Some("cpu")).and_then(|reference| difference(&used.logits, &reference.logits)) {
        Ok(d) if d <= TOLERANCE => {
            let detail = format!("a tiny model's logits differ from the reference by {d:.1e} of their size");
            Finding::ok(SECTION, "computes rightly", detail)
        }
        Ok(d) => {
            let detail = format!("no: a tiny model's logits differ from the reference by {d:.1e} of their size");
            Finding::missing(SECTION, "computes rightly", detail, "install a newer driver, or choose another adapter")
        }
        Err(e) => {
            Finding::missing(SECTION, "computes rightly", format!("{e:#}"), "report this as an error of concertina")
        }
    });
    findings
}

struct Run {
    adapter: String,
    logits: Vec<f32>,
}

/// Logits of the tiny model after the last of [`TOKENS`], in one piece and with one token on its own: so that kernels for
/// many rows and for few rows run.
fn logits(adapter: Option<&str>) -> Result<Run> {
    let model = open_gguf(Box::new(MemorySource(TinyModel::new("llama").gguf())))?;
    let mut options = Options { adapter: adapter.map(str::to_owned), ..Options::default() };
    options.fit_contexts(&model.spec, TOKENS.len());
    let mut engine = pollster::block_on(Engine::load(model, options, &mut |_, _| {}))?;
    let last = [TOKENS.len() - 1];
    let mut rows = Vec::new();
    for piece in [0, TOKENS.len() - 1] {
        rows.extend(pollster::block_on(engine.logits(&TOKENS, &last, LEVEL, piece))?.into_iter().flatten());
    }
    Ok(Run { adapter: engine.adapter(), logits: rows })
}

fn difference(found: &[f32], reference: &[f32]) -> Result<f64> {
    ensure!(found.len() == reference.len(), "{} logits instead of {}", found.len(), reference.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let d = squares(&mut found.iter().zip(reference).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let norm = squares(&mut reference.iter().map(|v| f64::from(*v)));
    // Not a number is no small difference.
    Ok(if (d / norm).is_finite() { d / norm } else { f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::super::super::Status;
    use super::*;

    #[test]
    fn the_reference_agrees_with_itself() {
        let findings = used(Some("cpu"), &[]);
        assert!(findings.len() == 2 && findings.iter().all(|f| f.status == Status::Ok), "{findings:?}");
    }

    #[test]
    fn differences_are_seen() {
        assert!(difference(&[1.0, 2.0], &[1.0, 2.1]).unwrap() > TOLERANCE);
        assert_eq!(difference(&[f32::NAN], &[1.0]).unwrap(), f64::INFINITY);
        assert!(difference(&[1.0], &[1.0, 2.0]).is_err());
    }
}
