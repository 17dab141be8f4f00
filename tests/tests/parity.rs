//! Every kernel variant against its CPU twin, on one adapter or several, and wrong kernels that must be caught.
//!
//! - `CONCERTINA_SEED`: seed of all contents; printed, and fresh unless set.
//! - `CONCERTINA_TEST_ADAPTERS`: adapters by name or number, with commas between; else the best one.
//! - `CONCERTINA_TEST_KERNELS`: kernels, or variants by the beginning of their names, with commas between; else all.

#![allow(clippy::print_stdout)] // what was skipped, and how close each kernel came, is for the reader of the log

use std::collections::BTreeMap;

use concertina_formats::testing::Rng;
use concertina_formats::{DType, dequant::dequantize_row};
use concertina_shaders::{Step, VARIANTS, Variant, WeightFormat, twins, variant};
use concertina_tests::parity::{
    Buffer, Case, Compare, GUARD, Image, MUTANTS, Out, POISON, Runner, cases, check, random_block, seed, test_adapters,
};

/// Kernels that this run tests.
const CHOSEN: &str = "CONCERTINA_TEST_KERNELS";

/// Whether this run tests a variant.
fn chosen(variant: &Variant) -> bool {
    let is = |name: &str| variant.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    std::env::var(CHOSEN).map_or(true, |names| names.split(',').any(|name| is(name.trim())))
}

#[test]
fn every_variant_matches_its_twin() {
    let seed = seed();
    println!("seed {seed}");
    let mut failures = Vec::new();
    for runner in &mut test_adapters().expect("an adapter") {
        println!("{}", runner.name());
        // Worst normalised error by kernel, with its bound; cases.
        let mut worst: BTreeMap<&str, (f64, f64, usize)> = BTreeMap::new();
        let mut ran = 0;
        for variant in VARIANTS.iter().filter(|v| chosen(v)) {
            if let Some(why) = runner.lacks(variant) {
                println!("  skipped {}: {why}", variant.name);
                continue;
            }
            ran += 1;
            for case in cases(variant, seed) {
                let outcome = runner.run(&case).unwrap_or_else(|e| panic!("{}: {}: {e}", variant.name, case.name));
                match outcome {
                    Ok(report) => {
                        let entry = worst.entry(variant.kernel).or_default();
                        entry.2 += 1;
                        if report.bound > 0.0 && report.norm >= entry.0 {
                            (entry.0, entry.1) = (report.norm, report.bound);
                        }
                    }
                    Err(e) => failures.push(format!(
                        "{}: {}: {}\n    on {}, CONCERTINA_SEED={seed}",
                        variant.name,
                        case.name,
                        e.0,
                        runner.name()
                    )),
                }
            }
        }
        for (kernel, (norm, bound, cases)) in worst {
            let close = if bound > 0.0 {
                format!("normalised error at most {norm:.1e} of {bound:.0e}")
            } else {
                "exact".into()
            };
            println!("  {kernel:12} {cases:4} cases, {close}");
        }
        // A variant without features runs everywhere.
        let plain = |v: &&Variant| chosen(v) && !v.subgroups && !v.f16 && !v.coop;
        let plain = VARIANTS.iter().filter(plain).count();
        assert!(ran >= plain, "{ran} variants ran of {plain} that need no feature");
    }
    let shown: Vec<&str> = failures.iter().take(40).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), shown.join("\n"));
}

/// Subgroups of 4 and 16 lanes, as GPUs have them, where Mesa's software driver is the adapter: it takes their size from its
/// environment, when it is loaded. Others do not heed that.
#[test]
fn subgroups_may_have_other_sizes() {
    const KERNELS: &str = "matvec.q4_1,matvec_wide.q4_1,matmul.q4_1,rope_kv,rms_norm,layer_norm,attn_dense";
    if std::env::var_os(CHOSEN).is_some() {
        return;
    }
    for bits in ["128", "512"] {
        // What the driver keeps of compiled shaders does not tell their sizes apart.
        let cache = tempfile::tempdir().expect("a directory");
        let status = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["every_variant_matches_its_twin", "--exact", "--nocapture"])
            .env("LP_NATIVE_VECTOR_WIDTH", bits)
            .env("MESA_SHADER_CACHE_DIR", cache.path())
            .env(CHOSEN, KERNELS)
            .status();
        assert!(status.expect("this test again").success(), "with vectors of {bits} bits");
    }
}

#[test]
fn every_planted_wrong_kernel_is_caught() {
    let seed = seed();
    println!("seed {seed}");
    for runner in &mut test_adapters().expect("an adapter") {
        println!("{}", runner.name());
        let (mut survivors, mut caught) = (Vec::new(), 0);
        for mutant in MUTANTS {
            let right = variant(mutant.variant).unwrap_or_else(|| panic!("no variant {}", mutant.variant));
            if !chosen(right) {
                continue;
            }
            let small = mutant.subgroup_over > 0 && runner.subgroup_size() <= mutant.subgroup_over;
            if let Some(why) = runner.lacks(right).or(small.then_some("the subgroups are too small for it to matter")) {
                println!("  skipped {} with {}: {why}", mutant.variant, mutant.what);
                continue;
            }
            let wrong = mutant.plant().unwrap_or_else(|e| panic!("{e}"));
            let found = cases(wrong, seed).iter().find_map(|case| {
                let outcome = runner.run(case).unwrap_or_else(|e| panic!("{} does not run: {e}", wrong.name));
                outcome.err()
            });
            match found {
                Some(_) => caught += 1,
                None => survivors.push(wrong.name),
            }
        }
        println!("  {caught} of {} wrong kernels caught", caught + survivors.len());
        assert!(survivors.is_empty(), "CONCERTINA_SEED={seed}: not caught:\n{}", survivors.join("\n"));
    }
}

/// What a correct dispatch leaves, corrupted in every way that the judge claims to see.
#[test]
fn the_judge_sees_every_kind_of_damage() {
    let case = tiny_case();
    let before = Image::of(&case, 256);
    let mut good = before.clone();
    for (at, value) in [(2, 1.0f32), (3, -2.0)] {
        good.arenas[1][good.places[2].first + at] = value.to_bits();
    }
    check(&case, &before, &good, &good).expect("nothing is wrong");
    let (input, output) = (before.places[1], before.places[2]);
    let damages: [(&str, usize, usize, u32); 9] = [
        ("the word before an output", 1, output.first - 1, 0),
        ("the word after an output", 1, output.first + output.len, 0),
        ("the first word of an arena", 0, 0, 0),
        ("an input", 0, input.first, 1),
        ("padding before what is written", 1, output.first + 1, POISON ^ 1),
        ("slack", 1, output.first + output.len - 1, GUARD),
        ("an element that is not written", 1, output.first + 2, POISON),
        ("an infinity", 1, output.first + 2, f32::INFINITY.to_bits()),
        ("an element a little off", 1, output.first + 3, (-2.001f32).to_bits()),
    ];
    for (what, arena, word, value) in damages {
        let mut bad = good.clone();
        bad.arenas[arena][word] = value;
        assert!(check(&case, &before, &good, &bad).is_err(), "{what} was not seen");
        if what != "an element a little off" {
            assert!(check(&case, &before, &bad, &good).is_err(), "{what} of the twin was not seen");
        }
    }
}

/// `gather_rows` with an output whose words 2 and 3 are written.
fn tiny_case() -> Case {
    let mut y = Out::new(5);
    y.expect(2..4);
    let buffers = vec![Buffer::none(), Buffer::floats(&[1.0, -2.0]), y.output(Compare::f32(1e-5))];
    let work = [concertina::record::Work::Rows; 2];
    let params = concertina_shaders::GatherParams::default();
    Case::new(variant("gather_rows").expect("in the table"), "tiny", Step::default(), params, work, buffers)
}

/// A kernel that the device refuses is an error of the run, never a wrong kernel that was caught.
#[test]
fn a_shader_that_does_not_compile_is_an_error() {
    let mut runner = Runner::open(None).expect("an adapter");
    let broken = concertina_tests::parity::Mutant {
        variant: "gather_rows",
        what: "a word that is no WGSL",
        from: "step.out_rows",
        to: "nonsense",
        subgroup_over: 0,
    };
    let wrong = broken.plant().expect("the text is there");
    assert!(runner.run(&cases(wrong, 1)[0]).is_err());
    let right = variant("gather_rows").expect("in the table");
    runner.run(&cases(right, 1)[0]).expect("the device still works").expect("and is right");
}

#[test]
fn twins_decode_blocks_as_the_file_formats_define_them() {
    let seed = seed();
    for (format, dtype) in WeightFormat::ALL.into_iter().zip(DType::ALL) {
        assert_eq!(format.name(), format!("{dtype:?}").to_lowercase(), "the lists have one order");
        let mut rng = Rng::named(seed, format.name());
        for _ in 0..500 {
            let block = random_block(format, &mut rng);
            let (mut twin, mut independent) = (vec![0f32; format.panel_cols()], vec![0f32; format.panel_cols()]);
            twins::decode_block(format, &block, &mut twin);
            dequantize_row(dtype, &block, &mut independent).expect("whole blocks");
            for (i, (a, b)) in twin.iter().zip(&independent).enumerate() {
                // One may round once more than the other: d·(q − 8) against d·q − 8d.
                let close = (a - b).abs() <= 1e-6 * (a.abs() + b.abs()).max(1e-3);
                assert!(close, "{format:?} element {i}: {a} and {b}; CONCERTINA_SEED={seed}, block {block:02x?}");
            }
        }
    }
}
