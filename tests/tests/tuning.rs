//! The tuner: a fast kernel that is wrong is never picked, what is found is kept and used, and damage to it is no error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use concertina::record::{Recording, Slice, Work};
use concertina::tune::{Cut, Family, MatrixRole, Shape, Table, Tune, TuneHost, Tuner};
use concertina::{Backend, Engine, Gpu, Options};
use concertina_shaders::{MatmulParams, PanelLayout, Step, Variant, WeightFormat, variant};
use concertina_tests::system::{load, options, relative, tiny};
use pollster::block_on;

fn backend() -> Backend {
    Backend::Gpu(block_on(Gpu::open(None)).expect("an adapter"))
}

fn role() -> MatrixRole {
    let shape = Shape { format: WeightFormat::Q4_1, n: 256, k: 4096, cut: Cut::Rows };
    MatrixRole { shape, family: Family::Narrow, rows: 1, count: 1 }
}

/// `matvec.q4_1` with a piece of its text replaced.
fn planted(name: &'static str, from: &str, to: &str) -> &'static Variant {
    let right = variant("matvec.q4_1").expect("in the table");
    assert!(right.source.contains(from), "the kernel has no {from:?}");
    Box::leak(Box::new(Variant { name, source: right.source.replace(from, to).leak(), ..*right }))
}

/// Nanoseconds of a product in the role's shape.
fn time(backend: &mut Backend, variant: &'static Variant) -> f64 {
    let shape = role().shape;
    let layout = PanelLayout::by_rows(shape.format, shape.n, shape.k).expect("whole panels");
    let params = MatmulParams {
        n: shape.n as u32,
        panels: layout.panels() as u32,
        panels_stored: layout.panels() as u32,
        row_block: layout.row_block as u32,
        x_stride: shape.k as u32,
        y_stride: shape.n as u32,
        ..MatmulParams::default()
    };
    let [x, w, y]: [Slice; 3] =
        [4 * shape.k, layout.bytes(), 4 * shape.n].map(|bytes| backend.alloc("test", bytes as u64).expect("room"));
    let mut recording = Recording::default();
    for _ in 0..16 {
        recording.push(variant, &params, &[x, w, w, x, x, y], [Work::Fixed(params.n), Work::Rows]);
    }
    let prepared = backend.prepare(recording).expect("a recording");
    let step = Step { rows: 1, ..Step::default() };
    (0..6).map(|_| block_on(backend.time(&step, &[&prepared])).expect("a time")).fold(f64::INFINITY, f64::min)
}

#[test]
fn the_fastest_kernel_is_not_picked_if_it_is_wrong() {
    let mut backend = backend();
    let lazy = planted("lazy", "piece >= params.panels * SUBS", "piece >= min(params.panels * SUBS, 1u)");
    let broken = planted("broken", "fn matvec(", "fn matvec(nonsense");
    let right = variant("matvec.q4_1").expect("in the table");
    let (fast, slow) = (time(&mut backend, lazy), time(&mut backend, right));
    assert!(fast < slow, "the planted kernel is the fastest: {fast} ns and {slow} ns");

    let mut tuner = Tuner::new(false, None);
    tuner.variants.extend([lazy, broken]);
    let held = backend.counters().buffer_bytes;
    let mut heard = Vec::new();
    let report = block_on(tuner.run(&mut backend, &[role()], Table::default(), &mut |done, total| {
        heard.push((done, total));
    }))
    .expect("a report");
    assert_eq!(backend.counters().buffer_bytes, held, "what was measured with was given back");
    assert_eq!(heard.last(), Some(&(2, 2)), "{heard:?}");
    let found = &report.roles[0];
    for wrong in ["lazy", "broken"] {
        let candidate = found.candidates.iter().find(|c| c.variant.name == wrong).expect("a candidate");
        assert!(candidate.parity.is_err() && candidate.ns.is_none(), "{wrong}: {candidate:?}");
        assert_ne!(report.table.choices[0].variant.name, wrong);
    }
    let ok: Vec<_> = found.candidates.iter().filter(|c| c.parity.is_ok()).collect();
    assert!(ok.len() >= 2 && ok.iter().all(|c| c.ns.is_some_and(|ns| ns > 0.0)), "{found:?}");
    assert_eq!(found.chosen().map(|c| c.variant.name), Some(report.table.choices[0].variant.name));
}

#[test]
fn a_budget_ends_the_measuring_after_the_first_role() {
    let mut backend = backend();
    let second = MatrixRole { shape: Shape { n: 64, ..role().shape }, ..role() };
    let mut tuner = Tuner::new(true, Some(std::time::Duration::ZERO));
    tuner.variants.retain(|v| v.kernel == "matvec");
    let roles = [role(), second];
    let report = block_on(tuner.run(&mut backend, &roles, Table::default(), &mut |_, _| {})).expect("a report");
    assert_eq!((report.roles.len(), report.complete), (1, false));
    // The next run goes on where this one stopped.
    let next = block_on(tuner.run(&mut backend, &roles, report.table, &mut |_, _| {})).expect("a report");
    assert_eq!((next.roles.len(), next.table.choices.len()), (1, 2));
}

#[derive(Debug, Default)]
struct Shelf {
    texts: Mutex<HashMap<String, String>>,
    heard: Mutex<usize>,
}

impl TuneHost for Shelf {
    fn load(&self, key: &str) -> Option<String> {
        self.texts.lock().expect("no panic").get(key).cloned()
    }

    fn store(&self, key: &str, text: &str) {
        self.texts.lock().expect("no panic").insert(key.into(), text.into());
    }

    fn progress(&self, _what: &str, _done: usize, _total: usize) {
        *self.heard.lock().expect("no panic") += 1;
    }
}

#[test]
fn what_was_found_is_kept_and_damage_to_it_is_no_error() {
    let tokens = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
    let logits = |engine: &mut Engine| block_on(engine.logits(&tokens, &[11], 100, 0)).expect("logits").remove(0);
    let plain = logits(&mut load(tiny("llama").gguf(), Options { tune: Tune::Off, ..options(None) }));
    let shelf = Arc::new(Shelf::default());
    let open = || {
        *shelf.heard.lock().expect("no panic") = 0;
        let host: Arc<dyn TuneHost> = shelf.clone();
        let mut engine = load(tiny("llama").gguf(), Options { tune_host: Some(host), ..options(None) });
        let close = relative(&logits(&mut engine), &plain);
        assert!(close < 1e-4, "the picked kernels compute the same: {close}");
        (engine.tuning(), *shelf.heard.lock().expect("no panic"))
    };
    let (first, heard) = open();
    assert!(heard > 0 && !first.choices.is_empty(), "measured on first use");
    // Where time was short the next starts go on.
    for _ in 0..8 {
        if open().1 == 0 {
            break;
        }
    }
    let (kept, heard) = open();
    assert_eq!(heard, 0, "nothing is measured again");
    let text = shelf.texts.lock().expect("no panic").values().next().cloned().expect("kept");
    for damage in ["", "{", &text.replace("\"key\"", "\"kex\""), &text.replace("matvec", "no_such")] {
        shelf.texts.lock().expect("no panic").values_mut().for_each(|text| *text = damage.into());
        let (again, heard) = open();
        assert!(heard > 0 && !again.choices.is_empty(), "{damage:?} is measured anew");
    }
    assert!(kept.few_from >= 2 && kept.wide_from >= kept.few_from, "{kept:?}");
}

#[test]
fn files_are_ignored_where_they_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = concertina::native::TuneFiles::at(dir.path().join("deep/tune"));
    assert_eq!(files.load("k"), None);
    files.store("k", "text");
    assert_eq!(files.load("k").as_deref(), Some("text"));
    assert_eq!(files.load("another"), None);
    std::fs::write(files.path("k"), [0xff, 0xfe]).expect("written");
    assert_eq!(files.load("k"), None, "not UTF-8");
    std::fs::write(dir.path().join("file"), "").expect("written");
    concertina::native::TuneFiles::at(dir.path().join("file/tune")).store("k", "no room");
}
