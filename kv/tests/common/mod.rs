//! A workload over the store, beside a model that says what must come of it.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use concertina_kv::random::SplitMix;
use concertina_kv::store::{ChunkPut, ContextId, Error, Medium, ModelId, Options, Store};
use concertina_kv::{CHUNK_TOKENS, Width};

pub const MODEL: ModelId = ModelId([7; 32]);
pub const APPS: [&str; 3] = ["mail", "notes", "browser"];
pub const WIDTHS: [Width; 4] = [Width::W16, Width::W8, Width::W4, Width::W2];
pub const LAYERS: usize = 3;

/// A small store; each opening gets other randomness.
pub fn options(opening: u64) -> Options {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&opening.to_le_bytes());
    Options {
        disk_budget_bytes: 64 << 20,
        index_reserve_bytes: 4 << 20,
        segment_bytes: 32 << 10,
        cache_bytes: 1 << 20,
        ..Options::new([42; 32], seed)
    }
}

pub fn open(medium: Arc<dyn Medium>, opening: u64) -> Result<Store, Error> {
    Store::open(medium, &options(opening))
}

/// Contents of a layer of a chunk: as with keys and values, the tokens up to its end decide it, and the model's centres.
/// The last may be short.
pub fn contents(centres: u8, tokens: &[u32], index: usize, level: u16, width: Width, layer: usize) -> Vec<u8> {
    let mut seed = 0xcbf2_9ce4_8422_2325_u64
        ^ u64::from(centres) << 48
        ^ u64::from(level)
        ^ (width as u64) << 16
        ^ (layer as u64) << 32;
    for token in &tokens[..((index + 1) * CHUNK_TOKENS).min(tokens.len())] {
        seed = (seed ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut random = SplitMix::new(seed);
    let len = match width {
        Width::W16 => 640,
        Width::W8 => 320,
        Width::W4 => 160,
        _ => 80,
    };
    (0..len).map(|_| random.next_u64() as u8).collect()
}

#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub app: &'static str,
    pub tokens: Vec<u32>,
    /// Chunks that were made durable and not touched since: they must be readable.
    pub flushed: BTreeSet<usize>,
}

/// Contexts that must be there, with their tokens, and the centres.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    contexts: BTreeMap<ContextId, Known>,
    /// 0 where none were set.
    centres: u8,
}

impl Deref for Model {
    type Target = BTreeMap<ContextId, Known>;

    fn deref(&self) -> &Self::Target {
        &self.contexts
    }
}

impl DerefMut for Model {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.contexts
    }
}

/// The centres of [`MODEL`]: a number, repeated.
fn centres(store: &mut Store) -> Result<u8, Error> {
    Ok(store.centres(MODEL)?.map_or(0, |centres| centres[0]))
}

/// One random operation. On success the model follows; where it fails the model stays.
pub fn step(store: &mut Store, model: &mut Model, random: &mut SplitMix, now: u64) -> Result<&'static str, Error> {
    let ids: Vec<ContextId> = model.keys().copied().collect();
    let roll = if ids.is_empty() { 0 } else { random.below(100) };
    let id = ids.get(random.below(ids.len() as u64) as usize).copied();
    let known = id.and_then(|id| model.get(&id).cloned());
    let (Some(id), Some(known)) = (id, known) else { return create(store, model, random, now) };
    match roll {
        0..10 if ids.len() < 8 => create(store, model, random, now),
        0..45 => {
            let more = tokens(random, 60);
            store.append(known.app, id, known.tokens.len(), &more, now)?;
            let now = model.get_mut(&id).unwrap();
            now.tokens.extend(more);
            now.flushed.retain(|i| *i < known.tokens.len() / CHUNK_TOKENS);
            Ok("append")
        }
        45..69 => {
            let full = known.tokens.len().div_ceil(CHUNK_TOKENS);
            if full == 0 {
                return Ok("nothing");
            }
            let first = random.below(full as u64) as usize;
            let count = 1 + random.below((full - first).min(4) as u64) as usize;
            let width = WIDTHS[random.below(4) as usize];
            let level = random.below(2) as u16;
            put(store, id, &known, first..first + count, level, width)?;
            model.get_mut(&id).unwrap().flushed.retain(|i| !(first..first + count).contains(i));
            Ok("put")
        }
        69..70 => {
            let centres = 1 + random.below(2) as u8;
            store.set_centres(MODEL, &[centres; 600])?;
            if centres != std::mem::replace(&mut model.centres, centres) {
                model.values_mut().for_each(|known| known.flushed.clear());
            }
            Ok("set centres")
        }
        70..78 => {
            let keep = random.below(known.tokens.len() as u64 + 1) as usize;
            let tail = if random.chance(0.5) { tokens(random, 20) } else { Vec::new() };
            store.replace(known.app, id, keep, &tail, now)?;
            let known = model.get_mut(&id).unwrap();
            known.tokens.truncate(keep);
            known.tokens.extend(tail);
            known.flushed.retain(|i| *i < keep / CHUNK_TOKENS);
            Ok("replace")
        }
        78..84 if ids.len() < 8 => {
            let keep = random.below(known.tokens.len() as u64 + 1) as usize;
            let fork = store.fork(known.app, id, keep, now)?;
            let flushed = known.flushed.iter().copied().filter(|i| *i < keep / CHUNK_TOKENS).collect();
            model.insert(fork, Known { app: known.app, tokens: known.tokens[..keep].to_vec(), flushed });
            Ok("fork")
        }
        84..90 => {
            store.delete(known.app, id)?;
            model.remove(&id);
            Ok("delete")
        }
        90..93 => {
            store.adopt(known.app, id, 0)?;
            Ok("adopt")
        }
        93..95 => {
            let first = random.below(8) as usize;
            store.drop_chunks(known.app, id, first..first + 3)?;
            model.get_mut(&id).unwrap().flushed.retain(|i| !(first..first + 3).contains(i));
            Ok("drop")
        }
        95..96 => {
            store.compact()?;
            Ok("compact")
        }
        96..99 => {
            let readers = ids.iter().map(|id| Ok((*id, store.readers(model[id].app, *id)?)));
            let readers = readers.collect::<Result<Vec<_>, Error>>()?;
            store.flush()?;
            for (id, readers) in readers {
                // What a crash took before stays missing.
                let there = readers.iter().filter(|reader| reader.verify()).map(|reader| reader.index());
                model.get_mut(&id).unwrap().flushed = there.collect();
            }
            Ok("flush")
        }
        _ => {
            store.touch(known.app, id, now, random.chance(0.5))?;
            Ok("touch")
        }
    }
}

fn create(store: &mut Store, model: &mut Model, random: &mut SplitMix, now: u64) -> Result<&'static str, Error> {
    let app = APPS[random.below(3) as usize];
    let id = store.create(app, MODEL, now)?;
    model.insert(id, Known { app, tokens: Vec::new(), flushed: BTreeSet::new() });
    Ok("create")
}

/// Few different tokens, so that contexts share prefixes.
pub fn tokens(random: &mut SplitMix, most: u64) -> Vec<u32> {
    let (n, base) = (1 + random.below(most), random.below(2) as u32 * 40_000);
    (0..n as u32).map(|i| base + i).collect()
}

/// Tokens that a chunk holds when it is put: the last of a context often lacks the last token, which was not run.
fn held(known: &Known, index: usize) -> usize {
    let all = (known.tokens.len() - index * CHUNK_TOKENS).min(CHUNK_TOKENS);
    let is_last = (index + 1) * CHUNK_TOKENS >= known.tokens.len();
    if is_last && all > 1 && !known.tokens[0].is_multiple_of(3) { all - 1 } else { all }
}

pub fn put(
    store: &mut Store,
    id: ContextId,
    known: &Known,
    range: std::ops::Range<usize>,
    level: u16,
    width: Width,
) -> Result<(), Error> {
    let centres = centres(store)?;
    let contents: Vec<Vec<Vec<u8>>> = range
        .clone()
        .map(|i| {
            let tokens = &known.tokens[..i * CHUNK_TOKENS + held(known, i)];
            (0..LAYERS).map(|l| contents(centres, tokens, i, level, width, l)).collect()
        })
        .collect();
    let layers: Vec<Vec<&[u8]>> = contents.iter().map(|chunk| chunk.iter().map(Vec::as_slice).collect()).collect();
    let put = |(index, layers): (usize, _)| {
        let tokens = held(known, index);
        ChunkPut { index, tokens, level, width, density: 0.25, layers }
    };
    let puts: Vec<ChunkPut<'_>> = range.zip(layers.iter().map(Vec::as_slice)).map(put).collect();
    store.put_chunks(known.app, id, &puts).map(drop)
}

/// What a verification saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub chunks: usize,
    pub missing: usize,
}

/// The store answers as the model says: every token is there, and each chunk is either right or reported as missing.
pub fn verify(store: &mut Store, model: &Model) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let centres = centres(store).map_err(|e| format!("centres: {e}"))?;
    if centres != model.centres {
        return Err(format!("centres are {centres}, not {}", model.centres));
    }
    for app in APPS {
        let mut listed: Vec<ContextId> =
            store.list(app).map_err(|e| format!("list: {e}"))?.into_iter().map(|info| info.id).collect();
        listed.sort_unstable();
        let expected: Vec<ContextId> = model.iter().filter(|(_, known)| known.app == app).map(|(id, _)| *id).collect();
        if listed != expected {
            return Err(format!("{app} has contexts {listed:?}, not {expected:?}"));
        }
    }
    for (id, known) in model.iter() {
        let tokens = store.tokens(known.app, *id).map_err(|e| format!("tokens: {e}"))?;
        if tokens != known.tokens {
            return Err(format!("{} tokens, not {}, or others", tokens.len(), known.tokens.len()));
        }
        let mut flushed = known.flushed.clone();
        for reader in store.readers(known.app, *id).map_err(|e| format!("readers: {e}"))? {
            seen.chunks += 1;
            let end = reader.index() * CHUNK_TOKENS + reader.tokens();
            if end > tokens.len() {
                return Err("a chunk past the tokens".into());
            }
            for layer in 0..LAYERS {
                let mut buffer = Vec::new();
                if reader.read_layer(layer, &mut buffer).is_err() {
                    seen.missing += 1;
                    break;
                }
                let (index, level, width) = (reader.index(), reader.level(), reader.width());
                if buffer != contents(centres, &tokens[..end], index, level, width, layer) {
                    return Err(format!("chunk {index} layer {layer} holds wrong data"));
                }
                if layer + 1 == LAYERS {
                    flushed.remove(&index);
                }
            }
        }
        if !flushed.is_empty() {
            return Err(format!("chunks {flushed:?} were durable and are gone"));
        }
    }
    Ok(seen)
}
