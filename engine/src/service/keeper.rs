//! The store behind a thread of its own: tokens are waited for, chunks are not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use concertina_kv::Width;
use concertina_kv::store::{ChunkPut, ChunkReader, ContextId, Error as StoreError, Result as StoreResult, Store};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::stream::StreamExt as _;

use super::lane::Lane;
use crate::{Error, Result};

/// Chunks that are written between two looks at who else waits for the store.
const BATCH: usize = 8;

/// A chunk to write.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing {
    pub index: u32,
    /// Level that computed it.
    pub level: u32,
    /// Tokens whose keys and values it holds.
    pub tokens: usize,
    pub width: Width,
    pub density: f32,
    /// Bytes of all its layers.
    pub bytes: usize,
}

/// The store, the thread that works on it, and what that thread has reported.
pub struct Keeper {
    store: Arc<Mutex<Store>>,
    lane: Lane,
    sender: UnboundedSender<Report>,
    written: UnboundedReceiver<Report>,
    /// Writes on their way, by context.
    pending: BTreeMap<u64, usize>,
}

/// What a write came to, for the books.
pub struct Report {
    pub context: u64,
    /// Of all chunks that are on disk now; `None` where the store does not say.
    pub readers: Option<Vec<ChunkReader>>,
    /// Chunks that could not be written.
    pub failed: Vec<u32>,
}

impl Keeper {
    pub fn new(store: Store) -> Result<Self> {
        let (sender, written) = unbounded();
        let lane = Lane::start("concertina-store")?;
        Ok(Self { store: Arc::new(Mutex::new(store)), lane, sender, written, pending: BTreeMap::new() })
    }

    /// Have the store do something, after what it was given before.
    pub async fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Store) -> R + Send + 'static) -> Result<R> {
        self.start(job).await.map_err(|_| stopped())
    }

    /// As [`Keeper::ask`], begun at once and waited for later.
    pub fn start<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> R + Send + 'static,
    ) -> futures::channel::oneshot::Receiver<R> {
        let store = Arc::clone(&self.store);
        self.lane.ask(move || job(&mut store.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Write chunks behind the caller's back. `bytes`: of all of them, one after the other.
    pub fn write(&mut self, app: &str, context: u64, layers: usize, chunks: Vec<Outgoing>, bytes: Vec<u8>) {
        if chunks.is_empty() {
            return;
        }
        *self.pending.entry(context).or_default() += 1;
        let (store, sender, app) = (Arc::clone(&self.store), self.sender.clone(), app.to_owned());
        self.lane.run(move || {
            let failed = put(&store, &app, context, layers, &chunks, &bytes);
            let readers = locked(&store, |store| store.readers(&app, ContextId(context)));
            let readers = readers.inspect_err(|e| log::warn!("chunks on disk: {e}")).ok();
            let _ = sender.unbounded_send(Report { context, readers, failed });
        });
    }

    /// What was reported since the last time.
    pub fn reports(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Ok(report) = self.written.try_recv() {
            self.count(&report);
            reports.push(report);
        }
        reports
    }

    /// Wait until nothing of a context is on its way any more.
    pub async fn settle(&mut self, context: u64) -> Vec<Report> {
        let mut reports = self.reports();
        while self.pending.get(&context).is_some_and(|n| *n > 0) {
            let Some(report) = self.written.next().await else { break };
            self.count(&report);
            reports.push(report);
        }
        reports
    }

    /// Contexts with writes on their way.
    pub fn pending(&self) -> Vec<u64> {
        self.pending.iter().filter(|(_, n)| **n > 0).map(|(context, _)| *context).collect()
    }

    fn count(&mut self, report: &Report) {
        if let Some(n) = self.pending.get_mut(&report.context) {
            *n -= 1;
        }
    }
}

fn locked<R>(store: &Mutex<Store>, job: impl FnOnce(&mut Store) -> R) -> R {
    job(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the chunks that could not be written.
fn put(store: &Mutex<Store>, app: &str, context: u64, layers: usize, chunks: &[Outgoing], bytes: &[u8]) -> Vec<u32> {
    let (mut failed, mut at) = (Vec::new(), 0);
    for batch in chunks.chunks(BATCH) {
        let mut slices = Vec::with_capacity(batch.len() * layers);
        for chunk in batch {
            slices.extend(bytes[at..at + chunk.bytes].chunks_exact(chunk.bytes / layers));
            at += chunk.bytes;
        }
        let puts: Vec<ChunkPut<'_>> = batch
            .iter()
            .zip(slices.chunks_exact(layers))
            .map(|(chunk, layers)| ChunkPut {
                index: chunk.index as usize,
                tokens: chunk.tokens,
                level: chunk.level as u16,
                width: chunk.width,
                density: chunk.density,
                layers,
            })
            .collect();
        if let Err(e) = locked(store, |store| store.put_chunks(app, ContextId(context), &puts)) {
            // A context that was deleted meanwhile, a full disk: chunks are a cache.
            if !matches!(e, StoreError::UnknownContext) {
                log::warn!("chunks are not kept on disk: {e}");
            }
            failed.extend(batch.iter().map(|chunk| chunk.index));
        }
    }
    failed
}

pub fn stopped() -> Error {
    Error::Store(StoreError::Stopped("the store's thread ended".into()))
}

/// Unwrap an answer that was asked for.
pub fn kept<R>(answer: std::result::Result<StoreResult<R>, futures::channel::oneshot::Canceled>) -> Result<R> {
    Ok(answer.map_err(|_| stopped())??)
}
