//! Contexts as a service (LLMS, arXiv 2403.11805): contexts of many apps outlive calls and processes, far more of them than
//! memory holds, and coming back to one costs little.
//!
//! [`Service`] joins four parts and decides nothing itself: the engine computes, `concertina_kv::policy::Manager` says what
//! stays, goes and comes back, `concertina_kv::store::Store` keeps tokens and chunks on disk, and lanes (threads, where
//! there are any) read and write beside the device.
//!
//! A call goes: the context is locked and others make room; missing chunks are read and computed side by side; the call
//! runs; on return its tokens become durable, chunks take their widths and are written behind the caller's back, and the
//! lock is dropped. A call that fails, or whose future is dropped, leaves its context as it was.

mod call;
mod contexts;
mod entry;
mod inflow;
mod keeper;
mod lane;
mod memory;
mod options;
mod rates;
mod report;
mod restore;
mod sharing;
mod slo;
mod turns;

use std::collections::BTreeMap;

use concertina_formats::Model;
use concertina_kv::policy::{ChunkBytes, Eviction, Manager, Rates};
use concertina_kv::store::{ModelId, Store};
use concertina_kv::{KvGeometry, Width};
use web_time::{SystemTime, UNIX_EPOCH};

pub use concertina_kv::policy::{Choice, Policy, Split, WidthErrors};
pub use concertina_kv::store::ContextId;
pub use options::ServiceOptions;
pub use report::{ContextUsage, Residence, Served, Switch};
pub use slo::Appended;

use crate::forward::{KeyMedians, geometry};
use crate::{Engine, Error, Result};
use entry::Entry;
use keeper::Keeper;
use lane::Lane;

/// Bytes of the model's chunks.
#[derive(Debug, Clone, Copy)]
struct PageBytes(KvGeometry);

impl ChunkBytes for PageBytes {
    fn memory(&self, width: Width) -> u64 {
        self.0.chunk_bytes(width)
    }

    fn disk(&self, width: Width) -> u64 {
        // A tag for each layer.
        self.0.chunk_bytes(width) + 16 * self.0.layers as u64
    }
}

/// One resident model that many apps' contexts share.
pub struct Service {
    engine: Engine,
    options: ServiceOptions,
    model: ModelId,
    geometry: KvGeometry,
    keeper: Keeper,
    readers: Vec<Lane>,
    pool: inflow::Pool,
    manager: Manager<PageBytes>,
    rates: Rates,
    /// Contexts that were used since the service opened.
    entries: BTreeMap<u64, Entry>,
    /// The device that the books are about.
    generation: u64,
    /// The context whose call has begun and has not returned.
    running: Option<u64>,
    /// Chunks that the books have let go of and that are still in their places, because they are written first.
    leaving: Vec<Eviction>,
}

impl Service {
    /// Serve the contexts of `store` with `engine`, whose options went through [`ServiceOptions::prepare`]. Unless the rates
    /// of the device are known they are measured now, which takes about as long as 150 tokens of prefill.
    ///
    /// # Errors
    /// If the model cannot be read, the device or the store fails, or the system grants no threads.
    pub async fn open(mut engine: Engine, store: Store, options: ServiceOptions) -> Result<Self> {
        let model = model_id(&engine.model, engine.package)?;
        let geometry = geometry(&engine.model.spec, engine.options.exact);
        let budget = memory_budget(&mut engine, geometry).await?;
        let features = options.policy.features();
        let mut manager =
            Manager::new(features, PageBytes(geometry), budget, options.width_errors, options.average_bits);
        manager.set_split(options.split);
        let readers = (0..options.readers.max(1)).map(|i| Lane::start(&format!("concertina-read-{i}")));
        let readers = readers.collect::<Result<_>>()?;
        let (rates, known) = rates::known(&engine, &options);
        let mut service = Self {
            generation: engine.generation,
            engine,
            options,
            model,
            geometry,
            keeper: Keeper::new(store)?,
            readers,
            pool: inflow::Pool::default(),
            manager,
            rates,
            entries: BTreeMap::new(),
            running: None,
            leaving: Vec::new(),
        };
        service.agree_on_key_medians().await?;
        if !known {
            service.measure_rates().await?;
        }
        Ok(service)
    }

    /// Chunks are read with the medians of keys that they were quantised with: those that lie in the store beside them count, and
    /// where there are none the engine's are put there.
    async fn agree_on_key_medians(&mut self) -> Result<()> {
        let Some(measured) = self.engine.key_medians.clone() else { return Ok(()) };
        let (model, bytes) = (self.model, measured.to_bytes());
        let kept = self.keeper.ask(move |store| store.centres(model)).await??;
        if kept.as_ref() == Some(&bytes) {
            return Ok(());
        }
        let usable = kept.and_then(|kept| KeyMedians::from_bytes(&kept, &self.engine.model.spec));
        if let Some(medians) = usable {
            return self.engine.use_key_medians(medians).await;
        }
        Ok(self.keeper.ask(move |store| store.set_centres(model, &bytes)).await??)
    }

    /// The engine that answers.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The engine, for what does not concern contexts of the service.
    pub fn engine_mut(&mut self) -> &mut Engine {
        // A call that was dropped is over.
        self.engine.hold_device(false);
        &mut self.engine
    }

    /// How fast the device computes and reads, as measured.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Bytes of keys and values: in use, the most that were in use at once, and the budget.
    pub fn memory(&self) -> (u64, u64, u64) {
        let budget = self.manager.budget();
        (budget.used(), budget.peak(), budget.limit())
    }

    /// Everything in the pages of keys and values: for tests.
    ///
    /// # Errors
    /// If the device fails.
    #[doc(hidden)]
    pub async fn read_pages(&mut self) -> Result<Vec<u8>> {
        let device = self.engine.device().await?;
        device.forward.read_pages(&mut device.backend).await
    }

    /// Change [`ServiceOptions::level_slack`].
    pub fn set_level_slack(&mut self, percent: u32) {
        self.options.level_slack = percent;
    }

    /// Restore in another way than planned: for comparison.
    pub fn set_split(&mut self, split: Split) {
        self.manager.set_split(split);
    }

    /// Give keys and values at most so many bytes from now on, but no more than were allocated. What does not fit goes.
    ///
    /// # Errors
    /// If a chunk must be written before it goes and the device fails.
    pub async fn set_memory_budget(&mut self, bytes: u64) -> Result<()> {
        self.recover().await?;
        self.sync_device().await?;
        let most = memory_budget(&mut self.engine, self.geometry).await?;
        let evictions = self.manager.set_budget(bytes.min(most));
        self.carry_out(&evictions).await.map(drop)
    }

    /// Wait until everything that was written behind the callers' backs is on disk.
    ///
    /// # Errors
    /// None today; what could not be written is computed anew when it is needed.
    pub async fn idle(&mut self) -> Result<()> {
        for context in self.keeper.pending() {
            let reports = self.keeper.settle(context).await;
            self.note(reports);
        }
        Ok(())
    }

    /// In idle time: bring the context that was used last, of those with chunks of a smaller sub-model, up to the whole model.
    /// `None`: there is nothing to do.
    ///
    /// # Errors
    /// As [`Service::prewarm`].
    pub async fn upgrade(&mut self) -> Result<Option<ContextId>> {
        self.recover().await?;
        let low = |entry: &&Entry| entry.levels.iter().any(|level| *level < 100);
        let found = self.entries.iter().filter(|(_, entry)| low(entry)).max_by_key(|(_, entry)| entry.used_ms);
        let Some((key, entry)) = found else { return Ok(None) };
        let (id, app) = (ContextId(*key), entry.app.clone());
        self.prewarm(&app, id, 100).await?;
        Ok(Some(id))
    }

    /// Make chunks durable too. Tokens are so whenever a call returns.
    ///
    /// # Errors
    /// Where writing fails.
    pub async fn flush(&mut self) -> Result<()> {
        self.idle().await?;
        Ok(self.keeper.ask(|store| store.flush()).await??)
    }

    /// Wait until everything is on disk, and close.
    ///
    /// # Errors
    /// Where writing fails; what was acknowledged is safe nevertheless.
    pub async fn close(mut self) -> Result<Engine> {
        self.recover().await?;
        self.keep_rates();
        self.entries.clear();
        self.flush().await?;
        Ok(self.engine)
    }

    /// Milliseconds since 1970.
    fn now_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// Bytes that the books may hand out. Slabs that are not full of their width's chunks take a little more than their
/// chunks; two are left for that.
async fn memory_budget(engine: &mut Engine, geometry: KvGeometry) -> Result<u64> {
    let units = engine.device().await?.forward.capacity().units as u64;
    let all = units * geometry.unit_bytes() * geometry.layers as u64;
    let chunk = geometry.chunk_bytes(geometry.written);
    Ok(all.saturating_sub((all / 16).min(16 * chunk)))
}

/// What a model's contexts are marked with: a hash of everything that its files hold, and of the package that says what its
/// levels compute.
///
/// # Errors
/// If a file cannot be read.
pub fn model_id(model: &Model, package: Option<[u8; 32]>) -> Result<ModelId> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&package.unwrap_or_default()[..if package.is_some() { 32 } else { 0 }]);
    let mut buffer = vec![0; 1 << 20];
    for source in &model.sources {
        let len = source.len();
        hasher.update(&len.to_le_bytes());
        let mut at = 0;
        while at < len {
            let n = (len - at).min(buffer.len() as u64);
            let piece = &mut buffer[..n as usize];
            let failed = |source| Error::File { path: "the model".into(), source };
            source.read_at(at, piece).map_err(failed)?;
            hasher.update(piece);
            source.done_with(at, n);
            at += n;
        }
    }
    Ok(ModelId(*hasher.finalize().as_bytes()))
}
