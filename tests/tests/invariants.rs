//! The architecture's invariants, read from `Cargo.lock` and the sources.
//!
//! Each rule is a function from text to violations, and each is fed a planted violation that it must catch: a rule that
//! cannot fail guards nothing. The file needs nothing but `std`, so that CI compiles it alone before all else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LEAVES: [&str; 4] = ["concertina-shaders", "concertina-kv", "concertina-elastic", "concertina-formats"];
const ENGINE: &str = "concertina";
const TRAINER: &str = "concertina-trainer";

// ---------------------------------------------------------------------------------------------------------------------
// Dependencies, from Cargo.lock. It holds every edge: of tests, of build scripts, of every target and feature.

#[derive(Default)]
struct Lock {
    /// Direct dependencies by package name; the versions of one name are joined.
    dependencies: BTreeMap<String, BTreeSet<String>>,
    versions: BTreeMap<String, Vec<String>>,
    /// Packages without a source: the workspace's own.
    own: BTreeSet<String>,
}

impl Lock {
    fn parse(text: &str) -> Self {
        let mut lock = Self::default();
        for package in text.split("[[package]]").skip(1) {
            let field = |key: &str| package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            let unquoted = |key| field(key).unwrap_or_default().trim_matches('"').to_owned();
            let name = unquoted("name");
            lock.versions.entry(name.clone()).or_default().push(unquoted("version"));
            if field("source").is_none() {
                lock.own.insert(name.clone());
            }
            let list = package.split_once("dependencies = [").and_then(|(_, rest)| rest.split(']').next());
            let names =
                list.unwrap_or_default().split('"').skip(1).step_by(2).filter_map(|entry| entry.split(' ').next());
            lock.dependencies.entry(name).or_default().extend(names.map(str::to_owned));
        }
        lock
    }

    fn direct(&self, package: &str) -> impl Iterator<Item = &str> {
        self.dependencies.get(package).into_iter().flatten().map(String::as_str)
    }

    fn reachable<'a>(&'a self, package: &'a str) -> BTreeSet<&'a str> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![package]);
        while let Some(package) = open.pop() {
            open.extend(self.direct(package).filter(|dependency| seen.insert(*dependency)));
        }
        seen
    }

    fn own(&self) -> impl Iterator<Item = &str> {
        self.own.iter().map(String::as_str)
    }
}

/// `kv` and `elastic` hold policy and run in a simulator; `formats` is fuzzed; the trainer runs anywhere. None may pull in a
/// GPU.
fn pure_crates_know_no_gpu(lock: &Lock) -> Vec<String> {
    let mut violations = Vec::new();
    for package in ["concertina-kv", "concertina-elastic", "concertina-formats", TRAINER] {
        let gpu = lock.reachable(package).into_iter().filter(|name| name.starts_with("wgpu") || *name == "naga");
        violations.extend(gpu.map(|name| format!("{package} reaches {name}")));
    }
    violations
}

/// host-apps -> engine -> leaves, and the leaves know none of the project's other crates.
fn crates_depend_downwards(lock: &Lock) -> Vec<String> {
    let mut violations = Vec::new();
    for package in lock.own() {
        for dependency in lock.direct(package).filter(|dependency| lock.own.contains(*dependency)) {
            let allowed = match package {
                _ if LEAVES.contains(&package) => false,
                // The trainer computes with a forward pass of its own: what the engine runs is compared with it.
                ENGINE | TRAINER => LEAVES.contains(&dependency),
                // Applications and tests may use everything that is a library.
                _ => [ENGINE, TRAINER].contains(&dependency) || LEAVES.contains(&dependency),
            };
            if !allowed {
                violations.push(format!("{package} depends on {dependency}"));
            }
        }
    }
    violations
}

/// Only the engine may depend on wgpu; errors of libraries are enums, so only applications may use anyhow.
fn dependency_has_its_owners(lock: &Lock, dependency: &str, owners: &[&str]) -> Vec<String> {
    let users = lock.own().filter(|package| lock.direct(package).any(|name| name == dependency));
    users.filter(|user| !owners.contains(user)).map(|user| format!("{user} depends on {dependency}")).collect()
}

/// WGSL is compiled at run time by the naga that validated it at build time.
fn gpu_pair_is_one(lock: &Lock) -> Vec<String> {
    let versions = |name: &str| lock.versions.get(name).cloned().unwrap_or_default();
    let (wgpu, naga) = (versions("wgpu"), versions("naga"));
    if wgpu.len() == 1 && wgpu == naga { Vec::new() } else { vec![format!("wgpu {wgpu:?}, naga {naga:?}")] }
}

const ANYHOW_OWNERS: [&str; 2] = ["concertina-cli", "concertina-trainer"];

// ---------------------------------------------------------------------------------------------------------------------
// Sources.

/// Blanks what is not code, comments and literals, and keeps the lines.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |i: usize| at(i).is_alphanumeric() || at(i) == '_';
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len()).find(|&k| chars[k] == '\n').unwrap_or(chars.len()),
            ('/', '*') => {
                let (mut depth, mut k) = (1, i + 2);
                while k < chars.len() && depth > 0 {
                    match (at(k), at(k + 1)) {
                        ('/', '*') => (depth, k) = (depth + 1, k + 2),
                        ('*', '/') => (depth, k) = (depth - 1, k + 2),
                        _ => k += 1,
                    }
                }
                k
            }
            ('"', _) => string_end(&chars, i + 1),
            ('r', '"' | '#') if i == 0 || !word(i - 1) || matches!(at(i - 1), 'b' | 'c') => {
                let hashes = (i + 1..).take_while(|&k| at(k) == '#').count();
                if at(i + 1 + hashes) == '"' { raw_end(&chars, i + 2 + hashes, hashes) } else { i }
            }
            // A character, not a lifetime: an escape, or a quote right after one character.
            ('\'', '\\') => (i + 3..chars.len()).find(|&k| chars[k] == '\'').map_or(chars.len(), |k| k + 1),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end.min(chars.len())].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn string_end(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_end(chars: &[char], start: usize, hashes: usize) -> usize {
    let closes = |&i: &usize| chars[i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (start..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

/// Blanks modules under `#[cfg(test)]`: tests may use what a browser has not.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let body = after.find(['{', ';']).filter(|&i| after.as_bytes()[i] == b'{');
        let Some(open) = body else {
            rest = after;
            continue;
        };
        let mut depth = 0_usize;
        let close = after[open..].char_indices().find(|(_, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let end = close.map_or(after.len(), |(i, _)| open + i + 1);
        out.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    out + rest
}

/// Lines that name one of `crates`: as the root of a path, or alone in an import.
fn crate_names<'a>(code: &'a str, crates: &'a [&str]) -> impl Iterator<Item = (usize, &'a str)> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.lines().enumerate().flat_map(move |(line, text)| {
        let words = text.split(move |c: char| !inside(c)).filter(move |word| crates.contains(word));
        let named = words.filter(move |word| {
            let start = word.as_ptr() as usize - text.as_ptr() as usize;
            let imported =
                text[..start].trim_end().rsplit(|c| !inside(c)).next().is_some_and(|w| w == "use" || w == "crate");
            imported || text[start + word.len()..].trim_start().starts_with("::")
        });
        named.map(move |word| (line + 1, word))
    })
}

/// Every path that starts with `std::`, with the groups of imports written out, each with its line.
fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("std") {
        let whole_word = !code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if whole_word && code[start + 3..].trim_start().starts_with("::") {
            let line = code[..start].matches('\n').count() + 1;
            let mut paths = Vec::new();
            expand(&mut code[start..].chars().peekable(), String::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// Reads one path or tree of imports after `prefix`.
fn expand(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, prefix: String, out: &mut Vec<String>) {
    let mut path = prefix;
    loop {
        match chars.peek() {
            Some(c) if c.is_alphanumeric() || matches!(c, '_' | ':' | '*') => path.push(*c),
            Some(c) if c.is_whitespace() && path.ends_with(':') => {}
            Some('{') if path.ends_with("::") => {
                while let Some('{' | ',') = chars.next() {
                    while chars.next_if(|c| c.is_whitespace()).is_some() {}
                    if chars.peek() != Some(&'}') {
                        expand(chars, path.clone(), out);
                    }
                    // A renaming, and the space before the next comma.
                    while chars.next_if(|c| !matches!(c, ',' | '}' | ';')).is_some() {}
                }
                return;
            }
            _ => {
                out.push(path.trim_end_matches("::self").trim_end_matches("::*").to_owned());
                return;
            }
        }
        chars.next();
    }
}

/// wgpu's names stay in one folder, so that another backend, or another wgpu, touches nothing else.
fn wgpu_stays_in_gpu(path: &str, source: &str) -> Vec<String> {
    if path.starts_with("engine/src/gpu/") || path == "engine/src/gpu.rs" {
        return Vec::new();
    }
    let code = code_only(source);
    let named = crate_names(&code, &["wgpu", "wgpu_core", "wgpu_hal", "wgpu_types"]);
    named.map(|(line, word)| format!("{path}:{line} names {word}")).collect()
}

fn anyhow_stays_in_applications(path: &str, source: &str) -> Vec<String> {
    if path.starts_with("host-apps/") || path.starts_with("elastic/trainer/") {
        return Vec::new();
    }
    let code = code_only(source);
    crate_names(&code, &["anyhow"]).map(|(line, _)| format!("{path}:{line} names anyhow")).collect()
}

/// What a browser does not have, or has otherwise. It is named only under `engine/src/native`, which a browser replaces.
const NATIVE_ONLY: [&str; 7] =
    ["std::fs", "std::thread", "std::net", "std::process", "std::time::Instant", "std::time::SystemTime", "std::os"];

fn native_calls_stay_in_native(path: &str, source: &str) -> Vec<String> {
    let library = ["engine/src/", "engine/formats/src/", "shaders/src/", "kv/src/", "elastic/src/"];
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    if is_test || path.starts_with("engine/src/native") || !library.iter().any(|prefix| path.starts_with(prefix)) {
        return Vec::new();
    }
    let code = without_tests(&code_only(source));
    let forbidden = |found: &str| {
        let inside = |name: &str| format!("{found}::").starts_with(&format!("{name}::"));
        // Importing `std::time` itself would hide an Instant behind it.
        found == "std::time" || NATIVE_ONLY.into_iter().any(inside)
    };
    let paths = std_paths(&code).into_iter().filter(|(_, found)| forbidden(found));
    paths.map(|(line, found)| format!("{path}:{line} names {found}")).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// The project keeps the rules.

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn lock() -> Lock {
    let lock = Lock::parse(&fs::read_to_string(root().join("Cargo.lock")).unwrap());
    for package in LEAVES.iter().chain([&ENGINE]) {
        assert!(lock.own.contains(*package), "{package} is not in Cargo.lock: has it been renamed?");
    }
    lock
}

/// All Rust sources, by path from the root.
fn sources() -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                found.push((relative, fs::read_to_string(path).unwrap()));
            }
        }
    }
    for file in ["engine/src/lib.rs", "kv/src/lib.rs", "elastic/src/lib.rs", "shaders/src/lib.rs"] {
        assert!(found.iter().any(|(path, _)| path == file), "{file} was not found: has it moved?");
    }
    found
}

fn over_sources(rule: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(|(path, source)| rule(path, source)).collect()
}

#[track_caller]
fn assert_kept(violations: &[String]) {
    assert!(violations.is_empty(), "architecture invariant broken:\n  {}", violations.join("\n  "));
}

#[test]
fn the_project_keeps_its_dependency_rules() {
    let lock = lock();
    assert_kept(&pure_crates_know_no_gpu(&lock));
    assert_kept(&crates_depend_downwards(&lock));
    assert_kept(&dependency_has_its_owners(&lock, "wgpu", &[ENGINE]));
    assert_kept(&dependency_has_its_owners(&lock, "anyhow", &ANYHOW_OWNERS));
    assert_kept(&gpu_pair_is_one(&lock));
}

#[test]
fn wgpu_is_named_only_under_engine_src_gpu() {
    assert_kept(&over_sources(wgpu_stays_in_gpu));
}

#[test]
fn anyhow_is_named_only_in_applications() {
    assert_kept(&over_sources(anyhow_stays_in_applications));
}

#[test]
fn files_threads_sockets_and_clocks_are_named_only_under_engine_src_native() {
    assert_kept(&over_sources(native_calls_stay_in_native));
}

// ---------------------------------------------------------------------------------------------------------------------
// The rules can fail.

const GOOD_LOCK: &str = r#"
[[package]]
name = "concertina"
version = "0.1.0"
dependencies = [
 "concertina-kv",
 "wgpu",
]

[[package]]
name = "concertina-cli"
version = "0.1.0"
dependencies = [
 "anyhow",
 "concertina",
]

[[package]]
name = "concertina-kv"
version = "0.1.0"
dependencies = [
 "thiserror 2.0.1",
]

[[package]]
name = "concertina-shaders"
version = "0.1.0"

[[package]]
name = "thiserror"
version = "2.0.1"
source = "registry"

[[package]]
name = "wgpu"
version = "30.0.1"
source = "registry"
dependencies = [
 "naga",
]

[[package]]
name = "naga"
version = "30.0.1"
source = "registry"
"#;

/// The good lock file with one edit, which must be possible.
fn planted(from: &str, to: &str) -> Lock {
    assert!(GOOD_LOCK.contains(from));
    Lock::parse(&GOOD_LOCK.replacen(from, to, 1))
}

#[test]
fn planted_dependencies_are_caught() {
    let good = Lock::parse(GOOD_LOCK);
    assert_kept(&pure_crates_know_no_gpu(&good));
    assert_kept(&crates_depend_downwards(&good));
    assert_kept(&dependency_has_its_owners(&good, "wgpu", &[ENGINE]));
    assert_kept(&dependency_has_its_owners(&good, "anyhow", &ANYHOW_OWNERS));
    assert_kept(&gpu_pair_is_one(&good));

    // wgpu below kv, and only through another crate.
    let hidden =
        planted("version = \"2.0.1\"\nsource = \"registry\"", "version = \"2\"\ndependencies = [\n \"wgpu\",\n]");
    assert_eq!(pure_crates_know_no_gpu(&hidden), ["concertina-kv reaches naga", "concertina-kv reaches wgpu"]);
    // One leaf that knows another, and a leaf that knows the engine.
    let sideways = planted("\"thiserror 2.0.1\"", "\"concertina-shaders\"");
    assert_eq!(crates_depend_downwards(&sideways), ["concertina-kv depends on concertina-shaders"]);
    let upwards = planted("\"thiserror 2.0.1\"", "\"concertina\"");
    assert_eq!(crates_depend_downwards(&upwards), ["concertina-kv depends on concertina"]);
    // The engine that knows an application.
    let engine = planted("\"concertina-kv\"", "\"concertina-cli\"");
    assert_eq!(crates_depend_downwards(&engine), ["concertina depends on concertina-cli"]);
    // The trainer that knows the engine, and the engine that knows the trainer.
    let trainer = planted("name = \"concertina-cli\"", "name = \"concertina-trainer\"");
    assert_eq!(crates_depend_downwards(&trainer), ["concertina-trainer depends on concertina"]);
    let engine = Lock::parse(&GOOD_LOCK.replace("concertina-kv", "concertina-trainer"));
    assert_eq!(crates_depend_downwards(&engine), ["concertina depends on concertina-trainer"]);
    // wgpu in an application, anyhow in a library.
    let cli = planted(" \"anyhow\",", " \"anyhow\",\n \"wgpu\",");
    assert_eq!(dependency_has_its_owners(&cli, "wgpu", &[ENGINE]), ["concertina-cli depends on wgpu"]);
    let library = planted("\"thiserror 2.0.1\"", "\"anyhow\"");
    assert_eq!(dependency_has_its_owners(&library, "anyhow", &ANYHOW_OWNERS), ["concertina-kv depends on anyhow"]);
    // A naga that is not wgpu's, and two of them.
    assert_eq!(gpu_pair_is_one(&planted("30.0.1", "29.0.0")).len(), 1);
    let second = "[[package]]\nname = \"naga\"\nversion = \"29.0.0\"\n\n[[package]]\nname = \"concertina\"";
    assert_eq!(gpu_pair_is_one(&planted("[[package]]\nname = \"concertina\"", second)).len(), 1);
}

#[test]
fn planted_names_are_caught() {
    let gpu_names = "use wgpu::Device;\nfn f(_: wgpu_types::Limits) {}\n";
    assert_eq!(
        wgpu_stays_in_gpu("engine/src/forward.rs", gpu_names),
        ["engine/src/forward.rs:1 names wgpu", "engine/src/forward.rs:2 names wgpu_types"]
    );
    assert_kept(&wgpu_stays_in_gpu("engine/src/gpu/device.rs", gpu_names));
    let no_code =
        "// wgpu\n/* wgpu /* wgpu */ wgpu */\nlet s = (\"wgpu\", r#\"wgpu \" wgpu\"#, '\"', b\"\\\"wgpu\");\n";
    assert_kept(&wgpu_stays_in_gpu("host-apps/cli/src/main.rs", no_code));
    assert_kept(&wgpu_stays_in_gpu("host-apps/cli/src/doctor.rs", "struct Versions { wgpu: String }"));
    // Neither a lifetime nor an escaped quote opens a literal that would hide what follows.
    for source in [
        "fn f<'a>(x: &'a str) { wgpu::go(x) }",
        "let c = '\\''; wgpu::go(c)",
        "let r#type = wgpu :: X;",
        "use wgpu;",
        "extern crate wgpu as gpu;",
    ] {
        assert_eq!(wgpu_stays_in_gpu("kv/src/lib.rs", source).len(), 1, "{source}");
    }

    assert_eq!(anyhow_stays_in_applications("kv/src/lib.rs", "use anyhow::Result;"), ["kv/src/lib.rs:1 names anyhow"]);
    assert_kept(&anyhow_stays_in_applications("host-apps/cli/src/main.rs", "use anyhow::Result;"));
}

#[test]
fn planted_native_calls_are_caught() {
    for (source, named) in [
        ("let f = std::fs::File::open(p);", "std::fs::File::open"),
        ("use std::thread;", "std::thread"),
        ("use std::{collections::BTreeMap, net::TcpStream};", "std::net::TcpStream"),
        ("use std::{\n    io,\n    time::{Duration, Instant},\n};", "std::time::Instant"),
        ("use std::{io, fs as files, mem};", "std::fs"),
        ("use std::fs::*;", "std::fs"),
        ("use std::fs::{self, File};", "std::fs"),
        ("use std::time;", "std::time"),
        ("use ::std::time::SystemTime;", "std::time::SystemTime"),
        ("#[cfg(test)]\nmod tests { fn f() { { } } }\nfn g() { std::process::exit(1) }", "std::process::exit"),
        ("#[cfg(test)]\nuse a::b;\nuse std::thread::spawn;", "std::thread::spawn"),
    ] {
        for path in ["engine/src/forward.rs", "engine/formats/src/load.rs", "kv/src/table.rs", "elastic/src/lib.rs"] {
            let violations = native_calls_stay_in_native(path, source);
            assert!(
                violations.iter().any(|text| text.ends_with(&format!("names {named}"))),
                "{source}: {violations:?}"
            );
        }
        for path in
            ["engine/src/native/files.rs", "host-apps/cli/src/main.rs", "elastic/trainer/src/main.rs", "kv/build.rs"]
        {
            assert_kept(&native_calls_stay_in_native(path, source));
        }
    }
    let innocent = "use std::time::Duration; // std::fs\nuse std::{io, sync::Arc};\nfn threads(my_std: u8) { std::mem::drop(\"std::fs\") }\n\
                    #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert_kept(&native_calls_stay_in_native("engine/src/lib.rs", innocent));
}
