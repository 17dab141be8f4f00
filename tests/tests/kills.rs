//! Real SIGKILLs: a process that serves contexts is killed at random moments, many times over the same store. No
//! acknowledged token is lost, nothing is there that was not said, and the next process answers as a fresh engine would.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use concertina::formats::testing::Rng;
use concertina::kv::store::{Options as StoreOptions, Store};
use concertina::native::Directory;
use concertina::service::{ContextId, Policy, Service};
use concertina_tests::system::{ask, by, greedy, ids, load, note, options, serve, tiny};
use pollster::block_on;

const KILLS: u64 = 200;
/// Set for the process that is killed: the store's directory, and a seed.
const CHILD: &str = "CONCERTINA_KILLS_CHILD";

fn open(directory: &Path, opening: u64) -> Service {
    let medium = Arc::new(Directory::open(directory).expect("the directory is free"));
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&opening.to_le_bytes());
    let store = Store::open(medium, &StoreOptions::new([5; 32], seed)).expect("a store");
    let options = concertina::Options { kv_budget_bytes: 1 << 20, ..options(Some("cpu")) };
    serve(store, by(Policy::OursNoCompression), options, |options| load(tiny("llama").gguf(), options))
}

/// The process that is killed. It says what was acknowledged, a line a call: the context, then all of its tokens.
#[test]
fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let (seed, directory) = given.split_once(' ').expect("a seed and a directory");
    let seed: u64 = seed.parse().expect("a number");
    // The harness has begun a line.
    say("");
    let mut service = open(Path::new(directory), 2 * seed + 1);
    let mut rng = Rng::new(seed);
    let mut contexts: Vec<ContextId> = block_on(service.list("app")).unwrap().into_iter().map(|u| u.id).collect();
    loop {
        if contexts.len() < 4 {
            contexts.push(block_on(service.create("app", None)).unwrap());
        }
        let at = rng.below(contexts.len());
        let id = contexts[at];
        if block_on(service.tokens("app", id)).unwrap().len() > 200 {
            // Said before it is done: from here on the context may be gone.
            say(&format!("delete {}", id.0));
            block_on(service.delete("app", id)).unwrap();
            contexts.remove(at);
            continue;
        }
        ask(&mut service, "app", id, &ids(1 + rng.below(20), rng.below(1000) as u64), 1 + rng.below(4)).unwrap();
        let tokens = block_on(service.tokens("app", id)).unwrap();
        let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
        say(&format!("said {} {}", id.0, tokens.join(" ")));
    }
}

fn say(line: &str) {
    // Past the test harness, which captures what is printed.
    let mut out = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/1").expect("standard output");
    out.write_all(format!("{line}\n").as_bytes()).expect("somebody listens");
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_acknowledged_is_lost() {
    let directory = std::env::temp_dir().join(format!("concertina-kills-{}", std::process::id()));
    let mut rng = Rng::new(17);
    let mut known: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let (mut calls, mut in_flight, start) = (0, 0, Instant::now());
    for kill in 0..KILLS {
        let mut gone = Vec::new();
        for line in killed_run(&directory, kill, Duration::from_micros(500 + rng.below(60_000) as u64)) {
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|id| id.parse().ok())) {
                (Some("said"), Some(id)) => {
                    calls += 1;
                    known.insert(id, words.map(|token| token.parse().expect("a token")).collect());
                }
                (Some("delete"), Some(id)) => gone.push(id),
                _ => {}
            }
        }
        let mut service = open(&directory, 2 * kill + 2);
        let there: Vec<u64> = block_on(service.list("app")).unwrap().into_iter().map(|usage| usage.id.0).collect();
        known.retain(|id, _| !gone.contains(id) || there.contains(id));
        for (id, acknowledged) in &mut known {
            let stored = block_on(service.tokens("app", ContextId(*id))).expect("an acknowledged context");
            assert!(stored.starts_with(acknowledged), "kill {kill}: tokens were lost");
            in_flight += usize::from(stored.len() > acknowledged.len());
            *acknowledged = stored;
        }
        if kill % 20 == 19 {
            answers_as_a_fresh_engine(&mut service, &known);
        }
    }
    note(format!(
        "{KILLS} kills, {calls} calls acknowledged, {in_flight} durable but not yet told, {:.0?}",
        start.elapsed()
    ));
    assert!(calls > KILLS as usize / 4, "the processes lived too short to say anything");
    let _ = std::fs::remove_dir_all(&directory);
}

/// Run the child until `after` its first line, and kill it. Returns the lines that came whole.
fn killed_run(directory: &Path, seed: u64, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
        .env(CHILD, format!("{seed} {}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test runs itself");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    let mut line = String::new();
    // Some die before they have said anything.
    if !seed.is_multiple_of(5) {
        while out.read_line(&mut line).expect("text") > 0 {
            let first = line.starts_with("said") || line.starts_with("delete");
            lines.push(std::mem::take(&mut line));
            if first {
                break;
            }
        }
    }
    std::thread::sleep(after);
    child.kill().expect("it was running");
    while out.read_line(&mut line).expect("text") > 0 {
        lines.push(std::mem::take(&mut line));
    }
    child.wait().expect("it ended");
    // A line that was cut was not heard.
    lines.retain(|line| line.ends_with('\n'));
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

fn answers_as_a_fresh_engine(service: &mut Service, known: &BTreeMap<u64, Vec<u32>>) {
    let Some((id, tokens)) = known.iter().max_by_key(|(_, tokens)| tokens.len()) else { return };
    let fork = block_on(service.fork("app", ContextId(*id), None)).unwrap();
    let served = ask(service, "app", fork, &ids(3, 9), 6).unwrap();
    block_on(service.delete("app", fork)).unwrap();
    let mut engine = load(tiny("llama").gguf(), options(Some("cpu")));
    let mut context = engine.context().unwrap();
    let prompt = [&tokens[..], &ids(3, 9)].concat();
    let fresh = block_on(engine.generate(&mut context, &prompt, &greedy(6), |_| ControlFlow::Continue(()))).unwrap();
    assert_eq!(served.answer.tokens, fresh.tokens, "{:?}", served.switch);
}
