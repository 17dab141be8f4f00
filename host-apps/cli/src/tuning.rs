//! Where the tuner's findings are kept, and what the user sees of it at work.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use concertina::native::TuneFiles;
use concertina::tune::TuneHost;
use indicatif::ProgressBar;

use crate::models::cache::Cache;
use crate::session::bar;

/// Files in the cache directory, and a bar on standard error.
#[derive(Debug)]
struct Host {
    files: TuneFiles,
    bar: Mutex<Option<ProgressBar>>,
}

/// The host of this machine; `None` where no cache directory is known, so that nothing could be kept.
pub fn host() -> Option<Arc<dyn TuneHost>> {
    let cache = Cache::from_env().ok()?;
    Some(Arc::new(Host { files: TuneFiles::at(cache.root().join("tune")), bar: Mutex::new(None) }))
}

impl TuneHost for Host {
    fn load(&self, key: &str) -> Option<String> {
        self.files.load(key)
    }

    fn store(&self, key: &str, text: &str) {
        self.files.store(key, text);
    }

    fn progress(&self, what: &str, done: usize, total: usize) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let mut shown = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let template = format!("first use here: measuring {what} {{bar:30}} {{pos}}/{{len}}");
        shown.get_or_insert_with(|| bar(total as u64, &template)).set_position(done as u64);
        if done >= total
            && let Some(bar) = shown.take()
        {
            bar.finish_and_clear();
        }
    }
}
