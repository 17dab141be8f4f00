//! Centres of models live with the chunks that were written with them.

mod common;

use std::sync::Arc;

use common::{open, options};
use concertina_kv::Width;
use concertina_kv::store::{ChunkPut, ContextId, Error, MemoryMedium, ModelId, Store};

const OURS: ModelId = ModelId([1; 32]);
const THEIRS: ModelId = ModelId([2; 32]);

/// A context of two chunks.
fn context(store: &mut Store, app: &str, model: ModelId) -> ContextId {
    let id = store.create(app, model, 0).unwrap();
    store.append(app, id, 0, &(0..40).collect::<Vec<_>>(), 0).unwrap();
    put(store, app, id);
    id
}

fn put(store: &mut Store, app: &str, id: ContextId) {
    let layers: &[&[u8]] = &[&[5; 300]];
    let put = |index| ChunkPut { index, tokens: 16, level: 0, width: Width::W4, density: 0.0, layers };
    store.put_chunks(app, id, &[put(0), put(1)]).unwrap();
}

#[test]
fn centres_are_there_after_reopening() {
    let medium = Arc::new(MemoryMedium::new());
    let mut store = open(medium.clone(), 1).unwrap();
    assert_eq!(store.centres(OURS).unwrap(), None);
    let long: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
    store.set_centres(OURS, &long).unwrap();
    store.set_centres(THEIRS, b"").unwrap();
    // Not closed: they are durable without it.
    let mut store = open(Arc::new(medium.copy()), 2).unwrap();
    assert_eq!(store.centres(OURS).unwrap(), Some(long));
    assert_eq!(store.centres(THEIRS).unwrap(), Some(Vec::new()));
    store.set_centres(OURS, b"others").unwrap();
    store.close().unwrap();
}

#[test]
fn other_centres_cost_the_chunks_of_their_model_alone() {
    let mut store = open(Arc::new(MemoryMedium::new()), 3).unwrap();
    let mail = context(&mut store, "mail", OURS);
    let fork = store.fork("mail", mail, 40, 0).unwrap();
    let ours = [("mail", mail), ("mail", fork), ("notes", context(&mut store, "notes", OURS))];
    let theirs = context(&mut store, "mail", THEIRS);
    let used = |store: &mut Store| store.stats().unwrap().chunk_bytes;
    let theirs_alone = used(&mut store) / 3;
    for centres in [b"first", b"other"] {
        let before = used(&mut store);
        assert!(before > theirs_alone);
        store.set_centres(OURS, centres).unwrap();
        assert_eq!(used(&mut store), theirs_alone);
        for (app, id) in ours {
            assert_eq!(store.chunks(app, id).unwrap(), []);
            assert_eq!(store.tokens(app, id).unwrap(), (0..40).collect::<Vec<_>>());
            assert_eq!(store.adopt(app, id, 0).unwrap(), 0, "nothing is left to share");
        }
        ours.iter().for_each(|(app, id)| put(&mut store, app, *id));
        // The same again costs nothing.
        store.set_centres(OURS, centres).unwrap();
        assert_eq!(used(&mut store), before);
        for (app, id) in ours.into_iter().chain([("mail", theirs)]) {
            let readers = store.readers(app, id).unwrap();
            assert!(readers.len() == 2 && readers.iter().all(|reader| reader.verify()));
        }
        assert_eq!(store.check().unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let medium = Arc::new(MemoryMedium::new());
    open(medium.clone(), 4).unwrap().close().unwrap();
    for copy in [0, 512] {
        medium.overwrite("store", copy + 8, &3_u32.to_le_bytes());
    }
    let refused = Store::open(medium, &options(5));
    assert!(matches!(refused, Err(Error::Version { found: 3, known: 2 })), "{refused:?}");
}
