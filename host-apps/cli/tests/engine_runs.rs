//! The program with an engine behind it: tiny models with pseudo-random weights, on the CPU twins, so that no driver is
//! needed. `CONCERTINA_TEST_ADAPTER` names another adapter.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use concertina::formats::testing::TinyModel;
use serde_json::{Value, json};

/// A home with a model in it.
struct Home {
    dir: tempfile::TempDir,
    model: PathBuf,
}

impl Home {
    fn new(tiny: TinyModel) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("tiny.gguf");
        std::fs::write(&model, tiny.gguf()).unwrap();
        Self { dir, model }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let adapter = std::env::var("CONCERTINA_TEST_ADAPTER").unwrap_or_else(|_| "cpu".into());
        let mut command = Command::new(env!("CARGO_BIN_EXE_concertina"));
        command.args(args).env("HOME", self.dir.path()).env("CONCERTINA_CACHE", self.dir.path().join("cache"));
        command.env("CONCERTINA_MODEL", &self.model).env("CONCERTINA_ADAPTER", adapter).env_remove("RUST_LOG");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        assert_eq!(err(&output), "", "{args:?}: nothing but the answer where nobody looks");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn chat(&self, args: &[&str], lines: &str) -> Output {
        let mut child = self
            .command(&[&["chat"], args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Rows of logits after each of `tokens`.
    fn logits(&self, tokens: &[u64]) -> Vec<Vec<f64>> {
        let positions: Vec<usize> = (0..tokens.len()).collect();
        let input = self.file("tokens.json", &json!({"tokens": tokens, "positions": positions}).to_string());
        let out = self.dir.path().join("logits.npy");
        let output = self.run(&["eval", "logits", "--tokens", &input, "--out", out.to_str().unwrap(), "--exact"]);
        assert!(output.status.success(), "{}", err(&output));
        npy(&out, tokens.len())
    }

    /// Tokens of a text, as `run --raw` reads it.
    fn tokens(&self, text: &str) -> Vec<u64> {
        let report = self.json(&["run", "--raw", "--json", "--max-tokens", "1", text]);
        report["prompt_tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap()).collect()
    }
}

fn npy(path: &Path, rows: usize) -> Vec<Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let head = String::from_utf8_lossy(&bytes[..start]).into_owned();
    assert!(head.contains(&format!("'shape': ({rows}, ")), "{head}");
    let values: Vec<f64> =
        bytes[start..].chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    values.chunks(values.len() / rows).map(<[f64]>::to_vec).collect()
}

/// Log-probability of `token` by a row of logits.
fn log_probability(row: &[f64], token: u64) -> f64 {
    let most = row.iter().copied().fold(f64::MIN, f64::max);
    row[token as usize] - most - row.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn llama() -> Home {
    Home::new(TinyModel::new("llama"))
}

#[test]
fn run_tells_what_happened() {
    for arch in ["llama", "qwen2", "gemma3"] {
        let home = Home::new(TinyModel::new(arch));
        let report = home.json(&["run", "--greedy", "--max-tokens", "5", "--json", "--exact", "hello"]);
        assert_eq!(report["level"], 100);
        assert_eq!(report["exact"], true);
        let (tokens, finish) = (report["tokens"].as_array().unwrap().len(), report["finish"].as_str().unwrap());
        assert!(tokens == 5 && finish == "length" || tokens <= 5 && finish == "stop", "{report}");
        assert!(report["ttft_ms"].as_f64().unwrap() > 0.0);
        let again = home.json(&["run", "--greedy", "--max-tokens", "5", "--json", "hello"]);
        assert_eq!(report["tokens"], again["tokens"], "{arch}: greedy answers repeat");
    }
}

#[test]
fn greedy_takes_the_greatest_logit() {
    let home = llama();
    let tokens = home.tokens("the other one");
    let row = home.logits(&tokens).pop().unwrap();
    let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let report = home.json(&["run", "--raw", "--json", "--greedy", "--max-tokens", "1", "the other one"]);
    assert_eq!(report["tokens"][0], best);
}

#[test]
fn a_prompt_past_the_models_limit_is_refused() {
    let output = llama().run(&["run", "--raw", &"long words ".repeat(100)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("reads at most 256"), "{}", err(&output));
}

#[test]
fn perplexity_is_that_of_the_logits() {
    let home = llama();
    let text = "the other man in the water and the sand on the hill, a thing that is not there or here";
    let file = home.file("text.txt", text);
    let tokens = home.tokens(text);
    let window = 15;
    assert!(tokens.len() > 2 * window && tokens.len() % window > 1, "{}", tokens.len());
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks(window) {
        let rows = home.logits(window);
        for (row, next) in rows.iter().zip(&window[1..]) {
            sum -= log_probability(row, *next);
            count += 1;
        }
    }
    let report = home.json(&["eval", "ppl", "--file", &file, "--window", "15", "--json", "--exact"]);
    let near = |field: &str, wanted: f64| {
        let found = report[field].as_f64().unwrap();
        assert!((found / wanted - 1.0).abs() < 1e-4, "{field}: {found} and {wanted}");
    };
    near("nll_sum", sum);
    near("ppl", (sum / f64::from(count)).exp());
    assert_eq!(report["tokens"], count);
    assert_eq!(report["windows"], tokens.len().div_ceil(window));
    let (low, high) = (report["ppl_95"]["low"].as_f64().unwrap(), report["ppl_95"]["high"].as_f64().unwrap());
    assert!(low < report["ppl"].as_f64().unwrap() && report["ppl"].as_f64().unwrap() < high);
}

#[test]
fn one_window_has_no_interval_and_one_token_no_perplexity() {
    let home = llama();
    let report = home.json(&["eval", "ppl", "--file", &home.file("a.txt", "a few words"), "--json"]);
    assert_eq!((&report["windows"], &report["ppl_95"]), (&json!(1), &Value::Null));
    let short = home.run(&["eval", "ppl", "--file", &home.file("b.txt", "x"), "--json"]);
    assert!(err(&short).contains("fewer than two tokens"), "{}", err(&short));
    let wide = home.run(&["eval", "ppl", "--file", &home.file("a.txt", &"words ".repeat(99)), "--window", "1000"]);
    assert!(wide.status.code() == Some(1) && err(&wide).contains("--window 1000"), "{}", err(&wide));
}

#[test]
fn choices_are_scored_as_the_logits_say() {
    let home = llama();
    let context = "Question: which one\nAnswer:";
    let choices = [" the sand", " a hill", " in"];
    let score = |choice: &str| {
        let (alone, all) = (home.tokens(context), home.tokens(&format!("{context}{choice}")));
        let rows = home.logits(&all);
        (alone.len()..all.len()).map(|at| log_probability(&rows[at - 1], all[at])).sum::<f64>()
    };
    let scores: Vec<f64> = choices.iter().map(|choice| score(choice)).collect();
    let best = |values: &[f64]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    let per_byte: Vec<f64> = scores.iter().zip(choices).map(|(sum, choice)| sum / choice.len() as f64).collect();

    let line = |gold: usize| json!({"context": context, "choices": choices, "gold": gold}).to_string();
    let file = home.file("mc.jsonl", &format!("{}\n{}\n", line(best(&scores)), line(best(&per_byte))));
    let details = home.file("details.jsonl", "");
    let report = home.json(&["eval", "mc", "--file", &file, "--json", "--details", &details]);
    let same = if best(&scores) == best(&per_byte) { 2 } else { 1 };
    assert_eq!((&report["correct"], &report["correct_norm"]), (&json!(same), &json!(same)), "{report}");
    assert_eq!(report["questions"], 2);
    assert!(report["acc_95"]["low"].as_f64().unwrap() < report["acc"].as_f64().unwrap());

    let details = std::fs::read_to_string(details).unwrap();
    for (line, gold) in details.lines().zip([best(&scores), best(&per_byte)]) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["gold"], gold);
        for (found, wanted) in line["loglikelihood"].as_array().unwrap().iter().zip(&scores) {
            assert!((found.as_f64().unwrap() / wanted - 1.0).abs() < 1e-4, "{found} and {wanted}");
        }
    }
    assert_eq!(home.json(&["eval", "mc", "--file", &file, "--json", "--limit", "1"])["questions"], 1);
}

#[test]
fn logits_outside_the_vocabulary_are_refused() {
    let home = llama();
    let input = home.file("t.json", r#"{"tokens": [1, 100000], "positions": [0]}"#);
    let target = home.dir.path().join("g.npy");
    let output = home.run(&["eval", "logits", "--tokens", &input, "--out", target.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("tokens[1] is 100000"), "{}", err(&output));
    assert!(!target.exists());
}

#[test]
fn bench_prints_an_object_a_length() {
    let home = llama();
    for (kind, lengths) in [("prefill", "5,20"), ("decode", "1,3")] {
        let output = home.run(&["bench", kind, "--tokens", lengths, "--runs", "2", "--json"]);
        assert!(output.status.success(), "{}", err(&output));
        let lines: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        for (line, tokens) in lines.iter().zip(lengths.split(',')) {
            assert_eq!((line["kind"].as_str(), line["tokens"].to_string()), (Some(kind), tokens.to_owned()));
            assert_eq!(line["runs"].as_array().unwrap().len(), 2);
            let (ms, rate) = (line["ms"].as_f64().unwrap(), line["tokens_per_s"].as_f64().unwrap());
            assert!((ms * rate / 1e3 / tokens.parse::<f64>().unwrap() - 1.0).abs() < 1e-9, "{line}");
        }
    }
    let long = home.run(&["bench", "prefill", "--tokens", "100000"]);
    assert!(err(&long).contains("256 tokens"), "{}", err(&long));
}

#[test]
fn bench_takes_contexts_levels_and_widths() {
    let home = llama();
    let lines = |args: &[&str]| -> Vec<Value> {
        let output = home.run(&[&["bench"], args, &["--runs", "1", "--json"]].concat());
        assert!(output.status.success(), "{}", err(&output));
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let cases = |lines: &[Value]| -> Vec<(u64, u64, u64)> {
        let number = |line: &Value, name: &str| line[name].as_u64().unwrap();
        lines.iter().map(|line| (number(line, "level"), number(line, "context"), number(line, "tokens"))).collect()
    };
    let decode = lines(&["decode", "--context", "40,7", "--level", "50,100", "--kv-bits", "4", "--tokens", "20"]);
    assert_eq!(cases(&decode), [(50, 40, 20), (50, 7, 20), (100, 40, 20), (100, 7, 20)]);
    assert!(decode.iter().all(|line| line["kv_bits"] == 4 && line["ms"].as_f64().unwrap() > 0.0));
    let prefill = lines(&["prefill", "--level", "25,100", "--tokens", "5,9"]);
    assert_eq!(cases(&prefill), [(25, 0, 5), (25, 0, 9), (100, 0, 5), (100, 0, 9)]);
    let exact = lines(&["decode", "--exact", "--tokens", "1"]);
    assert_eq!((&exact[0]["kv_bits"], &exact[0]["context"]), (&json!(32), &json!(16)));

    let (some, all) = (&decode[0]["size"], &decode[2]["size"]);
    assert_eq!((&all["groups"], &all["neurons"]), (&all["all_groups"], &all["all_neurons"]));
    assert_eq!(all["share"], 1.0);
    let bytes = |size: &Value, name: &str| size[name].as_f64().unwrap();
    let [layers, whole] = ["weight_bytes_of_layers", "weight_bytes_per_token"];
    assert_eq!(some["share"].as_f64().unwrap(), bytes(some, layers) / bytes(all, layers), "{some}");
    assert_eq!(bytes(some, whole) - bytes(some, layers), bytes(all, whole) - bytes(all, layers), "the head is whole");
    assert!(bytes(some, layers) < bytes(all, layers), "{some}");

    let long = home.run(&["bench", "decode", "--context", "250", "--tokens", "20"]);
    assert!(err(&long).contains("need 271 tokens"), "{}", err(&long));
    let text = out(&home.run(&["bench", "decode", "--level", "50", "--kv-bits", "8", "--tokens", "2", "--runs", "1"]));
    assert!(text.starts_with("decode of 2 tokens after 16 at level 50 with 8 bits: "), "{text}");
}

#[test]
fn chat_answers_each_line_of_a_pipe() {
    let home = llama();
    let lines = "hello there\n/stats\n\nand again\n/stats\n/what\n/clear\n/stats\n/help\n";
    let output = home.chat(&["--greedy", "--max-tokens", "4"], lines);
    assert!(output.status.success(), "{}", err(&output));
    let first = home.json(&["run", "--greedy", "--max-tokens", "4", "--json", "hello there"]);
    let text = first["text"].as_str().unwrap();
    assert!(out(&output).starts_with(&format!("{text}\n")), "{:?} and {text:?}", out(&output));
    let kept: Vec<u64> = err(&output)
        .lines()
        .filter_map(|line| line.split_once(" read for this answer, ")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert!(kept.len() == 2 && kept[0] == 0 && kept[1] > 10, "the beginning is not read again: {kept:?}");
    for part in ["no command /what", "(a new conversation)", "no answer yet", "/quit"] {
        assert!(err(&output).contains(part), "{part}: {}", err(&output));
    }
}

#[test]
fn chat_does_not_answer_a_base_model_but_continues_it() {
    let home = Home::new(TinyModel { chat_template: None, ..TinyModel::new("llama") });
    let output = home.chat(&["--greedy", "--max-tokens", "3"], "one two\n");
    let raw = home.json(&["run", "--raw", "--greedy", "--max-tokens", "3", "--json", "one two"]);
    assert_eq!(out(&output), format!("{}\n", raw["text"].as_str().unwrap()), "{}", err(&output));
    let refused = home.chat(&["--system", "s"], "x\n");
    assert!(refused.status.code() == Some(1) && err(&refused).contains("no chat template"), "{}", err(&refused));
}

#[test]
fn a_full_context_drops_old_turns_and_says_so() {
    let home = llama();
    let lines = "a question of some words\n".repeat(6);
    let output = home.chat(&["--greedy", "--max-tokens", "8", "--context", "128"], &lines);
    assert!(output.status.success(), "{}", err(&output));
    assert!(err(&output).contains("messages were dropped"), "{}", err(&output));

    let long = home.chat(&["--context", "64"], &format!("{}\n", "far too long ".repeat(40)));
    assert_eq!(long.status.code(), Some(1), "a script learns of it");
    assert!(err(&long).contains("room for 64"), "{}", err(&long));
    let cut = home.chat(&["--greedy", "--context", "48"], "hello\n/stats\n");
    assert!(err(&cut).contains("the answer was cut off") || out(&cut).len() < 48, "{}", err(&cut));
    let more = home.chat(&["--context", "1000"], "x\n");
    assert!(err(&more).contains("--context 1000"), "{}", err(&more));
}

/// A real signal in the middle of an answer.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_not_the_chat() {
    let home = Home::new(TinyModel { context_len: 100_000, ..TinyModel::new("llama") });
    let mut child = home
        .command(&["chat", "--greedy", "--max-tokens", "90000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    // Read on so that the program never waits for us; it answers the next line too, and ends at the end of input.
    stdin.write_all(b"/stats\n").unwrap();
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, err(&output));
    assert!(err(&output).contains("(stopped)") && err(&output).contains("stopped by you"), "{}", err(&output));
}

#[test]
fn a_target_is_planned_for_and_what_came_of_it_is_told() {
    let home = Home::new(TinyModel::new("llama"));
    let args = ["run", "--greedy", "--max-tokens", "3", "--json", "--class", "quick", "some words to read"];
    // The first measures the levels, and so has compiled for all of them; the second finds the profile.
    home.json(&args);
    let value = home.json(&args);
    let slo = &value["slo"];
    assert_eq!((&slo["encoder"], &slo["prompt_level"]), (&json!("none"), &json!(100)), "{slo}");
    assert_eq!(slo["level"], value["level"]);
    assert!(slo["prompt_tokens"].as_u64().unwrap() > 0 && slo["prompt_tokens"] == slo["kept_tokens"], "{slo}");
    for number in ["predicted_ttft_ms", "predicted_tpot_ms", "ttft_ms", "target_ttft_ms"] {
        assert!(slo[number].as_f64().unwrap() > 0.0, "{number}: {slo}");
    }
    // Nothing is left to compile where a busy machine made it measure the levels again.
    assert!(slo["ready_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{slo}");
    // A level alone needs no prediction, and nothing is measured for it.
    let fixed = home.json(&["run", "--greedy", "--max-tokens", "3", "--json", "--level", "40", "some words"]);
    assert_eq!((&fixed["slo"], &fixed["level"]), (&Value::Null, &json!(40)));

    let chat = home.chat(&["--greedy", "--max-tokens", "3", "--no-history", "--class", "quick"], "hello\n");
    assert!(chat.status.success(), "{}", err(&chat));
    assert!(err(&chat).contains("predicted") && err(&chat).contains("tokens (encoder none)"), "{}", err(&chat));

    // What stands before a prompt can be shortened without an encoder: its last words are left, and the prompt.
    let passage = home.file("passage.txt", &"a word and another ".repeat(10));
    let before = ["run", "--greedy", "--max-tokens", "3", "--json", "--prompt-level", "40", "--passage", &passage];
    let value = home.json(&[&before[..], &["which"]].concat());
    let (words, kept) = (&value["slo"]["prompt_words"], &value["slo"]["kept_words"]);
    assert_eq!((words, kept, &value["slo"]["encoder"]), (&json!(41), &json!(17), &json!("none")), "{value}");
    let refused = home.run(&["run", "--passage", &passage, "--examples", &passage, "which"]);
    assert!(!refused.status.success() && err(&refused).contains("cannot be used with"), "{}", err(&refused));
    let refused = home.run(&["run", "--passage", "not/there.txt", "which"]);
    assert!(!refused.status.success() && err(&refused).contains("not/there.txt"), "{}", err(&refused));

    // Otherwise, without an encoder nothing can be shortened.
    let refused = home.run(&["run", "--prompt-level", "40", "some words"]);
    assert!(!refused.status.success() && err(&refused).contains("takes an encoder"), "{}", err(&refused));
    let refused = home.chat(&["--no-history", "--prompt-level", "40"], "hello\n");
    assert!(!refused.status.success() && err(&refused).contains("takes an encoder"), "{}", err(&refused));
    let id = out(&home.run(&["ctx", "new"])).trim().to_owned();
    let asked =
        ["ctx", "ask", &id, "--greedy", "--max-tokens", "3", "--json", "--prompt-level", "40", "--passage", &passage];
    let value = home.json(&[&asked[..], &["which"]].concat());
    assert_eq!((&value["slo"]["prompt_words"], &value["slo"]["kept_words"]), (&json!(41), &json!(17)), "{value}");
    for command in ["ask", "append"] {
        let refused = home.run(&["ctx", command, &id, "--prompt-level", "40", "some words"]);
        assert!(!refused.status.success() && err(&refused).contains("takes an encoder"), "{}", err(&refused));
    }
}
