//! Checking, counting, and making files short.

use std::collections::{BTreeMap, BTreeSet};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::Store;
use super::contexts::ContextId;
use super::error::{Error, Result, index};
use super::rows::{CHUNKS, CONTEXTS, ChunkRow, ContextRow, ERASE, LINKS, LinkRow, PREFIXES, REFS, ROW_TOKENS, TOKENS};
use super::space::{Space, segment_name, segment_of};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Contexts.
    pub contexts: usize,
    /// Tokens that were read back.
    pub tokens: usize,
    /// Chunks.
    pub chunks: usize,
    /// Chunks of which a layer does not open. They are computed again when they are needed: no problem, but a loss of time.
    pub unreadable_chunks: usize,
    /// What should not be. A healthy store has none, whatever power cuts it went through.
    pub problems: Vec<String>,
}

/// What the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Bytes that they may take.
    pub disk_budget_bytes: u64,
    /// Bytes of the index's two files and the keys.
    pub index_bytes: u64,
    /// Bytes of chunks in use.
    pub chunk_bytes: u64,
    /// Contexts.
    pub contexts: u64,
    /// Tokens.
    pub tokens: u64,
    /// Chunks stored.
    pub chunks: u64,
    /// Links from contexts to chunks; more than chunks where they are shared.
    pub links: u64,
}

/// What compacting achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Bytes of all files before.
    pub before_bytes: u64,
    /// Bytes of all files after.
    pub after_bytes: u64,
    /// Chunks that were moved.
    pub moved_chunks: usize,
}

impl Store {
    /// Verify the whole store: every row against every other, every token, every extent.
    ///
    /// # Errors
    /// Where reading the index fails.
    pub fn check(&mut self) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let read = self.db()?.begin_read().map_err(index)?;
        let mut contexts = BTreeMap::new();
        for entry in read.open_table(CONTEXTS).map_err(index)?.iter().map_err(index)? {
            let (id, row) = entry.map_err(index)?;
            match ContextRow::decode(row.value()) {
                Some(row) => drop(contexts.insert(id.value(), row)),
                None => report.problems.push("a context's row does not decode".to_owned()),
            }
        }
        let mut chunks = BTreeMap::new();
        for entry in read.open_table(CHUNKS).map_err(index)?.iter().map_err(index)? {
            let (id, row) = entry.map_err(index)?;
            match ChunkRow::decode(row.value()) {
                Some(row) => drop(chunks.insert(id.value(), row)),
                None => report.problems.push("a chunk's row does not decode".to_owned()),
            }
        }
        let mut links = BTreeMap::new();
        for entry in read.open_table(LINKS).map_err(index)?.iter().map_err(index)? {
            let (key, row) = entry.map_err(index)?;
            match LinkRow::decode(row.value()) {
                Some(row) => drop(links.insert(key.value(), row)),
                None => report.problems.push("a link does not decode".to_owned()),
            }
        }
        let mut refs = BTreeSet::new();
        for entry in read.open_table(REFS).map_err(index)?.iter().map_err(index)? {
            refs.insert(entry.map_err(index)?.0.value());
        }
        let mut erase = BTreeSet::new();
        for entry in read.open_table(ERASE).map_err(index)?.iter().map_err(index)? {
            erase.insert(entry.map_err(index)?.0.value());
        }
        let mut token_rows = BTreeMap::<u64, u32>::new();
        for entry in read.open_table(TOKENS).map_err(index)?.iter().map_err(index)? {
            *token_rows.entry(entry.map_err(index)?.0.value().0).or_default() += 1;
        }
        for entry in read.open_table(PREFIXES).map_err(index)?.iter().map_err(index)? {
            let (key, chunk) = entry.map_err(index)?;
            if chunks.get(&chunk.value()).is_none_or(|row| row.prefix_key() != key.value()) {
                report.problems.push("a prefix leads to no chunk of it".to_owned());
            }
        }
        drop(read);
        (report.contexts, report.chunks) = (contexts.len(), chunks.len());

        let mut slots = BTreeSet::new();
        for (id, row) in &contexts {
            if !slots.insert(row.slot) || erase.contains(&row.slot) {
                report.problems.push("a key slot has two uses".to_owned());
            }
            if token_rows.remove(id).unwrap_or(0) as usize != (row.tokens as usize).div_ceil(ROW_TOKENS) {
                report.problems.push("a context has rows of tokens too few or too many".to_owned());
            }
        }
        if !token_rows.is_empty() {
            report.problems.push("tokens belong to no context".to_owned());
        }
        let linked: BTreeSet<(u64, u64)> = links.iter().map(|((context, _), link)| (link.chunk, *context)).collect();
        if linked.len() != links.len() || linked != refs {
            report.problems.push("links and references differ".to_owned());
        }
        for id in chunks.keys() {
            if refs.range((*id, 0)..=(*id, u64::MAX)).next().is_none() {
                report.problems.push("a chunk is linked by nobody".to_owned());
            }
        }
        let runs: Option<Vec<_>> = chunks.values().map(ChunkRow::run).collect();
        let space = runs.and_then(|runs| Space::from_runs(self.segment_bytes, runs));
        if space.is_none_or(|space| space.used() != self.used_chunk_bytes()) {
            report.problems.push("chunks overlap, or free space is miscounted".to_owned());
        }
        self.check_contents(&contexts, &chunks, &links, &mut report);
        Ok(report)
    }

    fn check_contents(
        &mut self,
        contexts: &BTreeMap<u64, ContextRow>,
        chunks: &BTreeMap<u64, ChunkRow>,
        links: &BTreeMap<(u64, u32), LinkRow>,
        report: &mut CheckReport,
    ) {
        let mut unreadable = BTreeSet::new();
        for (id, row) in contexts {
            let outcome = self.app(&row.app_name).and_then(|app| self.prefixes(&app, *id, row));
            let prefixes = match outcome {
                Ok(prefixes) => prefixes,
                Err(error) => {
                    report.problems.push(format!("a context's tokens: {error}"));
                    continue;
                }
            };
            report.tokens += row.tokens as usize;
            let own: Vec<_> = links.range((*id, 0)..=(*id, u32::MAX)).collect();
            for ((_, position), link) in &own {
                let fits = chunks.get(&link.chunk).is_some_and(|chunk| {
                    chunk.position == *position
                        && chunk.app == row.app
                        && chunk.model == row.model
                        && prefixes.of(*position as usize, chunk.tokens.into()) == Some(chunk.prefix)
                });
                if !fits {
                    report.problems.push("a link leads to a chunk of another place".to_owned());
                }
            }
            let readers = self.readers(&row.app_name, ContextId(*id)).unwrap_or_default();
            if readers.len() != own.len() {
                report.problems.push("a chunk's key does not open".to_owned());
            }
            unreadable.extend(readers.iter().filter(|reader| !reader.verify()).map(|reader| reader.id));
        }
        report.unreadable_chunks = unreadable.len();
    }

    /// What the store holds.
    ///
    /// # Errors
    /// Where reading the index fails.
    pub fn stats(&mut self) -> Result<Stats> {
        let read = self.db()?.begin_read().map_err(index)?;
        let contexts = read.open_table(CONTEXTS).map_err(index)?;
        let mut tokens = 0;
        for entry in contexts.iter().map_err(index)? {
            let row = ContextRow::decode(entry.map_err(index)?.1.value()).ok_or(Error::Damaged("a context's row"))?;
            tokens += u64::from(row.tokens);
        }
        let files = self.disk.names().into_iter().filter(|name| segment_of(name).is_none());
        Ok(Stats {
            disk_bytes: self.disk.used(),
            disk_budget_bytes: self.disk.budget(),
            index_bytes: files.filter_map(|name| self.disk.len(&name)).sum(),
            chunk_bytes: self.used_chunk_bytes(),
            contexts: contexts.len().map_err(index)?,
            tokens,
            chunks: read.open_table(CHUNKS).map_err(index)?.len().map_err(index)?,
            links: read.open_table(LINKS).map_err(index)?.len().map_err(index)?,
        })
    }

    /// Move chunks to the front of the segments, cut the files behind them, and compact the index. Readers made before
    /// find their chunks missing.
    ///
    /// # Errors
    /// Where reading or writing fails.
    pub fn compact(&mut self) -> Result<CompactReport> {
        let before_bytes = self.disk.used();
        let moved_chunks = self.move_chunks()?;
        let ends: BTreeMap<u32, u32> = self.space.ends().collect();
        for name in self.disk.names() {
            let Some(segment) = segment_of(&name) else { continue };
            let cut = match ends.get(&segment) {
                None => self.disk.remove(&name),
                Some(end) if self.disk.len(&name).is_some_and(|len| len > u64::from(*end)) => {
                    self.disk.set_len(&name, u64::from(*end))
                }
                Some(_) => Ok(()),
            };
            cut.map_err(Error::io("shortening a segment"))?;
        }
        let mut db = self.db()?;
        self.db = None;
        let compacted = match std::sync::Arc::get_mut(&mut db).map(Database::compact) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(index(error)),
            None => Err(Error::Invalid("the index is in use")),
        };
        if compacted.is_ok() {
            self.db = Some(db);
        } else {
            drop(db);
            let _ = self.reopen();
        }
        compacted?;
        Ok(CompactReport { before_bytes, after_bytes: self.disk.used(), moved_chunks })
    }

    /// Copy runs, last first, into holes before them. The old place stays as it is until the move is durable.
    fn move_chunks(&mut self) -> Result<usize> {
        // Whatever is held becomes free, and every row durable.
        self.commit(true, |_| Ok(()))?;
        let read = self.db()?.begin_read().map_err(index)?;
        let mut rows = Vec::new();
        for entry in read.open_table(CHUNKS).map_err(index)?.iter().map_err(index)? {
            let (id, row) = entry.map_err(index)?;
            let row = ChunkRow::decode(row.value()).ok_or(Error::Damaged("a chunk's row"))?;
            let run = row.run().ok_or(Error::Damaged("a chunk's row"))?;
            rows.push((run, id.value(), row));
        }
        drop(read);
        rows.sort_unstable_by_key(|(run, ..)| std::cmp::Reverse(*run));
        let (mut moves, mut old_runs) = (Vec::new(), Vec::new());
        for (old, id, mut row) in rows {
            let new = self.space.take(old.len);
            if (new.segment, new.offset) >= (old.segment, old.offset) {
                self.space.give(new);
                break;
            }
            let mut payload = vec![0; old.len as usize];
            let copied = match self.disk.read_at(&segment_name(old.segment), old.offset.into(), &mut payload) {
                Ok(()) => self.disk.write_at(&segment_name(new.segment), new.offset.into(), &payload),
                // An extent that was never written does not open at its new place either.
                Err(_) => Ok(()),
            };
            if let Err(error) = copied {
                self.space.give(new);
                let taken = moves.iter().filter_map(|(_, row): &(u64, ChunkRow)| row.run()).collect();
                self.give_back(taken);
                return Err(Error::io("moving a chunk")(error));
            }
            (row.segment, row.offset) = (new.segment, new.offset);
            moves.push((id, row));
            old_runs.push(old);
        }
        let segments: BTreeSet<u32> = moves.iter().map(|(_, row)| row.segment).collect();
        for segment in segments {
            let name = segment_name(segment);
            if self.disk.len(&name).is_some() {
                self.disk.sync(&name).map_err(Error::io("moving chunks"))?;
            }
        }
        self.commit(true, |txn| {
            let mut chunks = txn.open_table(CHUNKS).map_err(index)?;
            for (id, row) in &moves {
                chunks.insert(*id, row.encode().as_slice()).map_err(index)?;
            }
            Ok(())
        })?;
        self.give_back(old_runs);
        Ok(moves.len())
    }
}
