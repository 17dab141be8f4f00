//! `tune` and `bench kernels` with a tiny model. They measure an adapter, so without one they skip, and say so.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use concertina::formats::testing::TinyModel;
use serde_json::Value;

/// Runs the program on a tiny model in `home`. `None` where there is no adapter.
fn concertina(home: &Path, args: &[&str]) -> Option<Output> {
    let model = home.join("tiny.gguf");
    std::fs::write(&model, TinyModel::new("llama").gguf()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_concertina"));
    command.args(args).env("HOME", home).env("CONCERTINA_CACHE", home.join("cache")).env("CONCERTINA_MODEL", model);
    command.env_remove("CONCERTINA_ADAPTER").env_remove("RUST_LOG");
    let output = command.output().unwrap();
    if err(&output).contains("no GPU adapter was found") {
        eprintln!("skipped: no adapter");
        return None;
    }
    Some(output)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", err(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tune_tells_what_it_found_and_keeps_it() {
    let home = tempfile::tempdir().unwrap();
    let Some(output) = concertina(home.path(), &["tune", "--json"]) else { return };
    let report = json(&output);
    assert_eq!(report["complete"], true, "{report}");
    let role = &report["roles"][0];
    assert_eq!(role["family"], "narrow");
    let candidates = role["candidates"].as_array().unwrap();
    let chosen = candidates.iter().find(|c| c["variant"] == role["chosen"]).expect("one of them");
    assert!(chosen["ns"].as_f64().unwrap() > 0.0 && chosen["error"].as_f64().unwrap() < 1e-4, "{chosen}");
    assert_eq!(std::fs::read_dir(home.path().join("cache/tune")).unwrap().count(), 1);

    let text = out(&concertina(home.path(), &["tune", "--seconds", "1"]).unwrap());
    for word in ["GFLOP/s", "parity", "* matvec", "batches: narrow below"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// What the kernels of each pass take of it together.
fn shares_of(report: &Value) -> Vec<f64> {
    let of = |pass: &Value| pass["kernels"].as_array().unwrap().iter().map(|k| k["share"].as_f64().unwrap()).sum();
    report["passes"].as_array().unwrap().iter().map(of).collect()
}

fn a_matrix_is_rated(pass: &Value) -> bool {
    let kernels = pass["kernels"].as_array().unwrap();
    kernels.iter().any(|k| k["matrix"] == true && k["gflop_s"].as_f64().is_some_and(|g| g > 0.0))
}

#[test]
fn kernels_are_told_drawn_and_remembered() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let [trace, svg, history] = ["pass.json", "roofline.svg", "kernels.jsonl"].map(path);
    let files = ["--trace", &trace, "--svg", &svg, "--history", &history];
    let size = ["bench", "kernels", "--context", "20", "--prefill", "24", "--passes", "2", "--json"];
    let Some(output) = concertina(home.path(), &[&size[..], &files[..]].concat()) else { return };
    if err(&output).contains("no timestamps") {
        eprintln!("skipped: no timestamps");
        return;
    }
    let report = json(&output);
    assert!(report["ceilings"]["copy_gb_s"].as_f64().unwrap() > 0.0, "{report}");
    // Parts and the whole are not measured in the same passes, so what else the machine does tells them apart and hides the rates of
    // kernels this small: one quiet run of a few is enough.
    let near = |of: &Value| shares_of(of).iter().all(|share| (0.8..1.2).contains(share));
    let rated = |of: &Value| of["passes"].as_array().unwrap().iter().all(a_matrix_is_rated);
    let mut runs = vec![report.clone()];
    while runs.len() < 6 && !(runs.iter().any(near) && runs.iter().any(rated)) {
        runs.push(json(&concertina(home.path(), &size).unwrap()));
    }
    let shares: Vec<_> = runs.iter().map(shares_of).collect();
    assert!(runs.iter().any(near), "medians of parts are near the median of the whole: {shares:?}");
    assert!(runs.iter().any(rated), "of the matrix kernels of a pass some have a rate: {report}");
    for pass in report["passes"].as_array().unwrap() {
        let kernels = pass["kernels"].as_array().unwrap();
        let count: u64 = kernels.iter().map(|k| k["count"].as_u64().unwrap()).sum();
        assert_eq!(pass["dispatches"], count);
        assert!(kernels.iter().all(|k| k["bytes"].as_f64().is_some_and(|b| b > 0.0)), "every cost is known: {pass}");
    }
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let whole: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
    let dispatches: u64 = report["passes"].as_array().unwrap().iter().map(|p| p["dispatches"].as_u64().unwrap()).sum();
    assert_eq!(whole.len() as u64, dispatches);
    let ends_before_next = |pair: &[&Value]| {
        let number = |e: &Value, name: &str| e[name].as_f64().unwrap();
        pair[0]["tid"] != pair[1]["tid"]
            || number(pair[0], "ts") + number(pair[0], "dur") <= number(pair[1], "ts") + 1e-3
    };
    assert!(whole.windows(2).all(ends_before_next));
    for (file, word) in [(svg, "operations a byte"), (path("kernels.svg"), "1 runs on")] {
        let svg = std::fs::read_to_string(&file).unwrap();
        assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains(word), "{file}");
    }
    assert_eq!(std::fs::read_to_string(history).unwrap().lines().count(), 1);

    let cut = json(&concertina(home.path(), &[&size[..], &["--level", "50"]].concat()).unwrap());
    assert_eq!((&cut["level"], &report["level"], &report["size"]["share"]), (&50.into(), &100.into(), &1.0.into()));
    assert!(cut["size"]["share"].as_f64().unwrap() < 1.0, "{}", cut["size"]);
    // Bytes and operations that a level does not cut are the same, and the others are fewer.
    for (small, whole) in cut["passes"].as_array().unwrap().iter().zip(report["passes"].as_array().unwrap()) {
        let flops = |pass: &Value, cut: bool| -> f64 {
            let kernels = pass["kernels"].as_array().unwrap().iter().filter(|k| k["cut"] == cut);
            kernels.map(|k| k["flops"].as_f64().unwrap() * k["count"].as_f64().unwrap()).sum()
        };
        assert!((flops(small, false) / flops(whole, false) - 1.0).abs() < 1e-9, "{small} {whole}");
        assert!(flops(small, true) < 0.9 * flops(whole, true), "{small} {whole}");
    }

    let text = out(&concertina(home.path(), &size[..8]).unwrap());
    for word in ["ceilings: copy kernel", "matrix kernels:", "which is taken off"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// A copy of the shaders with one changed harmlessly, one broken and one wrong: seen at the first look.
#[test]
fn changed_shaders_are_checked_and_measured() {
    let home = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shaders/wgsl");
    let wgsl = home.path().join("wgsl");
    for folder in ["", "shared", "roofline"] {
        std::fs::create_dir_all(wgsl.join(folder)).unwrap();
        for entry in std::fs::read_dir(source.join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                std::fs::copy(entry.path(), wgsl.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    let edit = |name: &str, change: &dyn Fn(String) -> String| {
        let text = std::fs::read_to_string(wgsl.join(name)).unwrap();
        let changed = change(text.clone());
        assert_ne!(text, changed, "{name}");
        std::fs::write(wgsl.join(name), changed).unwrap();
    };
    edit("matvec.wgsl", &|text| text + "// harmless\n");
    edit("matmul.wgsl", &|text| text + "nonsense\n");
    edit("matvec_wide.wgsl", &|text| text.replace("total += partial[", "total += 2.0 * partial["));
    let args = ["bench", "kernels", "--watch", wgsl.to_str().unwrap(), "--looks", "1"];
    let Some(output) = concertina(home.path(), &args) else { return };
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let lines = |kernel: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with(&format!("{kernel}."))).map(str::to_owned).collect()
    };
    let all = |kernel: &str, word: &str| {
        let lines = lines(kernel);
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(word)), "{word}: {text}");
    };
    all("matvec", "% against");
    all("matmul", "REFUSED");
    assert!(text.contains("nonsense"), "the compiler's words: {text}");
    all("matvec_wide", "off by");
    assert!(lines("matvec_wide").iter().all(|line| line.contains("REFUSED")), "{text}");

    let nowhere = concertina(home.path(), &["bench", "kernels", "--watch", home.path().to_str().unwrap()]).unwrap();
    assert!(!nowhere.status.success() && err(&nowhere).contains("shaders/wgsl"), "{}", err(&nowhere));
}
