//! Contexts to switch between, computed once and copied for every policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use concertina::Engine;
use concertina::kv::store::{Medium, Options as StoreOptions, Store};
use concertina::native::Directory;
use concertina::service::{Policy, Service, ServiceOptions};
use pollster::block_on;

use super::SwitchArgs;
use super::throttle::Throttled;

/// The app that owns the contexts.
pub const APP: &str = "bench";

/// Folders of stores; those that nobody wants to keep are removed.
pub struct Scratch {
    root: PathBuf,
    kept: Option<PathBuf>,
}

impl Scratch {
    pub fn new(kept: Option<PathBuf>) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("concertina-switch-{}", std::process::id()));
        std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root, kept })
    }

    /// Where the computed contexts are.
    fn prepared(&self) -> PathBuf {
        self.kept.clone().unwrap_or_else(|| self.root.join("prepared"))
    }

    /// A store to run a policy on: a copy of the computed contexts.
    pub fn copy(&self, disk_mb_s: Option<f64>) -> Result<Store> {
        let to = self.root.join("run");
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to)?;
        for entry in std::fs::read_dir(self.prepared())? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != "lock" {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        open(&to, disk_mb_s)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// These stores hold nothing that is secret; the seed must differ from opening to opening all the same.
fn open(path: &Path, disk_mb_s: Option<f64>) -> Result<Store> {
    let directory = Directory::open(path).with_context(|| format!("cannot open a store in {}", path.display()))?;
    let medium: Arc<dyn Medium> = match disk_mb_s {
        Some(rate) => Arc::new(Throttled::new(directory, rate)),
        None => Arc::new(directory),
    };
    let mut seed = [0; 32];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    seed[..16].copy_from_slice(&now.to_le_bytes());
    seed[16..20].copy_from_slice(&std::process::id().to_le_bytes());
    Ok(Store::open(medium, &StoreOptions::new([9; 32], seed))?)
}

/// Compute the contexts, unless they were kept.
pub fn contexts(engine: Engine, scratch: &Scratch, args: &SwitchArgs) -> Result<Engine> {
    let path = scratch.prepared();
    let (contexts, tokens) = (args.contexts as usize, args.tokens as usize);
    let store = open(&path, None)?;
    // Written at 16 bits, with densities: policies choose widths when they first visit them.
    let how = ServiceOptions { policy: Policy::Ours, average_bits: 16.0, contexts_per_app: 256, ..Default::default() };
    let mut service = block_on(Service::open(engine, store, how))?;
    let known = block_on(service.list(APP))?;
    if !known.is_empty() {
        let fits = known.len() >= contexts && known.iter().all(|usage| usage.tokens == tokens);
        ensure!(
            fits,
            "{} holds other contexts than these, or fewer: choose another folder to --keep them",
            path.display()
        );
        return Ok(block_on(service.close())?);
    }
    let text = match &args.text {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            service.engine().tokenizer().encode(&text, false)?
        }
        None => super::super::report::prompt(service.engine().tokenizer(), contexts * tokens)?,
    };
    ensure!(!text.is_empty(), "the text is empty");
    let bar =
        crate::session::bar((contexts * tokens) as u64, "computing the contexts {bar:30} {pos} of {len} tokens {eta}");
    for context in 0..contexts {
        let id = block_on(service.create(APP, None))?;
        let prompt: Vec<u32> = text.iter().copied().cycle().skip(context * tokens).take(tokens).collect();
        for (n, piece) in prompt.chunks(512).enumerate() {
            block_on(service.append(APP, id, piece, 100))?;
            bar.set_position((context * tokens + (n * 512 + piece.len())) as u64);
        }
    }
    bar.finish_and_clear();
    Ok(block_on(service.close())?)
}
