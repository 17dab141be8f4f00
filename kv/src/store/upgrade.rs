//! Tables of a store that is new, or that an older program wrote.

use redb::Database;

use super::error::{Result, index};
use super::rows::{CENTRES, CHUNKS, CONTEXTS, ERASE, LINKS, META, PREFIXES, REFS, TOKENS};

/// Make the tables that are missing, and empty those of chunks, in one durable step. It can be repeated, so the superblock
/// tells of it only afterwards. Chunks of an older format are not worth reading: they are computed again from the tokens.
pub(super) fn make_tables(db: &Database) -> Result<()> {
    let txn = db.begin_write().map_err(index)?;
    txn.delete_table(CHUNKS).map_err(index)?;
    txn.delete_table(PREFIXES).map_err(index)?;
    txn.delete_table(LINKS).map_err(index)?;
    txn.delete_table(REFS).map_err(index)?;

    txn.open_table(CONTEXTS).map_err(index)?;
    txn.open_table(TOKENS).map_err(index)?;
    txn.open_table(CHUNKS).map_err(index)?;
    txn.open_table(PREFIXES).map_err(index)?;
    txn.open_table(LINKS).map_err(index)?;
    txn.open_table(REFS).map_err(index)?;
    txn.open_table(CENTRES).map_err(index)?;
    txn.open_table(ERASE).map_err(index)?;
    txn.open_table(META).map_err(index)?;
    txn.commit().map_err(index)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::super::superblock::{self, Superblock};
    use super::super::{ChunkPut, ContextId, Crashes, Fault, MemoryMedium, ModelId, Options, Store};
    use super::*;
    use crate::Width;
    use crate::random::SplitMix;

    const APPS: [&str; 2] = ["mail", "notes"];
    const MODEL: ModelId = ModelId([7; 32]);

    fn open(medium: Arc<MemoryMedium>, opening: u64) -> Result<Store> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&opening.to_le_bytes());
        Store::open(medium, &Options { cache_bytes: 1 << 20, segment_bytes: 4096, ..Options::new([42; 32], seed) })
    }

    fn tokens(app: &str) -> Vec<u32> {
        (0..40).map(|i| i * app.len() as u32).collect()
    }

    fn put(store: &mut Store, app: &str, context: ContextId) {
        for index in 0..2 {
            let layers: &[&[u8]] = &[&[1; 1000], &[2; 1000]];
            let put = ChunkPut { index, tokens: 16, level: 0, width: Width::W4, density: 0.5, layers };
            store.put_chunks(app, context, &[put]).unwrap();
        }
    }

    /// What a program of version 1 left: no table of centres, and a superblock that says so.
    fn version_1() -> MemoryMedium {
        let medium = Arc::new(MemoryMedium::new());
        let mut store = open(medium.clone(), 1).unwrap();
        for app in APPS {
            let id = store.create(app, MODEL, 3).unwrap();
            store.append(app, id, 0, &tokens(app), 4).unwrap();
            put(&mut store, app, id);
            store.touch(app, id, 5, true).unwrap();
        }
        let txn = store.db().unwrap().begin_write().unwrap();
        assert!(txn.delete_table(CENTRES).unwrap());
        txn.commit().unwrap();
        let old = Superblock { version: 1, store: store.id, root: store.root.clone() };
        superblock::write(&store.disk, &[42; 32], &old, &mut store.random).unwrap();
        store.close().unwrap();
        assert_eq!(versions(&medium), [1, 1]);
        assert!(medium.bytes("seg.00000000").is_some());
        medium.copy()
    }

    /// What both copies of the superblock say.
    fn versions(medium: &MemoryMedium) -> [u8; 2] {
        let bytes = medium.bytes("store").unwrap();
        [bytes[8], bytes[512 + 8]]
    }

    /// The store is of version 2 and has everything but its chunks; it takes new ones.
    fn survives(medium: Arc<MemoryMedium>, opening: u64) {
        let mut store = open(medium.clone(), opening).unwrap();
        assert_eq!(versions(&medium), [2, 2]);
        assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
        assert_eq!(store.centres(MODEL).unwrap(), None);
        let mut contexts = Vec::new();
        for app in APPS {
            let [info] = store.list(app).unwrap().try_into().unwrap();
            assert_eq!((info.created_ms, info.used_ms, info.pinned, info.chunks), (3, 5, true, 0));
            assert_eq!(store.tokens(app, info.id).unwrap(), tokens(app));
            contexts.push((app, info.id));
        }
        let stats = store.stats().unwrap();
        assert_eq!((stats.chunks, stats.links, stats.chunk_bytes), (0, 0, 0));
        store.set_centres(MODEL, b"centres").unwrap();
        contexts.iter().for_each(|(app, id)| put(&mut store, app, *id));
        store.close().unwrap();
        // The second opening has nothing to upgrade.
        let mut store = open(medium, opening + 1).unwrap();
        assert_eq!(store.centres(MODEL).unwrap().as_deref(), Some(&b"centres"[..]));
        for (app, id) in contexts {
            let readers = store.readers(app, id).unwrap();
            assert!(readers.len() == 2 && readers.iter().all(|reader| reader.verify()));
        }
    }

    #[test]
    fn a_store_of_version_1_keeps_all_but_its_chunks() {
        survives(Arc::new(version_1()), 10);
    }

    #[test]
    fn no_power_cut_in_an_upgrade_loses_more_than_chunks() {
        let before = version_1();
        let mut random = SplitMix::new(1);
        let (mut opening, mut halves) = (10, 0);
        let mut next = || {
            opening += 2;
            opening
        };
        let mut crashes_of = |before: &MemoryMedium| {
            let medium = Arc::new(before.copy_journaled());
            drop(open(medium.clone(), next()).unwrap());
            Crashes::after(&medium, before)
        };
        let mut crashes = crashes_of(&before);
        let mut images = Vec::new();
        while crashes.step().is_some() {
            images.extend((0..6).map(|_| crashes.image(&mut random)));
        }
        // Cut again while what the first cut left is upgraded.
        for at in (0..images.len()).step_by(7) {
            let mut crashes = crashes_of(&images[at]);
            while crashes.step().is_some() {
                images.push(crashes.image(&mut random));
            }
        }
        for image in images {
            halves += u32::from(versions(&image) == [2, 1]);
            survives(Arc::new(image), next());
        }
        assert!(halves > 0, "one copy of the superblock is written before the other");
    }

    #[test]
    fn an_upgrade_that_fails_is_made_at_the_next_opening() {
        let before = version_1();
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let mut at = 0;
            loop {
                let medium = Arc::new(before.copy());
                medium.set_fault(Some(Fault { at, count: u64::MAX, kind }));
                let opened = open(medium.clone(), 10).is_ok();
                let done = opened && medium.operations() <= at;
                medium.set_fault(None);
                survives(medium, 20);
                if done {
                    break;
                }
                at += 1;
            }
        }
    }
}
