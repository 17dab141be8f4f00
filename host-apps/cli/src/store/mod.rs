//! The store of contexts on this machine: where it lies, and opening it.

mod key;
mod key_file;
#[cfg(feature = "keyring")]
mod keyring;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use bytesize::ByteSize;
use clap::Args;
use concertina::kv::store::{Error, Options, Store};
use concertina::native::Directory;
use etcetera::BaseStrategy;
use zeroize::Zeroizing;

use key::{DeviceKey, Keys};

/// The variable that moves the store elsewhere.
const STORE_ENV: &str = "CONCERTINA_STORE";

/// The file whose presence says that a store was begun: see `kv/FORMAT.md`.
const SUPERBLOCK: &str = "store";

/// Part of the disk budget that chunks leave to tokens, at most.
const RESERVE: u64 = 64 << 20;

/// Where contexts are kept, and how much of the disk they may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Directory of the store [default: `concertina/contexts` in the platform's data directory]
    #[arg(long, global = true, env = STORE_ENV, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Bytes that the store may take: 4GiB, 500MB
    #[arg(long, global = true, value_name = "BYTES", default_value = "4GiB")]
    pub disk_budget: ByteSize,
}

impl StoreArgs {
    /// `--store`, `$CONCERTINA_STORE`, or the platform's data directory.
    pub fn directory(&self) -> Result<PathBuf> {
        if let Some(path) = self.store.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return Ok(path.clone());
        }
        let base = etcetera::base_strategy::choose_native_strategy().with_context(|| {
            format!("no home directory is known, so no data directory: give --store DIR, or set {STORE_ENV}")
        })?;
        Ok(base.data_dir().join("concertina").join("contexts"))
    }

    /// Open the store, or make one where there is none.
    pub fn open(&self) -> Result<Store> {
        open(&self.directory()?, self.disk_budget.as_u64(), &key::platform_keyring())
    }

    /// Open the store; `None` where there is none. Nothing is made.
    pub fn open_existing(&self) -> Result<Option<Store>> {
        if is_store(&self.directory()?)? { self.open().map(Some) } else { Ok(None) }
    }

    /// Open the store, which must be there.
    pub fn open_required(&self) -> Result<Store> {
        let path = self.directory()?;
        let missing = || anyhow!("there is no store in {}: `concertina ctx new` makes one", path.display());
        self.open_existing()?.ok_or_else(missing)
    }
}

fn is_store(path: &Path) -> Result<bool> {
    path.join(SUPERBLOCK).try_exists().with_context(|| format!("cannot look at {}", path.display()))
}

fn open(path: &Path, budget: u64, keyring: &Option<Box<dyn key::Keyring>>) -> Result<Store> {
    let directory = match Directory::open(path) {
        Ok(directory) => Arc::new(directory),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => bail!(
            "another process has the store {} open: wait until it is done, or end it (a `concertina ctx shell`?)",
            path.display()
        ),
        Err(e) => return Err(e).with_context(|| format!("cannot open the store {}", path.display())),
    };
    // The lock is held from here on, so nobody else looks for this store's key.
    let real = std::fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let beside = real.parent().with_context(|| format!("{} cannot be a store", path.display()))?;
    let keys = Keys { beside, keyring: keyring.as_deref() };
    let found = if is_store(&real)? { keys.find()? } else { vec![keys.find_or_make()?] };
    let mut opened = Err(Error::WrongKey);
    for key in &found {
        opened = Store::open(directory.clone(), &options(key, budget)?);
        if !matches!(opened, Err(Error::WrongKey)) {
            break;
        }
    }
    opened.map_err(|e| explain(e, path, beside))
}

fn options(key: &DeviceKey, budget: u64) -> Result<Options> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut seed[..]).map_err(|e| anyhow!("the system gives no random numbers: {e}"))?;
    Ok(Options {
        disk_budget_bytes: budget,
        index_reserve_bytes: RESERVE.min(budget / 4),
        ..Options::new(**key, *seed)
    })
}

/// What to do about an error of opening.
fn explain(error: Error, path: &Path, beside: &Path) -> anyhow::Error {
    let advice = match &error {
        Error::WrongKey => format!(
            "cannot open the store {}: bring back the {} that it was made with, or delete the store to begin anew",
            path.display(),
            beside.join(key_file::NAME).display()
        ),
        Error::Version { found, known } if found > known => {
            format!("cannot open the store {}: a newer concertina wrote it; use that one", path.display())
        }
        Error::DiskFull => format!("cannot open the store {}: raise --disk-budget or free space", path.display()),
        _ => format!("cannot open the store {}", path.display()),
    };
    anyhow::Error::new(error).context(advice)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use concertina::kv::store::ModelId;

    use super::*;

    const BUDGET: u64 = 1 << 30;

    fn failure(path: &Path) -> String {
        format!("{:#}", open(path, BUDGET, &None).unwrap_err())
    }

    #[test]
    fn a_store_opens_again_with_the_key_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts");
        let mut store = open(&path, BUDGET, &None).unwrap();
        let id = store.create("app", ModelId([1; 32]), 5).unwrap();
        assert!(failure(&path).contains("another process has the store"));
        drop(store);
        assert!(dir.path().join("device.key").exists());
        assert_eq!(open(&path, BUDGET, &None).unwrap().list("app").unwrap()[0].id, id);
    }

    #[test]
    fn a_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("contexts"), dir.path().join("device.key"));
        drop(open(&path, BUDGET, &None).unwrap());
        let good = fs::read(&key).unwrap();

        fs::rename(&key, dir.path().join("elsewhere")).unwrap();
        let missing = failure(&path);
        assert!(missing.contains("its key is not found"), "{missing}");
        assert!(!key.exists(), "no new key is made for an old store");

        fs::rename(dir.path().join("elsewhere"), &key).unwrap();
        fs::write(&key, [9; 32]).unwrap();
        let wrong = failure(&path);
        assert!(wrong.contains("the device key does not open this store"), "{wrong}");
        fs::write(&key, good).unwrap();
        open(&path, BUDGET, &None).unwrap();
    }

    #[test]
    fn a_newer_format_is_said_to_be_newer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts");
        drop(open(&path, BUDGET, &None).unwrap());
        let file = path.join(SUPERBLOCK);
        let mut bytes = fs::read(&file).unwrap();
        (bytes[8], bytes[512 + 8]) = (9, 9);
        fs::write(&file, bytes).unwrap();
        assert!(failure(&path).contains("a newer concertina"), "{}", failure(&path));
    }
}
