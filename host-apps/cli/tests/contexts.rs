//! `concertina ctx` and `concertina store`, each call a process, on a tiny model and the CPU twins.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use concertina::formats::testing::TinyModel;
use serde_json::{Value, json};

/// A home with a model in it. The store goes to the default place.
struct Home {
    dir: tempfile::TempDir,
    model: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("tiny.gguf");
        std::fs::write(&model, TinyModel::new("llama").gguf()).unwrap();
        Self { dir, model }
    }

    fn command(&self, args: &[&str]) -> Command {
        let adapter = std::env::var("CONCERTINA_TEST_ADAPTER").unwrap_or_else(|_| "cpu".into());
        let mut command = Command::new(env!("CARGO_BIN_EXE_concertina"));
        command.args(args).env("HOME", self.dir.path()).env("CONCERTINA_CACHE", self.dir.path().join("cache"));
        command.env("CONCERTINA_STORE", self.store()).env_remove("RUST_LOG").env("CONCERTINA_ADAPTER", adapter);
        command.env("CONCERTINA_MODEL", &self.model).stdin(Stdio::null());
        command
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("data").join("contexts")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        out(&output)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// What a command that fails says.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?}");
        err(&output)
    }

    /// A command with a model that cannot be opened: it must do without.
    fn without_model(&self, args: &[&str]) -> String {
        let output = self.command(args).env("CONCERTINA_MODEL", "nowhere.gguf").output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        out(&output)
    }

    fn new_context(&self, args: &[&str]) -> String {
        self.ok(&[&["ctx", "new"], args].concat()).trim_end().to_owned()
    }

    fn fed(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|usage| usage["id"].as_str().unwrap()).collect()
}

#[test]
fn a_conversation_goes_on_from_process_to_process() {
    let home = Home::new();
    let id = home.new_context(&["--system", "the sand"]);
    assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let before = home.json(&["ctx", "show", &id])["tokens"].as_u64().unwrap();

    let first = home.json(&["ctx", "ask", &id, "hello", "--greedy", "--max-tokens", "5"]);
    let after = first["context_tokens"].as_u64().unwrap();
    assert!(after > before && first["ttft_ms"].as_f64().unwrap() > 0.0, "{first}");

    let second = home.run(&["ctx", "ask", &id, "the water", "--greedy", "--max-tokens", "5"]);
    assert!(second.status.success(), "{}", err(&second));
    let status = err(&second);
    for part in ["tokens in context", "chunks read", "recomputed", "ready after", "first token after", "tokens/s"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let shown = home.json(&["ctx", "show", &id]);
    let text = shown["text"].as_str().unwrap();
    for said in ["the sand", "hello", "the water", out(&second).trim_end()] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(shown["disk_bytes"].as_u64().unwrap() > 0, "{shown}");
    let tokens = home.json(&["ctx", "show", &id, "--tokens"])["token_ids"].as_array().unwrap().len();
    assert_eq!(shown["tokens"], tokens);
}

#[test]
fn answers_are_those_of_one_process() {
    let home = Home::new();
    let (id, twin) = (home.new_context(&[]), home.new_context(&[]));
    let policy = ["--policy", "ours-no-compression", "--json", "--greedy", "--max-tokens", "6"];
    let text = "the other man in the water and the sand on the hill";
    let mut apart = Vec::new();
    for message in [text, "a thing"] {
        apart.push(home.json(&[&["ctx", "ask", &id, message], &policy[..2], &policy[3..]].concat())["tokens"].clone());
    }
    let asks = format!(
        "ask {twin} '{text}' --greedy --max-tokens 6 --json\nask {twin} 'a thing' --greedy --max-tokens 6 --json\n"
    );
    let output = home.fed(&["ctx", "shell", policy[0], policy[1]], &asks);
    assert!(output.status.success(), "{}", err(&output));
    let together: Vec<Value> =
        out(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["tokens"].clone()).collect();
    assert_eq!(apart, together);
}

#[test]
fn what_needs_no_model_loads_none() {
    let home = Home::new();
    assert_eq!(home.without_model(&["ctx", "list", "--json"]).trim_end(), "[]");
    assert!(!home.store().exists(), "looking changes nothing");
    let id = home.new_context(&["--app", "mail"]);
    home.ok(&["ctx", "append", &id, "--app", "mail", &"the water ".repeat(20)]);
    let mine = home.new_context(&[]);
    let fork = home.without_model(&["ctx", "fork", &id, "--app", "mail", "--keep", "17"]);
    home.without_model(&["ctx", "pin", &id, "--app", "mail"]);
    let list = |args: &[&str]| -> Value {
        let args = [&["ctx", "list", "--json"], args].concat();
        serde_json::from_str(&home.without_model(&args)).unwrap()
    };
    let mail = list(&["--app", "mail"]);
    assert_eq!(ids(&mail).len(), 2);
    let of = |id: &str| mail.as_array().unwrap().iter().find(|usage| usage["id"] == id).unwrap().clone();
    let (original, forked) = (of(&id), of(fork.trim_end()));
    assert_eq!((&original["pinned"], &forked["pinned"]), (&json!(true), &json!(false)));
    assert_eq!((&forked["tokens"], &forked["disk_chunks"], &forked["state"]), (&json!(17), &json!(1), &json!("disk")));
    assert!(original["disk_chunks"].as_u64().unwrap() > 1 && original["memory_bytes"] == 0, "{original}");
    assert_eq!(ids(&list(&[])), [mine.as_str()]);
    assert_eq!(ids(&list(&["--all-apps"])).len(), 3);
    let table = home.without_model(&["ctx", "list", "--app", "mail"]);
    assert!(table.starts_with("ID ") && table.contains(&id) && table.contains("yes"), "{table}");

    home.without_model(&["ctx", "unpin", &id, "--app", "mail"]);
    home.without_model(&["ctx", "delete", &id, "--app", "mail"]);
    assert_eq!(ids(&list(&["--app", "mail"])), [fork.trim_end()]);
    assert!(home.without_model(&["ctx", "show", "--tokens", &mine]).contains(&mine));
    let stats: Value = serde_json::from_str(&home.without_model(&["store", "stats", "--json"])).unwrap();
    assert_eq!((&stats["contexts"], &stats["tokens"]), (&json!(2), &json!(17)));
}

#[test]
fn texts_are_measured_appended_and_compacted() {
    let home = Home::new();
    let text = "the other man in the water and the sand on the hill";
    let measured = home.ok(&["ctx", "measure", text]).trim_end().parse::<u64>().unwrap();
    assert!(!home.store().exists());
    assert_eq!(out(&home.fed(&["ctx", "measure", "-"], &format!("{text}\n"))).trim_end(), measured.to_string());
    let id = home.new_context(&[]);
    let appended = home.fed(&["ctx", "append", &id, "-", "--json"], text);
    assert!(appended.status.success(), "{}", err(&appended));
    let appended: Value = serde_json::from_slice(&appended.stdout).unwrap();
    let count = appended["context_tokens"].as_u64().unwrap();
    assert!(count == measured || count == measured + 1, "with the token that begins texts: {count}, {measured}");
    let again = home.json(&["ctx", "append", &id, text]);
    assert_eq!(again["context_tokens"], count + measured);
    let compacted = home.json(&["ctx", "compact", &id, "--keep", "3", "--to", "20"]);
    let left = compacted["context_tokens"].as_u64().unwrap();
    assert!(left <= 20 && compacted["dropped_tokens"] == count + measured - left, "{compacted}");
    home.json(&["ctx", "prewarm", &id]);
    assert_eq!(home.json(&["ctx", "show", &id])["tokens"], left);
}

#[test]
fn the_shell_shows_what_is_in_memory() {
    let home = Home::new();
    let id = home.new_context(&[]);
    home.ok(&["ctx", "append", &id, &"the water ".repeat(20)]);
    let lines =
        format!("list --json\nprewarm {id}\n\n# a remark\nlist --json\nlist\npin {id}\nlist --json\nquit\nlist\n");
    let output = home.fed(&["ctx", "shell"], &lines);
    assert!(output.status.success(), "{}", err(&output));
    let text = out(&output);
    let lists: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [before, after, pinned] = &lists[..] else { panic!("{text}") };
    assert_eq!((&before[0]["state"], &before[0]["memory_bytes"]), (&json!("disk"), &json!(0)));
    assert_eq!(after[0]["state"], "memory");
    assert!(after[0]["memory_bytes"].as_u64().unwrap() > 0 && after[0]["evicted_after"] == 0, "{after}");
    assert!(!after[0]["widths"].as_object().unwrap().is_empty());
    assert_eq!((&pinned[0]["evicted_after"], &pinned[0]["pinned"]), (&Value::Null, &json!(true)));
    assert!(text.contains("b×") && text.contains("of memory in use"), "{text}");

    let help = home.fed(&["ctx", "shell"], "help\nhelp ask\n");
    assert!(help.status.success() && out(&help).contains("prewarm") && out(&help).contains("--max-tokens"));
    let bad = home.fed(&["ctx", "shell"], "frobnicate\nlist\n");
    assert_eq!(bad.status.code(), Some(1));
    assert!(err(&bad).contains("frobnicate") && out(&bad).is_empty(), "{}", err(&bad));
}

#[test]
fn errors_name_what_is_wrong() {
    let home = Home::new();
    let ghost = "0123456789abcdef";
    assert!(home.fails(&["ctx", "ask", ghost, "hi"]).contains("concertina ctx new"), "there is no store yet");
    assert!(home.fails(&["store", "check"]).contains("there is no store"));
    assert!(!home.store().exists());
    let id = home.new_context(&[]);
    for args in [&["ctx", "ask", ghost, "hi"][..], &["ctx", "show", ghost], &["ctx", "fork", ghost]] {
        assert!(home.fails(args).contains("has no context 0123456789abcdef"), "{args:?}");
    }
    for verb in ["pin", "delete", "prewarm", "show"] {
        let error = home.fails(&["ctx", verb, &id, "--app", "mail"]);
        assert!(error.contains(&format!("the app `mail` has no context {id}")), "{verb}: {error}");
    }
    let bad = home.run(&["ctx", "ask", "12", "hi"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(err(&bad).contains("16 hex digits"), "{}", err(&bad));
    assert!(home.fails(&["ctx", "fork", &id, "--keep", "9"]).contains("holds 0 tokens"));

    let other = home.dir.path().join("other.gguf");
    std::fs::write(&other, TinyModel::new("qwen2").gguf()).unwrap();
    for verb in ["show", "prewarm"] {
        let error = home.fails(&["ctx", verb, &id, "--model", other.to_str().unwrap()]);
        assert!(error.contains("another model"), "{verb}: {error}");
    }
}

#[test]
fn one_process_at_a_time_has_the_store() {
    let home = Home::new();
    home.new_context(&[]);
    let mut command = home.command(&["ctx", "shell"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // Its first answer says that it has the store.
    input.write_all(b"list\n").unwrap();
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    for args in [&["ctx", "list"][..], &["store", "check"], &["ctx", "new"]] {
        let error = home.fails(args);
        assert!(error.contains("another process has the store"), "{args:?}: {error}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    home.ok(&["ctx", "list"]);
}

#[test]
fn a_check_finds_damage_and_says_what_it_costs() {
    let home = Home::new();
    let id = home.new_context(&[]);
    home.ok(&["ctx", "append", &id, &"the water ".repeat(20)]);
    assert!(home.ok(&["store", "check"]).contains("All is well"));
    let chunks = home.json(&["store", "check"])["chunks"].as_u64().unwrap();
    assert!(chunks > 0);

    let segment = home.store().join("seg.00000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = home.run(&["store", "check"]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(out(&damaged).contains("1 chunks cannot be read. No text is lost"), "{}", out(&damaged));
    let report: Value = serde_json::from_slice(&home.run(&["store", "check", "--json"]).stdout).unwrap();
    assert_eq!((&report["ok"], &report["unreadable_chunks"]), (&json!(false), &json!(1)));

    let switch = home.json(&["ctx", "prewarm", &id]);
    assert_eq!(switch["lost"], 1, "{switch}");
    assert_eq!(home.json(&["store", "check"])["ok"], true, "what was damaged was computed and written anew");
    let report = home.json(&["store", "compact"]);
    assert!(report["after_bytes"].as_u64() <= report["before_bytes"].as_u64());
    assert_eq!(home.json(&["store", "check"])["ok"], true);
}

#[test]
fn the_store_needs_its_key() {
    let home = Home::new();
    let id = home.new_context(&[]);
    let (key, away) = (home.dir.path().join("data/device.key"), home.dir.path().join("away"));
    private(&key);
    std::fs::rename(&key, &away).unwrap();
    for args in [&["ctx", "list"][..], &["ctx", "new"], &["store", "stats"]] {
        let error = home.fails(args);
        assert!(error.contains("its key is not found") && error.contains("device.key"), "{args:?}: {error}");
    }
    assert!(!key.exists());
    std::fs::write(&key, [7; 32]).unwrap();
    set_mode(&key, 0o600);
    assert!(home.fails(&["ctx", "list"]).contains("device key does not open this store"));
    std::fs::rename(&away, &key).unwrap();
    assert!(home.ok(&["ctx", "list"]).contains(&id));
    if cfg!(unix) {
        set_mode(&key, 0o644);
        assert!(home.fails(&["ctx", "list"]).contains("chmod 600"));
    }
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) {}

#[cfg(not(unix))]
fn private(_: &Path) {}
