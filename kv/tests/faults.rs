//! Damage and failures, one at a time and everywhere: flipped bytes, swapped and stale extents, operations that fail, a
//! full disk, a budget; and what deletion leaves behind.

#![allow(clippy::print_stdout, reason = "the seeds and counts of a run")]

mod common;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{APPS, Known, LAYERS, MODEL, Model, contents, open, options, put, verify};
use concertina_kv::random::SplitMix;
use concertina_kv::store::{ChunkPut, Error, Fault, Medium, MemoryMedium, ModelId, Store};
use concertina_kv::{CHUNK_TOKENS, Width};

/// Three contexts in two apps, chunks of all widths, closed.
fn small_store() -> (MemoryMedium, Model) {
    let medium = Arc::new(MemoryMedium::new());
    let mut store = open(medium.clone(), 1).unwrap();
    let mut model = Model::default();
    for (n, app) in [(0, APPS[0]), (1, APPS[0]), (2, APPS[1])] {
        let id = store.create(app, MODEL, n).unwrap();
        let tokens: Vec<u32> = (0..40).map(|i| i + 100 * n as u32).collect();
        store.append(app, id, 0, &tokens, n).unwrap();
        let known = Known { app, tokens, flushed: Default::default() };
        put(&mut store, id, &known, 0..1, 0, common::WIDTHS[n as usize]).unwrap();
        put(&mut store, id, &known, 1..2, 1, Width::W4).unwrap();
        model.insert(id, known);
    }
    store.close().unwrap();
    (medium.copy(), model)
}

fn check_after_damage(medium: Arc<MemoryMedium>, model: &Model, opening: u64) -> Result<common::Seen, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut store = open(medium, opening).map_err(|error| format!("open: {error}"))?;
        verify(&mut store, model)
    }));
    result.unwrap_or_else(|_| Err("panicked".into()))
}

#[test]
fn no_flipped_byte_goes_unnoticed_or_costs_more_than_its_chunk() {
    let (medium, model) = small_store();
    let (mut opening, mut flips) = (1000, 0);
    for name in ["store", "keys"] {
        for offset in 0..medium.len(name).unwrap().unwrap() {
            let damaged = Arc::new(medium.copy());
            damaged.corrupt(name, offset, 1 << (offset % 8));
            opening += 1;
            flips += 1;
            let seen = check_after_damage(damaged, &model, opening).unwrap_or_else(|e| panic!("{name} {offset}: {e}"));
            assert_eq!((seen.chunks, seen.missing), (6, 0), "{name} {offset}: everything heals");
        }
    }
    // A byte of each page at once: pages heal one by one, so every byte of the file is flipped in as many openings as a
    // page has bytes.
    let unit = 4096 + 40;
    let every = if cfg!(debug_assertions) { 97 } else { 1 };
    for name in ["index.0", "index.1"] {
        let pages = medium.len(name).unwrap().unwrap() / unit;
        for within in (0..unit).step_by(every) {
            let damaged = Arc::new(medium.copy());
            (0..pages).for_each(|page| damaged.corrupt(name, page * unit + within, 0x10));
            opening += 1;
            flips += pages;
            let seen = check_after_damage(damaged, &model, opening).unwrap_or_else(|e| panic!("{name} {within}: {e}"));
            assert_eq!((seen.chunks, seen.missing), (6, 0), "{name} {within}: everything heals");
        }
    }
    let live = Arc::new(medium.copy());
    let mut store = open(live.clone(), 7).unwrap();
    let segments: Vec<String> = live.list().unwrap().into_iter().filter(|name| name.starts_with("seg.")).collect();
    assert!(!segments.is_empty());
    let mut struck = 0;
    for name in segments {
        for offset in 0..live.len(&name).unwrap().unwrap() {
            live.corrupt(&name, offset, 0x01);
            let seen = verify(&mut store, &model).unwrap_or_else(|e| panic!("{name} {offset}: {e}"));
            assert!(seen.missing <= 1, "{name} {offset}: a flip costs one chunk");
            struck += seen.missing;
            flips += 1;
            live.corrupt(&name, offset, 0x01);
        }
    }
    assert!(struck > 1000, "flips in payload are seen: {struck}");
    println!("{flips} bytes flipped");
}

#[test]
fn an_extent_opens_nowhere_but_in_its_place() {
    let (medium, model) = small_store();
    let medium = Arc::new(medium);
    let mut store = open(medium.clone(), 9).unwrap();
    let mut readers = Vec::new();
    for (id, known) in model.iter() {
        readers.extend(store.readers(known.app, *id).unwrap());
    }
    let mut sealed = Vec::new();
    for reader in &readers {
        for layer in 0..LAYERS {
            let (offset, len) = reader.extent(layer);
            let mut bytes = vec![0; len];
            medium.read_at(&reader.file(), offset, &mut bytes).unwrap();
            sealed.push(bytes);
        }
    }
    let mut swaps = 0;
    for (a, reader) in readers.iter().enumerate() {
        for layer in 0..LAYERS {
            for (b, bytes) in sealed.iter().enumerate() {
                let opens = reader.open_layer(layer, &mut bytes.clone()).is_ok();
                assert_eq!(opens, a * LAYERS + layer == b, "extent {b} at chunk {a} layer {layer}");
                swaps += 1;
            }
        }
    }
    println!("{swaps} swaps between contexts, apps, positions and layers");

    // A stale extent: what was at the same place before.
    let (id, known) = model.iter().next().unwrap();
    let before = store.readers(known.app, *id).unwrap();
    let files: Vec<_> = before.iter().map(|reader| (reader.file(), medium.bytes(&reader.file()).unwrap())).collect();
    store.drop_chunks(known.app, *id, 0..9).unwrap();
    store.flush().unwrap();
    put(&mut store, *id, known, 0..2, 0, Width::W4).unwrap();
    for (file, bytes) in files {
        medium.overwrite(&file, 0, &bytes);
    }
    let seen = verify(&mut store, &model).unwrap();
    assert!(seen.missing >= 1, "the old bytes do not open as the new chunk");
    for reader in store.readers(known.app, *id).unwrap() {
        if !reader.verify() {
            store.drop_missing(&reader).unwrap();
        }
    }
    put(&mut store, *id, known, 0..2, 0, Width::W4).unwrap();
    assert_eq!(verify(&mut store, &model).unwrap().missing, 0, "computed again and stored again");
}

/// Run a few operations with a fault at operation `at`. The model holds what was acknowledged.
fn with_fault(base: &MemoryMedium, model: &Model, fault: Fault, seed: u64) -> (bool, Result<(), String>) {
    let medium = Arc::new(base.copy());
    let (mut now_model, mut struck) = (model.clone(), None);
    let mut random = SplitMix::new(seed);
    medium.set_fault(Some(fault));
    let mut store = match open(medium.clone(), fault.at + 10) {
        Ok(store) => Some(store),
        Err(error) => {
            struck = Some((error, model.clone()));
            None
        }
    };
    if let Some(store) = &mut store {
        for now in 0..10 {
            let before = now_model.clone();
            let mut scratch = before.clone();
            if let Err(error) = common::step(store, &mut scratch, &mut random, now) {
                struck = Some((error, before));
                break;
            }
            now_model = scratch;
        }
    }
    medium.set_fault(None);
    let Some((error, before)) = struck else { return (false, Ok(())) };
    if fault.kind == io::ErrorKind::StorageFull && !matches!(error, Error::DiskFull) {
        return (true, Err(format!("a full disk was reported as {error}")));
    }
    // With room again, the same store goes on; after a failure, one that is opened anew.
    if fault.kind == io::ErrorKind::StorageFull
        && let Some(store) = &mut store
    {
        if let Err(error) = store.flush() {
            return (true, Err(format!("with room again: {error}")));
        }
        let result = verify_either(store, &before);
        if result.is_err() {
            return (true, result);
        }
    } else if let Some(mut store) = store {
        // It takes no more writes, unless a read failed that healed or only found a chunk missing.
        let _ = store.create(APPS[0], MODEL, 0).map(|id| store.delete(APPS[0], id));
    }
    let reopened = open(medium, fault.at + 20).map_err(|error| format!("opening again: {error}"));
    (true, reopened.and_then(|mut store| verify_either(&mut store, &before)))
}

/// What was acknowledged is there. The operation that failed may have happened: only what it cannot touch is compared.
fn verify_either(store: &mut Store, before: &Model) -> Result<(), String> {
    let report = store.check().map_err(|error| format!("check: {error}"))?;
    if !report.problems.is_empty() {
        return Err(format!("check: {:?}", report.problems));
    }
    let differing = before.iter().filter(|(id, known)| {
        store.tokens(known.app, **id).is_err()
            || store.tokens(known.app, **id).is_ok_and(|tokens| tokens != known.tokens)
    });
    match differing.count() {
        0 | 1 => Ok(()),
        n => Err(format!("{n} contexts differ after one failed operation")),
    }
}

#[test]
fn a_failure_at_any_operation_loses_nothing_that_was_acknowledged() {
    let (base, model) = small_store();
    let seeds = if cfg!(debug_assertions) { 1 } else { 3 };
    let (mut runs, mut strikes) = (0, 0);
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for count in [1, u64::MAX] {
            for seed in 0..seeds {
                // Until the fault lies behind the last operation. A full disk strikes few of them.
                let (mut at, mut quiet) = (0, 0);
                while quiet < 150 {
                    let fault = Fault { at, count, kind };
                    let outcome = catch_unwind(AssertUnwindSafe(|| with_fault(&base, &model, fault, seed)));
                    let (struck, result) = outcome.unwrap_or((true, Err("panicked".into())));
                    assert_eq!(result, Ok(()), "{fault:?} seed {seed}");
                    quiet = if struck { 0 } else { quiet + 1 };
                    strikes += u64::from(struck);
                    runs += 1;
                    at += if cfg!(debug_assertions) { 7 } else { 1 };
                }
            }
        }
    }
    println!("{runs} runs, {strikes} operations failed");
    assert!(strikes > runs / 4);
}

#[test]
fn the_first_failure_stops_writing_and_reopening_heals() {
    let (medium, model) = small_store();
    let medium = Arc::new(medium);
    let mut store = open(medium.clone(), 3).unwrap();
    let (id, known) = model.iter().next().unwrap();
    // A read that fails breaks no promise.
    medium.set_fault(Some(Fault { at: 0, count: 1, kind: io::ErrorKind::Other }));
    assert!(store.tokens(known.app, *id).is_err());
    assert_eq!(store.tokens(known.app, *id).unwrap(), known.tokens);
    // From some operation on a write or a sync is the first to fail, and nothing is written any more.
    let mut stopped = false;
    for at in 0..20 {
        medium.set_fault(Some(Fault { at, count: u64::MAX, kind: io::ErrorKind::Other }));
        assert!(store.append(known.app, *id, 40, &[1, 2, 3], 0).is_err());
        medium.set_fault(None);
        stopped = matches!(store.append(known.app, *id, 40, &[1, 2, 3], 0), Err(Error::Stopped(_)));
        if stopped {
            break;
        }
        store.replace(known.app, *id, 40, &[], 0).unwrap();
    }
    assert!(stopped && matches!(store.create(known.app, MODEL, 0), Err(Error::Stopped(_))));
    drop(store);
    let mut store = open(medium, 4).unwrap();
    verify_either(&mut store, &model).unwrap();
    store.append(known.app, *id, 40, &[1, 2, 3], 0).unwrap();
    store.append(known.app, *id, 40, &[1, 2, 3], 0).unwrap();
    assert_eq!(store.tokens(known.app, *id).unwrap().len(), 43, "a repeated append is one append");
    assert!(matches!(store.append(known.app, *id, 40, &[9], 0), Err(Error::Diverged { stored: 43, at: 40 })));
}

#[test]
fn the_disk_budget_is_hard_and_leaves_tokens_their_room() {
    let medium = Arc::new(MemoryMedium::new());
    let options =
        concertina_kv::store::Options { disk_budget_bytes: 5 << 20, index_reserve_bytes: 4 << 20, ..options(5) };
    let mut store = Store::open(medium.clone(), &options).unwrap();
    let id = store.create("mail", MODEL, 0).unwrap();
    let tokens: Vec<u32> = (0..6400).collect();
    store.append("mail", id, 0, &tokens, 0).unwrap();
    let layer = vec![5; 4000];
    let total = |medium: &MemoryMedium| -> u64 {
        medium.list().unwrap().iter().map(|name| medium.len(name).unwrap().unwrap()).sum()
    };
    let mut stored = 0;
    let full = loop {
        let put = ChunkPut { index: stored, tokens: 16, level: 0, width: Width::W16, density: 0.0, layers: &[&layer] };
        match store.put_chunks("mail", id, &[put]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(total(&medium) <= 5 << 20);
    };
    assert!(matches!(full, Error::DiskFull), "{full}");
    assert!(stored > 100, "{stored}");
    store.append("mail", id, 6400, &tokens, 0).expect("tokens have room when payload has none");
    assert_eq!(store.chunks("mail", id).unwrap().len(), stored, "a full disk loses nothing");
    store.drop_chunks("mail", id, 0..10).unwrap();
    let put = ChunkPut { index: 0, tokens: 16, level: 0, width: Width::W16, density: 0.0, layers: &[&layer] };
    store.put_chunks("mail", id, &[put]).expect("freed room is room");
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_deleted_context_is_found_nowhere() {
    let medium = Arc::new(MemoryMedium::new());
    let mut store = open(medium.clone(), 6).unwrap();
    let secret: Vec<u32> = (0..64).map(|i| 0x5ec2_e700 + i * 3).collect();
    let text: Vec<u8> = secret.iter().flat_map(|token| token.to_le_bytes()).collect();
    let payload: Vec<u8> = (0..512_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let app = "a name that tells something";
    let found = |needle: &[u8]| {
        let files = medium.list().unwrap();
        files.iter().any(|name| medium.bytes(name).unwrap().windows(needle.len()).any(|window| window == needle))
    };
    // The scan can find something.
    medium.write_at("control", 5, &[&text[..], &payload[..]].concat()).unwrap();
    assert!(found(&text) && found(&payload[..64]));
    medium.remove("control").unwrap();

    let survivor = store.create(app, MODEL, 0).unwrap();
    store.append(app, survivor, 0, &secret[..32], 0).unwrap();
    let doomed = store.fork(app, survivor, 32, 0).unwrap();
    store.append(app, doomed, 32, &secret[32..], 0).unwrap();
    let layers: Vec<&[u8]> = vec![&payload; LAYERS];
    let puts: Vec<_> = (0..4)
        .map(|index| ChunkPut { index, tokens: 16, level: 0, width: Width::W16, density: 0.0, layers: &layers })
        .collect();
    store.put_chunks(app, doomed, &puts).unwrap();
    store.adopt(app, survivor, 0).unwrap();
    store.flush().unwrap();
    let key_file = medium.bytes("keys").unwrap();
    // The doomed context's slot is the second.
    let wrapped = key_file[256..256 + 72].to_vec();
    assert!(found(&wrapped) && wrapped.iter().any(|byte| *byte != 0));
    for index in 0..4 {
        assert!(!found(&text[index * 64..][..64]), "tokens are never plain");
    }
    assert!(!found(&payload[..64]) && !found(app.as_bytes()), "payload and names are never plain");

    store.delete(app, doomed).unwrap();
    assert!(!found(&wrapped), "the key is gone from every file");
    assert!(!found(&wrapped[24..56]) && !found(&text) && !found(&payload[..64]));
    assert!(matches!(store.tokens(app, doomed), Err(Error::UnknownContext)));
    // What was shared lives on under the survivor's key.
    let readers = store.readers(app, survivor).unwrap();
    assert!(readers.len() == 2 && readers.iter().all(|reader| reader.verify()));
    assert_eq!(store.tokens(app, survivor).unwrap(), secret[..32]);
}

#[test]
fn apps_share_nothing_and_cannot_name_each_others_contexts() {
    let medium = Arc::new(MemoryMedium::new());
    let mut store = open(medium.clone(), 8).unwrap();
    let tokens: Vec<u32> = (0..64).collect();
    let mine = store.create("mail", MODEL, 0).unwrap();
    let theirs = store.create("notes", MODEL, 0).unwrap();
    let layers = [contents(0, &tokens, 0, 0, Width::W4, 0)];
    let layers = [layers[0].as_slice()];
    let put = ChunkPut { index: 0, tokens: 16, level: 0, width: Width::W4, density: 0.0, layers: &layers };
    store.append("mail", mine, 0, &tokens, 0).unwrap();
    store.append("notes", theirs, 0, &tokens, 0).unwrap();
    assert_eq!(store.put_chunks("mail", mine, &[put]).unwrap().written, 1);
    assert_eq!(store.put_chunks("notes", theirs, &[put]).unwrap().shared, 0, "never across apps");
    let again = store.create("mail", MODEL, 0).unwrap();
    store.append("mail", again, 0, &tokens, 0).unwrap();
    assert_eq!(store.put_chunks("mail", again, &[put]).unwrap().shared, 1, "once inside an app");
    let other_model = store.create("mail", ModelId([8; 32]), 0).unwrap();
    store.append("mail", other_model, 0, &tokens, 0).unwrap();
    assert_eq!(store.put_chunks("mail", other_model, &[put]).unwrap().shared, 0, "never across models");

    let unknown = |result: Result<(), Error>| assert!(matches!(result, Err(Error::UnknownContext)));
    unknown(store.tokens("notes", mine).map(drop));
    unknown(store.append("notes", mine, 64, &[1], 0));
    unknown(store.replace("notes", mine, 0, &[], 0));
    unknown(store.readers("notes", mine).map(drop));
    unknown(store.put_chunks("notes", mine, &[put]).map(drop));
    unknown(store.drop_chunks("notes", mine, 0..9));
    unknown(store.fork("notes", mine, 1, 0).map(drop));
    unknown(store.touch("notes", mine, 0, true));
    unknown(store.delete("notes", mine));
    assert_eq!(store.list("notes").unwrap().len(), 1);
    assert_eq!(store.apps().unwrap(), ["mail", "notes"]);
    let stats = store.stats().unwrap();
    assert_eq!((stats.contexts, stats.chunks, stats.links), (4, 3, 4));
    store.close().unwrap();
    let wrong = concertina_kv::store::Options { device_key: [1; 32], ..options(9) };
    assert!(matches!(Store::open(medium, &wrong), Err(Error::WrongKey)));
}

#[test]
fn compacting_gives_space_back() {
    let medium = Arc::new(MemoryMedium::new());
    let mut store = open(medium, 11).unwrap();
    let mut model = Model::default();
    for n in 0..8_u32 {
        let id = store.create("mail", MODEL, 0).unwrap();
        let tokens: Vec<u32> = (0..320).map(|i| i + 1000 * n).collect();
        store.append("mail", id, 0, &tokens, 0).unwrap();
        let known = Known { app: "mail", tokens, flushed: Default::default() };
        put(&mut store, id, &known, 0..320 / CHUNK_TOKENS, 0, Width::W16).unwrap();
        model.insert(id, known);
    }
    let gone: Vec<_> = model.keys().copied().step_by(2).collect();
    for id in gone {
        store.delete("mail", id).unwrap();
        model.remove(&id);
    }
    let report = store.compact().unwrap();
    println!("{report:?}");
    assert!(report.moved_chunks > 10 && report.after_bytes < report.before_bytes);
    assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
    let seen = verify(&mut store, &model).unwrap();
    assert_eq!((seen.chunks, seen.missing), (80, 0));
    let stats = store.stats().unwrap();
    assert!(stats.disk_bytes - stats.index_bytes < stats.chunk_bytes + (32 << 10), "{stats:?}");
}
