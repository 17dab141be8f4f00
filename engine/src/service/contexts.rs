//! Contexts by app: make, find, list, fork, shorten, delete.

use std::collections::BTreeMap;

use concertina_formats::ChatMessage;
use concertina_kv::CHUNK_TOKENS;
use concertina_kv::store::{ContextId, ContextInfo, Error as StoreError};

use super::{ContextUsage, Entry, Residence, Service};
use crate::{Context, Error, Result};

impl Service {
    /// A new context of an app. A system prompt goes first; where the app has chunks of the same beginning they are shared.
    ///
    /// # Errors
    /// [`Error::TooManyContexts`]; where the disk is full or fails; where the model's chat template refuses the prompt.
    pub async fn create(&mut self, app: &str, system: Option<&str>) -> Result<ContextId> {
        self.recover().await?;
        let tokens = match system {
            Some(text) => self.system_tokens(text)?,
            None => Vec::new(),
        };
        self.check_count(app).await?;
        let (name, model, now) = (app.to_owned(), self.model, Self::now_ms());
        let id = self.keeper.ask(move |store| {
            let id = store.create(&name, model, now)?;
            if !tokens.is_empty() {
                store.append(&name, id, 0, &tokens, now)?;
                store.adopt(&name, id, 100)?;
            }
            Ok::<_, StoreError>(id)
        });
        let id = id.await??;
        self.load(app, id).await?;
        Ok(id)
    }

    /// A new context that begins with the first `keep` tokens of another of the app (`None`: all), and shares their chunks
    /// on disk and, when it is called, in memory.
    ///
    /// # Errors
    /// As [`Service::create`]; [`Error::Store`] for a context that the app has not, or with fewer tokens.
    pub async fn fork(&mut self, app: &str, context: ContextId, keep: Option<usize>) -> Result<ContextId> {
        self.recover().await?;
        self.load(app, context).await?;
        self.check_count(app).await?;
        // What is shared must have arrived.
        let reports = self.keeper.settle(context.0).await;
        self.note(reports);
        let keep = keep.unwrap_or(self.entry(context.0)?.stored);
        let (name, now) = (app.to_owned(), Self::now_ms());
        let id = self.keeper.ask(move |store| store.fork(&name, context, keep, now)).await??;
        self.load(app, id).await?;
        Ok(id)
    }

    /// Drop the oldest turns behind the first `keep` tokens, so that at most `tokens` remain. Turns end where the model ends
    /// its answers. What remains is computed anew when the context is next called, for its positions have changed. Returns
    /// how many tokens went.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not; where the disk is full or fails.
    pub async fn compact(&mut self, app: &str, context: ContextId, keep: usize, tokens: usize) -> Result<usize> {
        self.recover().await?;
        self.load(app, context).await?;
        let key = context.0;
        let reports = self.keeper.settle(key).await;
        self.note(reports);
        let (all, is_end) = (&self.entry(key)?.context.tokens, |t: u32| self.engine.tokenizer().is_end(t));
        let (keep, from) = super::turns::cut(all, keep, tokens, is_end);
        if from == keep {
            return Ok(0);
        }
        let tail = all[from..].to_vec();
        let (name, now, rest) = (app.to_owned(), Self::now_ms(), tail.clone());
        self.keeper.ask(move |store| store.replace(&name, context, keep, &rest, now)).await??;
        let entry = self.entry_mut(key)?;
        entry.context.truncate(keep);
        entry.context.tokens.extend_from_slice(&tail);
        (entry.stored, entry.used_ms) = (entry.context.tokens.len(), now);
        let left = entry.context.table.tokens();
        entry.forget(left.div_ceil(CHUNK_TOKENS));
        entry.levels.truncate(left.div_ceil(CHUNK_TOKENS));
        self.manager.truncate(key, left);
        self.refresh(app, context).await?;
        Ok(from - keep)
    }

    /// Delete a context: its key is destroyed, and with it whatever is left of it in any file; its pages are overwritten.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not, or where writing fails.
    pub async fn delete(&mut self, app: &str, context: ContextId) -> Result<()> {
        self.recover().await?;
        self.load(app, context).await?;
        let reports = self.keeper.settle(context.0).await;
        self.note(reports);
        let name = app.to_owned();
        self.keeper.ask(move |store| store.delete(&name, context)).await??;
        let wiped = self.wipe(context.0).await;
        self.manager.remove(context.0);
        self.entries.remove(&context.0);
        wiped
    }

    /// Keep a context's chunks in memory whatever others need, or let them go again.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not, or where writing fails.
    pub async fn pin(&mut self, app: &str, context: ContextId, pinned: bool) -> Result<()> {
        self.recover().await?;
        self.load(app, context).await?;
        let (name, entry) = (app.to_owned(), self.entry_mut(context.0)?);
        entry.pinned = pinned;
        let used_ms = entry.used_ms;
        self.manager.pin(context.0, pinned, used_ms);
        self.keeper.ask(move |store| store.touch(&name, context, used_ms, pinned)).await??;
        Ok(())
    }

    /// An app's contexts.
    ///
    /// # Errors
    /// Where reading the store fails.
    pub async fn list(&mut self, app: &str) -> Result<Vec<ContextUsage>> {
        let reports = self.keeper.reports();
        self.note(reports);
        let name = app.to_owned();
        let known = self.keeper.ask(move |store| store.list(&name)).await??;
        let order: Vec<u64> = self.manager.eviction_order().map(|key| key.0).collect();
        Ok(known.into_iter().map(|info| self.usage_of(app, info, &order)).collect())
    }

    /// One context.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not.
    pub async fn usage(&mut self, app: &str, context: ContextId) -> Result<ContextUsage> {
        let found = self.list(app).await?.into_iter().find(|usage| usage.id == context);
        found.ok_or(Error::Store(StoreError::UnknownContext))
    }

    /// Names of all apps that have contexts: for the owner of the device, not for apps.
    ///
    /// # Errors
    /// Where reading the store fails.
    pub async fn apps(&mut self) -> Result<Vec<String>> {
        Ok(self.keeper.ask(|store| store.apps()).await??)
    }

    /// Most tokens of a context. Whether as many fit the budget of memory depends on their widths.
    pub fn context_limit(&self) -> usize {
        self.engine.device.as_ref().map_or(0, |device| device.forward.capacity().context_tokens)
    }

    /// Tokens of a text, as the model counts them.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn measure(&self, text: &str) -> Result<usize> {
        Ok(self.engine.tokenizer().encode(text, false)?.len())
    }

    /// A context's tokens.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not.
    pub async fn tokens(&mut self, app: &str, context: ContextId) -> Result<Vec<u32>> {
        self.recover().await?;
        self.load(app, context).await?;
        Ok(self.entry(context.0)?.context.tokens.clone())
    }

    /// The tokens that continue a context with a user's message, ready for the answer.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not; where the chat template refuses the message.
    pub async fn turn(&mut self, app: &str, context: ContextId, message: &str) -> Result<Vec<u32>> {
        self.recover().await?;
        self.load(app, context).await?;
        super::turns::turn(&self.engine.model, &self.entry(context.0)?.context.tokens, message)
    }

    fn system_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let model = &self.engine.model;
        let text = match &model.chat {
            Some(chat) => chat.render(&[ChatMessage { role: "system".into(), content: text.into() }], false)?,
            None => text.to_owned(),
        };
        let tokens = model.tokenizer.encode_prompt(&text, model.chat.is_some())?;
        let limit = self.context_limit();
        if tokens.len() > limit {
            return Err(Error::ContextFull { tokens: tokens.len(), limit });
        }
        Ok(tokens)
    }

    async fn check_count(&mut self, app: &str) -> Result<()> {
        let (name, limit) = (app.to_owned(), self.options.contexts_per_app);
        let have = self.keeper.ask(move |store| store.list(&name)).await??.len();
        if have >= limit { Err(Error::TooManyContexts { limit }) } else { Ok(()) }
    }

    /// Have a context ready to be called. For one that the app has not the error does not tell whether another has it.
    pub(super) async fn load(&mut self, app: &str, context: ContextId) -> Result<()> {
        if let Some(entry) = self.entries.get(&context.0) {
            let known = entry.app == app;
            return if known { Ok(()) } else { Err(Error::Store(StoreError::UnknownContext)) };
        }
        let name = app.to_owned();
        let found = self.keeper.ask(move |store| {
            let info = store.list(&name)?.into_iter().find(|info| info.id == context);
            let info = info.ok_or(StoreError::UnknownContext)?;
            Ok::<_, StoreError>((info, store.tokens(&name, context)?, store.readers(&name, context)?))
        });
        let (info, tokens, readers): (ContextInfo, _, _) = found.await??;
        if info.model != self.model {
            return Err(Error::Invalid("this context belongs to another model: run that one to use it".into()));
        }
        self.sync_device().await?;
        let kv = self.engine.device().await?.kv.clone();
        // The last token of an answer was never run.
        let written = tokens.len().saturating_sub(1);
        let parked = Context::parked(kv, self.generation, tokens, written);
        let mut entry = Entry::new(app, parked, info.created_ms);
        (entry.pinned, entry.used_ms) = (info.pinned, info.used_ms);
        entry.set_readers(readers);
        entry.recall_densities();
        entry.recall_levels();
        // The call that follows says at which level.
        let (disk, pinned, used_ms) = (entry.on_disk(|_| true), entry.pinned, entry.used_ms);
        self.manager.add(context.0, &disk);
        self.manager.pin(context.0, pinned, used_ms);
        self.entries.insert(context.0, entry);
        Ok(())
    }

    /// Learn anew what is on disk of a context.
    async fn refresh(&mut self, app: &str, context: ContextId) -> Result<()> {
        let name = app.to_owned();
        let readers = self.keeper.ask(move |store| store.readers(&name, context)).await??;
        self.entry_mut(context.0)?.set_readers(readers);
        Ok(())
    }

    /// Overwrite every page that a context has and every free one: chunks that were evicted or became narrower have left
    /// copies there.
    async fn wipe(&mut self, key: u64) -> Result<()> {
        self.reset(key);
        let units = self.entry(key)?.context.free_units();
        let device = self.engine.device().await?;
        device.forward.clear_units(&mut device.backend, &units)?;
        device.backend.flush().await
    }

    fn usage_of(&self, app: &str, info: ContextInfo, order: &[u64]) -> ContextUsage {
        let state = self.manager.state(info.id.0);
        let mut memory_chunks = BTreeMap::new();
        state.iter().filter_map(|(memory, _)| *memory).for_each(|w| *memory_chunks.entry(w.bits()).or_default() += 1);
        let resident: usize = memory_chunks.values().sum();
        let residence = match resident {
            0 => Residence::Disk,
            n if n == state.len() => Residence::Memory,
            _ => Residence::Partly,
        };
        let (memory_bytes, shared_bytes) = self.manager.memory_bytes(info.id.0);
        let entry = self.entries.get(&info.id.0);
        let levels = entry.map_or_else(
            || info.levels.clone(),
            |entry| {
                let kept = state.iter().zip(&entry.levels).filter(|((memory, disk), _)| memory.or(*disk).is_some());
                let mut levels = BTreeMap::new();
                kept.for_each(|(_, level)| *levels.entry(*level).or_default() += 1);
                levels
            },
        );
        ContextUsage {
            levels,
            app: app.to_owned(),
            id: info.id,
            tokens: info.tokens,
            created_ms: info.created_ms,
            used_ms: entry.map_or(info.used_ms, |entry| entry.used_ms.max(info.used_ms)),
            pinned: info.pinned,
            residence,
            memory_chunks,
            memory_bytes,
            shared_bytes,
            disk_chunks: info.chunks,
            disk_bytes: info.chunk_bytes,
            evicted_after: order.iter().position(|key| *key == info.id.0),
        }
    }
}
