//! Contexts behind a running service, or as they lie in the store: what needs no model works on both.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use concertina::formats::Model;
use concertina::kv::store::{ContextInfo, Error as StoreError, Store};
use concertina::package_hash;
use concertina::service::{ContextId, ContextUsage, Residence, Service, ServiceOptions, model_id};
use pollster::block_on;

use super::id::show_id;
use crate::cli::GlobalArgs;
use crate::models::resolve::resolve_model;
use crate::session::package_of;

/// Where commands find their contexts.
pub enum Contexts {
    Live(Box<Service>),
    Stored(Box<Store>),
}

impl Contexts {
    /// The service, for commands that run the model.
    pub fn service(&mut self) -> Result<&mut Service> {
        match self {
            Self::Live(service) => Ok(service),
            Self::Stored(_) => Err(anyhow!("the model is not loaded")),
        }
    }

    pub fn apps(&mut self) -> Result<Vec<String>> {
        match self {
            Self::Live(service) => Ok(block_on(service.apps())?),
            Self::Stored(store) => Ok(store.apps()?),
        }
    }

    pub fn list(&mut self, app: &str) -> Result<Vec<ContextUsage>> {
        match self {
            Self::Live(service) => Ok(block_on(service.list(app))?),
            Self::Stored(store) => Ok(store.list(app)?.into_iter().map(|info| at_rest(app, info)).collect()),
        }
    }

    pub fn usage(&mut self, app: &str, id: ContextId) -> Result<ContextUsage> {
        self.list(app)?.into_iter().find(|usage| usage.id == id).ok_or_else(|| unknown(app, id))
    }

    pub fn tokens(&mut self, app: &str, id: ContextId) -> Result<Vec<u32>> {
        match self {
            Self::Live(service) => Ok(block_on(service.tokens(app, id))?),
            Self::Stored(store) => Ok(store.tokens(app, id)?),
        }
    }

    /// Text of a context's tokens. Of the model its tokenizer is needed, not its weights.
    pub fn text(&mut self, global: &GlobalArgs, app: &str, id: ContextId, tokens: &[u32]) -> Result<String> {
        match self {
            Self::Live(service) => Ok(service.engine().tokenizer().decode(tokens)?),
            Self::Stored(store) => {
                let info = store.list(app)?.into_iter().find(|info| info.id == id);
                let info = info.ok_or_else(|| unknown(app, id))?;
                let model = open_model(global)?;
                let package = package_of(&resolve_model(global.model.as_deref(), global.offline)?)?;
                let package = package.as_ref().map(package_hash).transpose()?;
                ensure!(
                    model_id(&model, package)? == info.model,
                    "context {} belongs to another model: name that one with --model, or look at --tokens",
                    show_id(id)
                );
                Ok(model.tokenizer.decode(tokens)?)
            }
        }
    }

    pub fn fork(&mut self, app: &str, id: ContextId, keep: Option<usize>) -> Result<ContextId> {
        match self {
            Self::Live(service) => Ok(block_on(service.fork(app, id, keep))?),
            Self::Stored(store) => {
                let contexts = store.list(app)?;
                let limit = ServiceOptions::default().contexts_per_app;
                if contexts.len() >= limit {
                    return Err(concertina::Error::TooManyContexts { limit }.into());
                }
                let info = contexts.into_iter().find(|info| info.id == id).ok_or_else(|| unknown(app, id))?;
                Ok(store.fork(app, id, keep.unwrap_or(info.tokens), now_ms())?)
            }
        }
    }

    pub fn pin(&mut self, app: &str, id: ContextId, pinned: bool) -> Result<()> {
        match self {
            Self::Live(service) => Ok(block_on(service.pin(app, id, pinned))?),
            Self::Stored(store) => {
                let info = store.list(app)?.into_iter().find(|info| info.id == id);
                let used_ms = info.ok_or_else(|| unknown(app, id))?.used_ms;
                Ok(store.touch(app, id, used_ms, pinned)?)
            }
        }
    }

    pub fn delete(&mut self, app: &str, id: ContextId) -> Result<()> {
        match self {
            Self::Live(service) => Ok(block_on(service.delete(app, id))?),
            Self::Stored(store) => Ok(store.delete(app, id)?),
        }
    }

    /// Make everything durable and let the store go.
    pub fn close(self) -> Result<()> {
        match self {
            Self::Live(service) => Ok(block_on(service.close()).map(drop)?),
            Self::Stored(store) => Ok(store.close()?),
        }
    }
}

/// A model's header and tokenizer; its weights are not read.
pub fn open_model(global: &GlobalArgs) -> Result<Model> {
    let path = resolve_model(global.model.as_deref(), global.offline)?;
    concertina::native::open_model(&path).with_context(|| format!("cannot open the model {}", path.display()))
}

/// The error for an id that the app has not.
pub fn unknown(app: &str, id: ContextId) -> anyhow::Error {
    anyhow!("the app `{app}` has no context {}: see `concertina ctx list --app {app}`", show_id(id))
}

/// The same error where the store or the service found out.
pub fn say_which(error: anyhow::Error, app: &str, id: Option<ContextId>) -> anyhow::Error {
    let is_unknown = error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(StoreError::UnknownContext))
            || matches!(cause.downcast_ref(), Some(concertina::Error::Store(StoreError::UnknownContext)))
    });
    match id {
        Some(id) if is_unknown => unknown(app, id),
        _ => error,
    }
}

/// A context that no process has in memory.
fn at_rest(app: &str, info: ContextInfo) -> ContextUsage {
    ContextUsage {
        app: app.to_owned(),
        id: info.id,
        tokens: info.tokens,
        created_ms: info.created_ms,
        used_ms: info.used_ms,
        pinned: info.pinned,
        residence: Residence::Disk,
        memory_chunks: std::collections::BTreeMap::new(),
        levels: info.levels,
        memory_bytes: 0,
        shared_bytes: 0,
        disk_chunks: info.chunks,
        disk_bytes: info.chunk_bytes,
        evicted_after: None,
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
