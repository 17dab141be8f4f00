//! Contexts and their tokens.

use std::collections::BTreeMap;

use redb::{ReadableDatabase, ReadableTable};

use super::chunks::unlink;
use super::crypto::{self, Aad, Key, WRAPPED};
use super::error::{Error, Result, index};
use super::keys::{self, Owner};
use super::rows::{CONTEXTS, ContextRow, ERASE, LINKS, LinkRow, REFS, ROW_TOKENS, TOKENS};
use super::{App, Store};
use crate::CHUNK_TOKENS;

/// A context's name. It is drawn at random and says nothing about other contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub u64);

/// The model that a context's tokens and chunks belong to: a hash of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelId(pub [u8; 32]);

/// What the store knows of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextInfo {
    /// Its name.
    pub id: ContextId,
    /// Its model.
    pub model: ModelId,
    /// Tokens stored.
    pub tokens: usize,
    /// When it was created, on the caller's clock.
    pub created_ms: u64,
    /// When it was last used, on the caller's clock.
    pub used_ms: u64,
    /// Whether its chunks are to stay.
    pub pinned: bool,
    /// Chunks stored.
    pub chunks: usize,
    /// Of those, by the level that computed them: percent, count.
    pub levels: BTreeMap<u32, usize>,
    /// Bytes of those chunks on disk. Contexts that share a chunk count it each.
    pub chunk_bytes: u64,
}

impl Store {
    /// A new, empty context. It is durable when this returns.
    ///
    /// # Errors
    /// Where writing fails or the disk is full.
    pub fn create(&mut self, app: &str, model: ModelId, now_ms: u64) -> Result<ContextId> {
        self.create_with(app, model, now_ms, &[], Vec::new())
    }

    /// A new context with tokens, and links to chunks: (position, chunk, density, chunk's key).
    fn create_with(
        &mut self,
        app_name: &str,
        model: ModelId,
        now_ms: u64,
        tokens: &[u32],
        chunks: Vec<(u32, u64, f32, Key)>,
    ) -> Result<ContextId> {
        self.healthy()?;
        let app = self.app(app_name)?;
        let db = self.db()?;
        let id = loop {
            let id = u64::from_le_bytes(self.random.bytes());
            let read = db.begin_read().map_err(index)?;
            if read.open_table(CONTEXTS).map_err(index)?.get(id).map_err(index)?.is_none() {
                break id;
            }
        };
        drop(db);
        let key = self.random.key();
        let slot = self.slots.take();
        let owner = Owner { store: &self.id, app: &app.id, context: id, slot };
        let row = ContextRow {
            app: app.id,
            model: model.0,
            slot,
            tokens: count(tokens.len())?,
            created_ms: now_ms,
            used_ms: now_ms,
            pinned: false,
            app_name: app_name.to_owned(),
        };
        // The key must be on disk before anything that needs it.
        if let Err(error) = keys::write(&self.disk, &mut self.random, &app.key, owner, &key) {
            self.slots.give(slot);
            return Err(error);
        }
        let token_rows = self.seal_tokens(&app, id, &key, 0, tokens);
        let links: Vec<_> = chunks
            .into_iter()
            .map(|(position, chunk, density, chunk_key)| {
                let wrapped = self.wrap_chunk_key(&app, id, &key, position, chunk, &chunk_key);
                (position, LinkRow { chunk, density, wrapped })
            })
            .collect();
        let committed = self.commit(true, |txn| {
            let mut token_table = txn.open_table(TOKENS).map_err(index)?;
            for (n, sealed) in &token_rows {
                token_table.insert((id, *n), sealed.as_slice()).map_err(index)?;
            }
            let mut link_table = txn.open_table(LINKS).map_err(index)?;
            let mut refs = txn.open_table(REFS).map_err(index)?;
            for (position, link) in &links {
                link_table.insert((id, *position), link.encode().as_slice()).map_err(index)?;
                refs.insert((link.chunk, id), ()).map_err(index)?;
            }
            let mut contexts = txn.open_table(CONTEXTS).map_err(index)?;
            contexts.insert(id, row.encode().as_slice()).map_err(index)?;
            Ok(())
        });
        match committed {
            Ok(()) => {
                self.keys.insert(id, key);
                Ok(ContextId(id))
            }
            Err(error) => {
                // A failed commit has opened the index again, and with it learned which slots are free.
                if self.db.is_none() {
                    self.slots.give(slot);
                }
                Err(error)
            }
        }
    }

    /// Append tokens, durable when this returns. `at` is the position of the first; tokens that are stored already are
    /// compared, so that a call can be repeated.
    ///
    /// # Errors
    /// [`Error::Diverged`] where the tokens do not continue the stored ones; where writing fails or the disk is full.
    pub fn append(&mut self, app: &str, context: ContextId, at: usize, tokens: &[u32], now_ms: u64) -> Result<()> {
        let (app, row) = self.find(app, context)?;
        let stored = row.tokens as usize;
        let diverged = Error::Diverged { stored, at };
        let Some(known) = stored.checked_sub(at).map(|known| known.min(tokens.len())) else { return Err(diverged) };
        if known > 0 && self.tokens_of(&app, context.0, &row)?[at..at + known] != tokens[..known] {
            return Err(diverged);
        }
        if known == tokens.len() {
            return Ok(());
        }
        self.rewrite(&app, context.0, row, stored, &tokens[known..], now_ms)
    }

    /// Keep the first `keep` tokens and put others behind them, in one step: both or neither survives. Chunks that reach
    /// past `keep` are dropped.
    ///
    /// # Errors
    /// [`Error::Diverged`] where fewer than `keep` tokens are stored; where writing fails or the disk is full.
    pub fn replace(&mut self, app: &str, context: ContextId, keep: usize, tail: &[u32], now_ms: u64) -> Result<()> {
        let (app, row) = self.find(app, context)?;
        if keep > row.tokens as usize {
            return Err(Error::Diverged { stored: row.tokens as usize, at: keep });
        }
        self.rewrite(&app, context.0, row, keep, tail, now_ms)
    }

    /// All tokens of a context.
    ///
    /// # Errors
    /// Where reading fails, or [`Error::Damaged`].
    pub fn tokens(&mut self, app: &str, context: ContextId) -> Result<Vec<u32>> {
        let (app, row) = self.find(app, context)?;
        self.tokens_of(&app, context.0, &row)
    }

    /// A new context that starts with the first `keep` tokens of another of the same app, and shares their chunks.
    ///
    /// # Errors
    /// [`Error::Diverged`] where fewer than `keep` tokens are stored; where reading or writing fails, or the disk is full.
    pub fn fork(&mut self, app_name: &str, context: ContextId, keep: usize, now_ms: u64) -> Result<ContextId> {
        let (app, row) = self.find(app_name, context)?;
        let mut tokens = self.tokens_of(&app, context.0, &row)?;
        if keep > tokens.len() {
            return Err(Error::Diverged { stored: tokens.len(), at: keep });
        }
        tokens.truncate(keep);
        let key = self.context_key(&app, context.0, row.slot)?;
        let mut chunks = Vec::new();
        for (position, link) in self.links(context.0, count(keep / CHUNK_TOKENS)?)? {
            // A link that does not open is a chunk that is missing.
            if let Some(chunk_key) = self.unwrap_chunk_key(&app, context.0, &key, position, &link) {
                chunks.push((position, link.chunk, link.density, chunk_key));
            }
        }
        self.create_with(app_name, ModelId(row.model), now_ms, &tokens, chunks)
    }

    /// Delete a context: its key is destroyed when this returns, and with it whatever of it is left in any file.
    ///
    /// # Errors
    /// Where writing fails. If the context is gone nevertheless, its key is destroyed when the store is next opened.
    pub fn delete(&mut self, app: &str, context: ContextId) -> Result<()> {
        let (_, row) = self.find(app, context)?;
        let id = context.0;
        let freed = self.commit(true, |txn| {
            let mut freed = Vec::new();
            unlink(txn, id, 0..u32::MAX, &mut freed)?;
            let mut tokens = txn.open_table(TOKENS).map_err(index)?;
            tokens.retain_in((id, 0)..=(id, u32::MAX), |_, _| false).map_err(index)?;
            txn.open_table(CONTEXTS).map_err(index)?.remove(id).map_err(index)?;
            txn.open_table(ERASE).map_err(index)?.insert(row.slot, ()).map_err(index)?;
            Ok(freed)
        })?;
        self.keys.remove(&id);
        self.give_back(freed);
        keys::erase(&self.disk, row.slot)?;
        self.forget_erased(&[row.slot])?;
        self.slots.give(row.slot);
        Ok(())
    }

    /// Note that a context is used, and whether it is pinned. Not made durable at once.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn touch(&mut self, app: &str, context: ContextId, now_ms: u64, pinned: bool) -> Result<()> {
        let (_, mut row) = self.find(app, context)?;
        (row.used_ms, row.pinned) = (now_ms, pinned);
        self.commit(false, |txn| {
            let mut contexts = txn.open_table(CONTEXTS).map_err(index)?;
            contexts.insert(context.0, row.encode().as_slice()).map(drop).map_err(index)
        })
    }

    /// An app's contexts.
    ///
    /// # Errors
    /// Where reading fails.
    pub fn list(&mut self, app: &str) -> Result<Vec<ContextInfo>> {
        let app = self.app(app)?;
        Ok(self.all_contexts()?.into_iter().filter(|(row, _)| row.app == app.id).map(|(_, info)| info).collect())
    }

    /// Names of all apps that have contexts. For the owner of the device, not for apps.
    ///
    /// # Errors
    /// Where reading fails.
    pub fn apps(&mut self) -> Result<Vec<String>> {
        let mut names: Vec<_> = self.all_contexts()?.into_iter().map(|(row, _)| row.app_name).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn all_contexts(&mut self) -> Result<Vec<(ContextRow, ContextInfo)>> {
        let read = self.db()?.begin_read().map_err(index)?;
        let links = read.open_table(LINKS).map_err(index)?;
        let chunks = read.open_table(super::rows::CHUNKS).map_err(index)?;
        let mut found = Vec::new();
        for entry in read.open_table(CONTEXTS).map_err(index)?.iter().map_err(index)? {
            let (id, row) = entry.map_err(index)?;
            let row = ContextRow::decode(row.value()).ok_or(Error::Damaged("a context's row"))?;
            let id = id.value();
            let (mut count, mut bytes, mut levels) = (0, 0, BTreeMap::new());
            for link in links.range((id, 0)..=(id, u32::MAX)).map_err(index)? {
                let link = LinkRow::decode(link.map_err(index)?.1.value()).ok_or(Error::Damaged("a link"))?;
                let chunk = chunks.get(link.chunk).map_err(index)?;
                let row = chunk.and_then(|row| super::ChunkRow::decode(row.value()));
                if let Some(row) = &row {
                    *levels.entry(u32::from(row.level)).or_default() += 1;
                }
                let run = row.and_then(|row| row.run());
                count += 1;
                bytes += run.map_or(0, |run| u64::from(run.len));
            }
            let info = ContextInfo {
                id: ContextId(id),
                model: ModelId(row.model),
                tokens: row.tokens as usize,
                created_ms: row.created_ms,
                used_ms: row.used_ms,
                pinned: row.pinned,
                chunks: count,
                levels,
                chunk_bytes: bytes,
            };
            found.push((row, info));
        }
        Ok(found)
    }

    /// A context of this app. Another app's is as unknown as one that never was.
    pub(super) fn find(&mut self, app: &str, context: ContextId) -> Result<(App, ContextRow)> {
        let app = self.app(app)?;
        let read = self.db()?.begin_read().map_err(index)?;
        let row = read.open_table(CONTEXTS).map_err(index)?.get(context.0).map_err(index)?;
        let row = row.ok_or(Error::UnknownContext)?;
        let row = ContextRow::decode(row.value()).ok_or(Error::Damaged("a context's row"))?;
        if row.app != app.id { Err(Error::UnknownContext) } else { Ok((app, row)) }
    }

    pub(super) fn context_key(&mut self, app: &App, context: u64, slot: u32) -> Result<Key> {
        if let Some(key) = self.keys.get(&context) {
            return Ok(key.clone());
        }
        let owner = Owner { store: &self.id, app: &app.id, context, slot };
        let key = keys::read(&self.disk, &app.key, owner)?;
        self.keys.insert(context, key.clone());
        Ok(key)
    }

    pub(super) fn tokens_of(&mut self, app: &App, context: u64, row: &ContextRow) -> Result<Vec<u32>> {
        let rows = (row.tokens as usize).div_ceil(ROW_TOKENS) as u32;
        let mut tokens = Vec::with_capacity(row.tokens as usize);
        for n in 0..rows {
            let expected = (row.tokens as usize - tokens.len()).min(ROW_TOKENS);
            tokens.extend(self.token_row(app, context, row.slot, n, expected)?);
        }
        Ok(tokens)
    }

    fn token_row(&mut self, app: &App, context: u64, slot: u32, n: u32, expected: usize) -> Result<Vec<u32>> {
        let damaged = || Error::Damaged("a context's tokens");
        let key = self.context_key(app, context, slot)?;
        let read = self.db()?.begin_read().map_err(index)?;
        let row = read.open_table(TOKENS).map_err(index)?.get((context, n)).map_err(index)?.ok_or_else(damaged)?;
        let aad = self.token_aad(app, context, n, expected);
        let plain = crypto::open(&key, &aad, row.value()).ok_or_else(damaged)?;
        let (words, rest) = plain.as_chunks::<4>();
        if words.len() != expected || !rest.is_empty() {
            return Err(damaged());
        }
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn token_aad(&self, app: &App, context: u64, n: u32, tokens: usize) -> Aad {
        let aad = Aad::new(b"tokens.1").bytes(&self.id).bytes(&app.id);
        aad.number(context).number(n.into()).number(tokens as u64)
    }

    /// Rows of tokens from row `first` on.
    fn seal_tokens(&mut self, app: &App, context: u64, key: &Key, first: u32, tokens: &[u32]) -> Vec<(u32, Vec<u8>)> {
        let mut rows = Vec::new();
        for (n, part) in (first..).zip(tokens.chunks(ROW_TOKENS)) {
            let plain: Vec<u8> = part.iter().flat_map(|token| token.to_le_bytes()).collect();
            let aad = self.token_aad(app, context, n, part.len());
            rows.push((n, crypto::seal(key, &mut self.random, &aad, &plain)));
        }
        rows
    }

    fn rewrite(
        &mut self,
        app: &App,
        context: u64,
        mut row: ContextRow,
        keep: usize,
        tail: &[u32],
        now_ms: u64,
    ) -> Result<()> {
        let key = self.context_key(app, context, row.slot)?;
        let first = (keep / ROW_TOKENS) as u32;
        let mut tokens = Vec::new();
        if !keep.is_multiple_of(ROW_TOKENS) {
            let expected = (row.tokens as usize - first as usize * ROW_TOKENS).min(ROW_TOKENS);
            tokens = self.token_row(app, context, row.slot, first, expected)?;
            tokens.truncate(keep % ROW_TOKENS);
        }
        tokens.extend_from_slice(tail);
        let rows = self.seal_tokens(app, context, &key, first, &tokens);
        // A chunk that is continued is another chunk.
        let changes_chunks = keep < row.tokens as usize || !keep.is_multiple_of(CHUNK_TOKENS);
        row.tokens = count(keep.saturating_add(tail.len()))?;
        row.used_ms = now_ms;
        let freed = self.commit(true, |txn| {
            let mut freed = Vec::new();
            if changes_chunks {
                unlink(txn, context, (keep / CHUNK_TOKENS) as u32..u32::MAX, &mut freed)?;
            }
            let mut table = txn.open_table(TOKENS).map_err(index)?;
            let last = first + rows.len() as u32;
            table.retain_in((context, last)..=(context, u32::MAX), |_, _| false).map_err(index)?;
            for (n, sealed) in &rows {
                table.insert((context, *n), sealed.as_slice()).map_err(index)?;
            }
            let mut contexts = txn.open_table(CONTEXTS).map_err(index)?;
            contexts.insert(context, row.encode().as_slice()).map_err(index)?;
            Ok(freed)
        })?;
        self.give_back(freed);
        Ok(())
    }

    fn chunk_key_aad(&self, app: &App, context: u64, position: u32, chunk: u64) -> Aad {
        let aad = Aad::new(b"chkkey.1").bytes(&self.id).bytes(&app.id);
        aad.number(context).number(position.into()).number(chunk)
    }

    pub(super) fn wrap_chunk_key(
        &mut self,
        app: &App,
        context: u64,
        key: &Key,
        position: u32,
        chunk: u64,
        chunk_key: &Key,
    ) -> [u8; WRAPPED] {
        let aad = self.chunk_key_aad(app, context, position, chunk);
        let sealed = crypto::seal(key, &mut self.random, &aad, &chunk_key[..]);
        std::array::from_fn(|i| sealed[i])
    }

    pub(super) fn unwrap_chunk_key(
        &self,
        app: &App,
        context: u64,
        key: &Key,
        position: u32,
        link: &LinkRow,
    ) -> Option<Key> {
        crypto::open_key(key, &self.chunk_key_aad(app, context, position, link.chunk), &link.wrapped)
    }

    /// Links of a context below a position.
    pub(super) fn links(&mut self, context: u64, below: u32) -> Result<Vec<(u32, LinkRow)>> {
        let read = self.db()?.begin_read().map_err(index)?;
        let table = read.open_table(LINKS).map_err(index)?;
        let mut links = Vec::new();
        for entry in table.range((context, 0)..(context, below)).map_err(index)? {
            let (key, row) = entry.map_err(index)?;
            links.push((key.value().1, LinkRow::decode(row.value()).ok_or(Error::Damaged("a link"))?));
        }
        Ok(links)
    }
}

pub(super) fn count(tokens: usize) -> Result<u32> {
    // Positions in chunks and rows stay far below the ends of their types.
    u32::try_from(tokens).ok().filter(|n| *n < 1 << 30).ok_or(Error::Invalid("a context holds at most 2^30 tokens"))
}
