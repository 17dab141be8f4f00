//! Whether a candidate computes what its CPU twin computes, on this adapter.

use concertina_shaders::{MatmulParams, PanelLayout, Step, Variant, WeightFormat};

use super::random::Random;
use crate::record::{Recording, Slice, Work};
use crate::weights::Cut;
use crate::{Backend, Cpu, Error, Result};

/// f32 sums of up to 1,536 products in any order.
const EXACT: f64 = 1e-5;
/// f16 arithmetic keeps 11 bits.
const HALF: f64 = 2e-3;
/// Activations rounded to 8 bits.
const ROUNDED: f64 = 2e-2;
/// What rounding errors grow by where gains set the elements of x further apart, and where gate and up, which err by the
/// same x, are multiplied.
const FUSED: f64 = 3.2;
/// Stands in outputs until a kernel writes them.
const POISON: f32 = -12_345.0;

/// What came of a check: the largest normalised error `‖d‖ / ‖twin‖`, or what is wrong.
pub type Parity = std::result::Result<f64, String>;

/// One product, small and odd.
struct Case {
    rows: usize,
    /// Output features kept, and stored.
    n: (usize, usize),
    /// Panels kept, and stored.
    panels: (usize, usize),
    cut: Cut,
    offset: usize,
    bias: bool,
    accumulate: bool,
    /// With an RMSNorm on the way in and a gated MLP on the way out; then `n` is a multiple of 4.
    fused: bool,
}

const fn case(rows: usize, n: (usize, usize), panels: (usize, usize), cut: Cut, more: bool) -> Case {
    Case { rows, n, panels, cut, offset: if more { 32 } else { 0 }, bias: more, accumulate: more, fused: false }
}

const CASES: [Case; 7] = [
    case(1, (37, 37), (2, 2), Cut::Rows, false),
    case(3, (70, 97), (1, 3), Cut::Cols, true),
    case(9, (130, 131), (3, 3), Cut::Rows, true),
    case(17, (65, 65), (2, 2), Cut::Cols, false),
    case(1, (300, 300), (6, 6), Cut::Cols, false),
    Case { fused: true, ..case(1, (140, 160), (3, 3), Cut::Rows, false) },
    Case { fused: true, ..case(11, (64, 64), (2, 2), Cut::Rows, false) },
];

/// Run `variant` over small, odd shapes here and on the twin.
///
/// # Errors
/// If the device was lost; all else is a failed check.
pub async fn check(backend: &mut Backend, variant: &'static Variant) -> Result<Parity> {
    let Some(format) = variant.format else { return Ok(Err("no weight format".into())) };
    let mut worst = 0.0f64;
    for (seed, case) in CASES.iter().enumerate() {
        let want = run(&mut Backend::Cpu(Cpu::default()), variant, format, case, seed as u64).await?;
        let got = match run(backend, variant, format, case, seed as u64).await {
            Ok(got) => got,
            Err(lost @ Error::DeviceLost(_)) => return Err(lost),
            Err(refused) => return Ok(Err(refused.to_string())),
        };
        match compare(variant, case, &want, &got) {
            Ok(error) => worst = worst.max(error),
            Err(what) => return Ok(Err(what)),
        }
    }
    Ok(Ok(worst))
}

fn compare(variant: &Variant, case: &Case, want: &[f32], got: &[f32]) -> Parity {
    let spread = if case.fused { FUSED } else { 1.0 };
    let bound = match variant {
        v if v.inexact => ROUNDED * spread,
        v if v.f16 => HALF * spread,
        _ => EXACT,
    };
    let (mut difference, mut norm) = (0.0f64, 0.0f64);
    for (i, (want, got)) in want.iter().zip(got).enumerate() {
        if !got.is_finite() {
            return Err(format!("output {i} is {got}"));
        }
        if *want == POISON && got != want {
            return Err(format!("wrote past its outputs, at {i}"));
        }
        if *want != POISON {
            difference += f64::from(want - got).powi(2);
            norm += f64::from(*want).powi(2);
        }
    }
    let error = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if error <= bound {
        Ok(error)
    } else {
        Err(format!("off by {error:.1e} of {bound:.0e} at {}x{} panels, {} rows", case.n.0, case.panels.0, case.rows))
    }
}

/// All of y after one dispatch.
async fn run(
    backend: &mut Backend,
    variant: &'static Variant,
    format: WeightFormat,
    c: &Case,
    seed: u64,
) -> Result<Vec<f32>> {
    let mut random = Random(seed);
    let cols = c.panels.1 * format.panel_cols();
    let layout = layout(format, c.n.1, cols, c.cut);
    let (x_stride, y_stride) = (c.offset + cols, c.offset + c.n.1 + 3);
    let x = random.floats((c.rows + 1) * x_stride);
    let w = random.matrix(&layout);
    let bias = random.floats(c.offset + c.n.1);
    let gain = random.floats(cols);
    let mut y = vec![POISON; (c.rows + 1) * y_stride];
    for row in 0..c.rows {
        let at = row * y_stride + c.offset;
        // What is added to is a number; without adding, what stood there must not matter.
        let before = random.floats(if c.fused { c.n.0 / 2 } else { c.n.0 });
        y[at..at + before.len()].copy_from_slice(&before);
    }
    let params = params(&layout, c.n.0, c.panels.0, x_stride, y_stride);
    let params = MatmulParams {
        x_offset: c.offset as u32,
        y_offset: c.offset as u32,
        bias: u32::from(c.bias),
        accumulate: u32::from(c.accumulate),
        norm: u32::from(c.fused),
        glu: u32::from(c.fused),
        eps: 1e-3,
        ..params
    };
    let mut held = Vec::new();
    let floats = |values| bytemuck::cast_slice::<f32, u8>(values);
    let all: [&[u8]; 5] = [floats(&x), &w, floats(&bias), floats(&gain), floats(&y)];
    let done = async {
        for bytes in all {
            let slice = backend.alloc("parity", bytes.len() as u64 + 64)?;
            held.push(slice);
            backend.write(slice, bytes)?;
        }
        let mut recording = Recording::default();
        push(&mut recording, variant, &params, [held[0], held[1], held[2], held[3], held[4]]);
        let prepared = backend.prepare(recording)?;
        let step = Step { rows: c.rows as u32, ..Step::default() };
        backend.run(&step, &[&prepared], Some(held[4].prefix(4 * y.len() as u64))).await
    }
    .await;
    held.iter().for_each(|slice| backend.release(*slice));
    Ok(bytemuck::pod_collect_to_vec(&done?))
}

/// How a matrix lies.
pub fn layout(format: WeightFormat, n: usize, k: usize, cut: Cut) -> PanelLayout {
    let layout = match cut {
        Cut::Rows => PanelLayout::by_rows(format, n, k),
        Cut::Cols => PanelLayout::by_cols(format, n, k),
    };
    layout.expect("whole panels")
}

/// A plain product of the first `n` features over the first panels.
pub fn params(layout: &PanelLayout, n: usize, panels: usize, x_stride: usize, y_stride: usize) -> MatmulParams {
    MatmulParams {
        n: n as u32,
        panels: panels as u32,
        panels_stored: layout.panels() as u32,
        row_block: layout.row_block as u32,
        x_stride: x_stride as u32,
        y_stride: y_stride as u32,
        ..MatmulParams::default()
    }
}

/// One product, as the forward pass records it.
pub fn push(
    recording: &mut Recording,
    variant: &'static Variant,
    params: &MatmulParams,
    [x, w, bias, gain, y]: [Slice; 5],
) {
    recording.push(variant, params, &[x, w, w, bias, gain, y], [Work::Fixed(params.n), Work::Rows]);
}
