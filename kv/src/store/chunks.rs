//! Chunks: stored once in an app, linked by every context that continues the same prefix.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::contexts::{ContextId, count};
use super::crypto::{Key, TAG};
use super::error::{Error, Result, index};
use super::extent::ExtentKey;
use super::reader::{ChunkReader, extent_aad};
use super::rows::{
    CHUNKS, CONTEXTS, ChunkRow, ContextRow, LINKS, LinkRow, META, NEXT_CHUNK, PREFIXES, Prefix, REFS, prefix_key,
};
use super::space::{Run, segment_name};
use super::{App, Store};
use crate::{CHUNK_TOKENS, Width};

/// A chunk to store.
#[derive(Debug, Clone, Copy)]
pub struct ChunkPut<'a> {
    /// Index of the chunk in its context.
    pub index: usize,
    /// Tokens whose keys and values it holds, 1 to 16, all of them stored already.
    pub tokens: usize,
    /// Level of the sub-model that computed it.
    pub level: u16,
    /// Width of its elements.
    pub width: Width,
    /// Its share of attention.
    pub density: f32,
    /// Contents of each layer.
    pub layers: &'a [&'a [u8]],
}

/// What became of chunks that were put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Chunks written.
    pub written: usize,
    /// Chunks that the app had already.
    pub shared: usize,
    /// Bytes written.
    pub bytes: u64,
}

/// A chunk that is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkInfo {
    /// Index of the chunk in its context.
    pub index: usize,
    /// Tokens whose keys and values it holds.
    pub tokens: usize,
    /// Level of the sub-model that computed it.
    pub level: u16,
    /// Width of its elements.
    pub width: Width,
    /// Its share of attention.
    pub density: f32,
    /// Sealed bytes of all layers.
    pub bytes: u64,
}

/// A put on its way: what the index will say.
struct Placed {
    position: u32,
    link: LinkRow,
    /// Absent where the chunk was there before.
    new: Option<ChunkRow>,
}

/// Remove a context's links in a range of positions, and chunks that nobody links to any more.
pub(super) fn unlink(txn: &WriteTransaction, context: u64, positions: Range<u32>, freed: &mut Vec<Run>) -> Result<()> {
    let mut links = txn.open_table(LINKS).map_err(index)?;
    let mut refs = txn.open_table(REFS).map_err(index)?;
    let mut chunks = txn.open_table(CHUNKS).map_err(index)?;
    let mut prefixes = txn.open_table(PREFIXES).map_err(index)?;
    let mut gone = Vec::new();
    for link in
        links.extract_from_if((context, positions.start)..(context, positions.end), |_, _| true).map_err(index)?
    {
        let link = LinkRow::decode(link.map_err(index)?.1.value()).ok_or(Error::Damaged("a link"))?;
        gone.push(link.chunk);
    }
    for chunk in gone {
        refs.remove((chunk, context)).map_err(index)?;
        if refs.range((chunk, 0)..=(chunk, u64::MAX)).map_err(index)?.next().is_some() {
            continue;
        }
        let row = chunks.remove(chunk).map_err(index)?;
        let Some(row) = row.and_then(|row| ChunkRow::decode(row.value())) else { continue };
        let key = row.prefix_key();
        if prefixes.get(key.as_slice()).map_err(index)?.is_some_and(|known| known.value() == chunk) {
            prefixes.remove(key.as_slice()).map_err(index)?;
        }
        freed.extend(row.run());
    }
    Ok(())
}

impl Store {
    /// Store chunks of a context, replacing what is stored at their positions. Chunks are a cache: after a power cut they
    /// may be missing.
    ///
    /// # Errors
    /// [`Error::DiskFull`], and then nothing changed; [`Error::Invalid`] where a chunk's tokens are not stored; where
    /// writing fails.
    pub fn put_chunks(&mut self, app: &str, context: ContextId, puts: &[ChunkPut<'_>]) -> Result<PutReport> {
        self.healthy()?;
        let (app, row) = self.find(app, context)?;
        self.validate(&row, puts)?;
        match self.put_found(&app, context, &row, puts) {
            // What was dropped lately becomes free with the next durable commit.
            Err(Error::DiskFull) if !self.held.is_empty() => {
                self.commit(true, |_| Ok(()))?;
                self.put_found(&app, context, &row, puts)
            }
            result => result,
        }
    }

    fn put_found(
        &mut self,
        app: &App,
        context: ContextId,
        row: &ContextRow,
        puts: &[ChunkPut<'_>],
    ) -> Result<PutReport> {
        let key = self.context_key(app, context.0, row.slot)?;
        let prefixes = self.prefixes(app, context.0, row)?;
        let db = self.db()?;
        let read = db.begin_read().map_err(index)?;
        let next = read.open_table(META).map_err(index)?.get(NEXT_CHUNK).map_err(index)?;
        let mut next = next.map_or(0, |next| next.value());
        drop((read, db));
        let (mut placed, mut report) = (Vec::with_capacity(puts.len()), PutReport::default());
        for put in puts {
            let position = put.index as u32;
            let prefix = prefixes.of(put.index, put.tokens).ok_or(Error::Invalid("a chunk's tokens are not stored"))?;
            let known = self.shared_chunk(app, &prefix, put.level, put.width)?;
            if let Some((chunk, chunk_key)) = known {
                let wrapped = self.wrap_chunk_key(app, context.0, &key, position, chunk, &chunk_key);
                placed.push(Placed { position, link: LinkRow { chunk, density: put.density, wrapped }, new: None });
                report.shared += 1;
                continue;
            }
            let chunk_key = self.random.key();
            let new = self.write_chunk(app, row, next, &chunk_key, prefix, put);
            let new = new.inspect_err(|_| {
                let runs = placed.iter().filter_map(|placed: &Placed| placed.new.as_ref()?.run()).collect();
                self.give_back(runs);
            })?;
            report.written += 1;
            report.bytes += new.run().map_or(0, |run| u64::from(run.len));
            let wrapped = self.wrap_chunk_key(app, context.0, &key, position, next, &chunk_key);
            placed.push(Placed {
                position,
                link: LinkRow { chunk: next, density: put.density, wrapped },
                new: Some(new),
            });
            next += 1;
        }
        let new_runs: Vec<Run> = placed.iter().filter_map(|placed| placed.new.as_ref()?.run()).collect();
        let committed = self.commit(false, |txn| {
            let mut freed = Vec::new();
            for placed in &placed {
                link(txn, context.0, placed, &mut freed)?;
            }
            txn.open_table(META).map_err(index)?.insert(NEXT_CHUNK, next).map_err(index)?;
            Ok(freed)
        });
        match committed {
            Ok(freed) => self.held.extend(freed),
            Err(error) => {
                // Opening the index again has counted anew; otherwise the runs are still taken.
                if self.db.is_none() {
                    self.give_back(new_runs);
                }
                return Err(error);
            }
        }
        Ok(report)
    }

    fn validate(&self, row: &ContextRow, puts: &[ChunkPut<'_>]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for put in puts {
            let end = put.index.saturating_mul(CHUNK_TOKENS).saturating_add(put.tokens);
            if !(1..=CHUNK_TOKENS).contains(&put.tokens) || end > row.tokens as usize {
                return Err(Error::Invalid("a chunk is stored only after all its tokens"));
            }
            if !seen.insert(put.index) {
                return Err(Error::Invalid("a chunk was given twice"));
            }
            if put.layers.is_empty() || put.layers.len() > usize::from(u16::MAX) {
                return Err(Error::Invalid("a chunk has 1 to 65535 layers"));
            }
            let sealed: usize = put.layers.iter().map(|layer| layer.len().saturating_add(TAG)).sum();
            if sealed > self.segment_bytes as usize {
                return Err(Error::Invalid("a chunk is larger than a segment"));
            }
        }
        Ok(())
    }

    /// Seal a chunk and write it to free space, unsynced: should it be lost, it does not open.
    fn write_chunk(
        &mut self,
        app: &App,
        context: &ContextRow,
        id: u64,
        key: &Key,
        prefix: Prefix,
        put: &ChunkPut<'_>,
    ) -> Result<ChunkRow> {
        let lens: Vec<u32> = put.layers.iter().map(|layer| (layer.len() + TAG) as u32).collect();
        let run = self.space.take(lens.iter().sum());
        let row = ChunkRow {
            app: app.id,
            model: context.model,
            prefix,
            position: put.index as u32,
            tokens: put.tokens as u8,
            level: put.level,
            width: put.width,
            cipher: self.cipher,
            segment: run.segment,
            offset: run.offset,
            lens,
        };
        let mut sealed = Vec::with_capacity(run.len as usize);
        let key = ExtentKey::new(self.cipher, key);
        let mut aad = extent_aad(&self.id, id, &row, 0);
        for (layer, contents) in (0..).zip(put.layers) {
            aad.set_last(layer);
            key.seal(layer, &aad, contents, &mut sealed);
        }
        self.unsynced.insert(run.segment);
        let written = self.disk.write_at(&segment_name(run.segment), run.offset.into(), &sealed);
        if let Err(error) = written {
            self.space.give(run);
            return Err(Error::io("writing a chunk")(error));
        }
        Ok(row)
    }

    /// The app's chunk that continues this prefix, with its key. `None` also where it is linked by nobody whose key opens.
    fn shared_chunk(&mut self, app: &App, prefix: &Prefix, level: u16, width: Width) -> Result<Option<(u64, Key)>> {
        let read = self.db()?.begin_read().map_err(index)?;
        let prefixes = read.open_table(PREFIXES).map_err(index)?;
        let Some(chunk) = prefixes.get(prefix_key(prefix, level, width).as_slice()).map_err(index)? else {
            return Ok(None);
        };
        let chunk = chunk.value();
        let Some(row) = read.open_table(CHUNKS).map_err(index)?.get(chunk).map_err(index)? else { return Ok(None) };
        let Some(row) = ChunkRow::decode(row.value()) else { return Ok(None) };
        let refs = read.open_table(REFS).map_err(index)?;
        let links = read.open_table(LINKS).map_err(index)?;
        let contexts = read.open_table(CONTEXTS).map_err(index)?;
        for entry in refs.range((chunk, 0)..=(chunk, u64::MAX)).map_err(index)? {
            let owner = entry.map_err(index)?.0.value().1;
            let Some(context) = contexts.get(owner).map_err(index)? else { continue };
            let Some(context) = ContextRow::decode(context.value()) else { continue };
            let Some(link) = links.get((owner, row.position)).map_err(index)? else { continue };
            let Some(link) = LinkRow::decode(link.value()) else { continue };
            if context.app != app.id || link.chunk != chunk {
                continue;
            }
            let Ok(key) = self.context_key(app, owner, context.slot) else { continue };
            if let Some(chunk_key) = self.unwrap_chunk_key(app, owner, &key, row.position, &link) {
                return Ok(Some((chunk, chunk_key)));
            }
        }
        Ok(None)
    }

    /// Link chunks of this level that the app has already, for all positions that have none. Returns how many.
    ///
    /// # Errors
    /// Where reading or writing fails.
    pub fn adopt(&mut self, app: &str, context: ContextId, level: u16) -> Result<usize> {
        let (app, row) = self.find(app, context)?;
        let key = self.context_key(&app, context.0, row.slot)?;
        let prefixes = self.prefixes(&app, context.0, &row)?;
        let linked: BTreeSet<u32> =
            self.links(context.0, u32::MAX)?.into_iter().map(|(position, _)| position).collect();
        let mut placed = Vec::new();
        for (position, prefix) in (0..).zip(&prefixes.whole) {
            if linked.contains(&position) {
                continue;
            }
            for width in [Width::W16, Width::W8, Width::W4, Width::W2] {
                if let Some((chunk, chunk_key)) = self.shared_chunk(&app, prefix, level, width)? {
                    let wrapped = self.wrap_chunk_key(&app, context.0, &key, position, chunk, &chunk_key);
                    // Whether this context looks at the chunk as others do is not known yet.
                    placed.push(Placed { position, link: LinkRow { chunk, density: 0.0, wrapped }, new: None });
                    break;
                }
            }
        }
        if !placed.is_empty() {
            self.commit(false, |txn| {
                placed.iter().try_for_each(|placed| link(txn, context.0, placed, &mut Vec::new()))
            })?;
        }
        Ok(placed.len())
    }

    /// Chunks stored of a context, in order.
    ///
    /// # Errors
    /// Where reading the index fails.
    pub fn chunks(&mut self, app: &str, context: ContextId) -> Result<Vec<ChunkInfo>> {
        let readers = self.readers(app, context)?;
        let info = |reader: &ChunkReader| ChunkInfo {
            index: reader.index(),
            tokens: reader.tokens(),
            level: reader.level(),
            width: reader.width(),
            density: reader.density(),
            bytes: reader.bytes(),
        };
        Ok(readers.iter().map(info).collect())
    }

    /// Readers of all chunks stored of a context, in order.
    ///
    /// # Errors
    /// Where reading the index fails. A chunk whose key does not open is left out.
    pub fn readers(&mut self, app: &str, context: ContextId) -> Result<Vec<ChunkReader>> {
        let (app, row) = self.find(app, context)?;
        let key = self.context_key(&app, context.0, row.slot)?;
        let links = self.links(context.0, u32::MAX)?;
        let read = self.db()?.begin_read().map_err(index)?;
        let chunks = read.open_table(CHUNKS).map_err(index)?;
        let mut readers = Vec::with_capacity(links.len());
        for (position, link) in links {
            let Some(chunk) = chunks.get(link.chunk).map_err(index)? else { continue };
            let Some(row) = ChunkRow::decode(chunk.value()) else { continue };
            let Some(chunk_key) = self.unwrap_chunk_key(&app, context.0, &key, position, &link) else { continue };
            if row.position == position {
                let (disk, store, id) = (Arc::clone(&self.disk), self.id, link.chunk);
                readers.push(ChunkReader { disk, store, id, key: chunk_key, row, density: link.density });
            }
        }
        Ok(readers)
    }

    /// Forget chunks of a context, for instance to make room. Others that share them keep them.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn drop_chunks(&mut self, app: &str, context: ContextId, range: Range<usize>) -> Result<()> {
        self.find(app, context)?;
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let freed = self.commit(false, |txn| {
            let mut freed = Vec::new();
            unlink(txn, context.0, clamp(range.start)..clamp(range.end.max(range.start)), &mut freed)?;
            Ok(freed)
        })?;
        self.held.extend(freed);
        Ok(())
    }

    /// Forget a chunk that could not be read, for every context that links to it.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn drop_missing(&mut self, reader: &ChunkReader) -> Result<()> {
        let (id, position) = (reader.id, reader.row.position);
        let freed = self.commit(false, |txn| {
            let mut freed = Vec::new();
            let mut owners = Vec::new();
            // The number may belong to another chunk by now.
            let same = {
                let chunks = txn.open_table(CHUNKS).map_err(index)?;
                let row = chunks.get(id).map_err(index)?;
                row.is_some_and(|row| ChunkRow::decode(row.value()).as_ref() == Some(&reader.row))
            };
            if same {
                let refs = txn.open_table(REFS).map_err(index)?;
                for entry in refs.range((id, 0)..=(id, u64::MAX)).map_err(index)? {
                    owners.push(entry.map_err(index)?.0.value().1);
                }
            }
            for owner in owners {
                unlink(txn, owner, position..position + 1, &mut freed)?;
            }
            Ok(freed)
        })?;
        self.held.extend(freed);
        Ok(())
    }

    /// Prefixes of a context's chunks: a chain over its app, its model and its tokens.
    pub(super) fn prefixes(&mut self, app: &App, context: u64, row: &ContextRow) -> Result<Prefixes> {
        let tokens = self.tokens_of(app, context, row)?;
        let start = *blake3::Hasher::new_keyed(&app.prefix).update(&row.model).finalize().as_bytes();
        count(tokens.len().div_ceil(CHUNK_TOKENS))?;
        let mut prefixes = Prefixes { key: app.prefix.clone(), start, tokens, whole: Vec::new() };
        for index in 0..prefixes.tokens.len().div_ceil(CHUNK_TOKENS) {
            let len = (prefixes.tokens.len() - index * CHUNK_TOKENS).min(CHUNK_TOKENS);
            prefixes.whole.extend(prefixes.of(index, len));
        }
        Ok(prefixes)
    }
}

/// What names chunks by the tokens up to their end.
pub(super) struct Prefixes {
    key: Key,
    start: Prefix,
    tokens: Vec<u32>,
    /// Of each chunk with all its tokens.
    pub(super) whole: Vec<Prefix>,
}

impl Prefixes {
    /// Prefix of a chunk that holds the first `tokens` of its tokens; `None` where there are not as many.
    pub(super) fn of(&self, index: usize, tokens: usize) -> Option<Prefix> {
        let chunk = self.tokens.get(index * CHUNK_TOKENS..index * CHUNK_TOKENS + tokens)?;
        let before = if index == 0 { &self.start } else { self.whole.get(index - 1)? };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(before);
        for token in chunk {
            hasher.update(&token.to_le_bytes());
        }
        Some(*hasher.finalize().as_bytes())
    }
}

/// Let a context's position point to a chunk.
fn link(txn: &WriteTransaction, context: u64, placed: &Placed, freed: &mut Vec<Run>) -> Result<()> {
    let old = {
        let links = txn.open_table(LINKS).map_err(index)?;
        let old = links.get((context, placed.position)).map_err(index)?;
        old.and_then(|old| LinkRow::decode(old.value())).map(|old| old.chunk)
    };
    if old.is_some_and(|old| old != placed.link.chunk) {
        unlink(txn, context, placed.position..placed.position + 1, freed)?;
    }
    if let Some(row) = &placed.new {
        txn.open_table(CHUNKS).map_err(index)?.insert(placed.link.chunk, row.encode().as_slice()).map_err(index)?;
        let mut prefixes = txn.open_table(PREFIXES).map_err(index)?;
        prefixes.insert(row.prefix_key().as_slice(), placed.link.chunk).map_err(index)?;
    }
    txn.open_table(LINKS)
        .map_err(index)?
        .insert((context, placed.position), placed.link.encode().as_slice())
        .map_err(index)?;
    txn.open_table(REFS).map_err(index)?.insert((placed.link.chunk, context), ()).map_err(index)?;
    Ok(())
}
