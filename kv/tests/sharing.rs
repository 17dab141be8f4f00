//! Contexts that share pages, against a model that knows what every place must hold: no page is freed or written while it is
//! held, none is left when nobody holds it, and the budget counts each once.

use std::collections::BTreeMap;

use concertina_kv::policy::{ChunkBytes, Eviction, LineFit, Manager, Policy, Rates, Split, WidthErrors};
use concertina_kv::random::SplitMix;
use concertina_kv::{Arena, CHUNK_TOKENS, ChunkEntry, ChunkTable, KvGeometry, Width};

const GEOMETRY: KvGeometry = KvGeometry { layers: 1, groups: 1, head_dim: 64, written: Width::W16 };
/// Chunks of 16 bits that the budget holds, and tokens of a context at most: several contexts never fit.
const BUDGET_CHUNKS: u64 = 24;
const MOST_TOKENS: usize = 18 * CHUNK_TOKENS;

#[derive(Clone, Copy)]
struct Bytes;

impl ChunkBytes for Bytes {
    fn memory(&self, width: Width) -> u64 {
        GEOMETRY.chunk_bytes(width)
    }

    fn disk(&self, width: Width) -> u64 {
        GEOMETRY.chunk_bytes(width) + 16
    }
}

struct Context {
    app: u32,
    tokens: Vec<u32>,
    table: ChunkTable,
}

/// Does what a service does, and writes down what lies where: the app, the tokens up to a chunk's last one, and its width.
struct Service {
    manager: Manager<Bytes>,
    arena: Arena,
    contexts: BTreeMap<u64, Context>,
    pages: BTreeMap<u32, (u32, Vec<u32>, Width)>,
    random: SplitMix,
    /// Finds others' chunks by their index alone: to see that the model notices.
    careless: bool,
    shared: usize,
}

impl Service {
    fn new(policy: Policy, seed: u64) -> Self {
        let budget = BUDGET_CHUNKS * Bytes.memory(Width::W16);
        Self {
            manager: Manager::new(policy.features(), Bytes, budget, WidthErrors::default(), 4.0),
            arena: Arena::new(&GEOMETRY, 2 * BUDGET_CHUNKS as u32 * GEOMETRY.units(Width::W16)),
            contexts: (0..6).map(|key| (key, Context::new(key as u32 % 2))).collect(),
            pages: BTreeMap::new(),
            random: SplitMix::new(seed),
            careless: false,
            shared: 0,
        }
    }

    fn carry_out(&mut self, evictions: &[Eviction]) {
        for Eviction { key, .. } in evictions {
            let table = &mut self.contexts.get_mut(&key.0).unwrap().table;
            table.evict(key.1 as usize, &mut self.arena);
        }
    }

    fn share(&mut self, key: u64) {
        let state = self.manager.state(key);
        let mine = &self.contexts[&key];
        let mut found = BTreeMap::new();
        for (other, theirs) in self.contexts.iter().filter(|(other, theirs)| **other != key && theirs.app == mine.app) {
            let common = mine.tokens.iter().zip(&theirs.tokens).take_while(|(a, b)| a == b).count() / CHUNK_TOKENS;
            let most = mine.table.sealed().min(theirs.table.sealed());
            let same = if self.careless { most } else { most.min(common) };
            for (index, (place, (memory, disk))) in theirs.table.entries().iter().zip(&state).enumerate().take(same) {
                if let Some(place) = place.filter(|place| memory.is_none() && disk.is_none_or(|w| w == place.width)) {
                    found.insert(index, (*other, place));
                }
            }
        }
        for (index, (other, place)) in found {
            assert!(self.manager.share((key, index as u32), (other, index as u32)));
            self.contexts.get_mut(&key).unwrap().table.share(index, place, &mut self.arena);
            self.shared += 1;
        }
    }

    /// Something is written to chunks from `first` on: the tokens up to their ends.
    fn write(&mut self, key: u64, chunks: impl Iterator<Item = usize>) {
        let context = &self.contexts[&key];
        for index in chunks {
            let place = context.table.entries()[index].unwrap();
            assert!(!self.arena.is_shared(place.width, place.place), "a page is written that another context holds");
            let holds = (context.app, context.held(index), place.width);
            self.pages.insert(place.place, holds);
        }
    }

    fn call(&mut self, key: u64, more: usize, now: u64) {
        self.manager.set_split(Split::Random(now));
        self.share(key);
        let rates = Rates::new(LineFit::new(0.0, 0.01), LineFit::new(0.0, 1e-6));
        let switch = self.manager.enter(key, &rates).unwrap();
        self.carry_out(&switch.evict);
        for index in switch.restore.recompute.iter().chain(&switch.restore.read) {
            let width = self.manager.state(key)[*index as usize].0.unwrap();
            self.contexts.get_mut(&key).unwrap().table.bring(*index as usize, width, &mut self.arena).unwrap();
            self.write(key, std::iter::once(*index as usize));
        }
        let have = self.contexts[&key].tokens.len();
        let more = more.min(MOST_TOKENS - have);
        let evicted = self.manager.grow(key, have, have + more).unwrap();
        self.carry_out(&evicted);
        let context = self.contexts.get_mut(&key).unwrap();
        // A few texts begin the same, and go on in two ways.
        let text = self.random.below(2) as u32;
        context.tokens.extend((have..have + more).map(|at| 2 * at as u32 + text));
        context.table.grow(more, Width::W16, &mut self.arena).unwrap();
        if more > 0
            && let Some((open, _, to)) = context.table.reopen(Width::W16, &mut self.arena).unwrap()
        {
            context.table.replace(open, to, &mut self.arena);
        }
        context.table.wrote(more);
        let chunks = context.table.entries().len();
        self.write(key, have / CHUNK_TOKENS..chunks);
        let densities: Vec<f64> = (0..chunks).map(|_| self.random.unit()).collect();
        for (index, from, to) in self.manager.finish(key, have + more, &densities, now).requantise {
            let context = self.contexts.get_mut(&key).unwrap();
            let reserved = context.table.reserve(index as usize, to, &mut self.arena);
            let (old, new): (ChunkEntry, ChunkEntry) = reserved.expect("room for a narrower copy");
            assert_eq!(old.width, from);
            context.table.replace(index as usize, new, &mut self.arena);
            self.write(key, std::iter::once(index as usize));
        }
    }

    fn truncate(&mut self, key: u64, keep: usize) {
        let context = self.contexts.get_mut(&key).unwrap();
        context.table.truncate(keep, &mut self.arena);
        let left = context.table.tokens();
        context.tokens.truncate(left);
        self.manager.truncate(key, left);
    }

    /// What is on disk of one begins the other, and nothing is in memory.
    fn fork(&mut self, from: u64, to: u64) {
        let (source, disk) = (&self.contexts[&from], self.manager.state(from));
        let tokens = source.tokens.clone();
        let fresh = Context { app: source.app, table: ChunkTable::absent(tokens.len()), tokens };
        let sealed = fresh.table.sealed();
        let on_disk = |(i, (_, disk)): (usize, &(_, Option<Width>))| (disk.filter(|_| i < sealed), 0.0);
        self.remove(to);
        self.manager.add(to, &disk.iter().enumerate().map(on_disk).collect::<Vec<_>>());
        self.contexts.insert(to, fresh);
    }

    fn remove(&mut self, key: u64) {
        self.manager.remove(key);
        self.contexts.get_mut(&key).unwrap().table.truncate(0, &mut self.arena);
        self.contexts.insert(key, Context::new(key as u32 % 2));
    }

    fn check(&self) {
        let mut held = BTreeMap::new();
        for (key, context) in &self.contexts {
            let state = self.manager.state(*key);
            assert_eq!(state.len(), context.table.entries().len());
            for (index, (entry, (memory, _))) in context.table.entries().iter().zip(&state).enumerate() {
                assert_eq!(entry.map(|entry| entry.width), *memory, "books and tables differ");
                let Some(entry) = entry else { continue };
                let (app, tokens, width) = &self.pages[&entry.place];
                // Behind the cut of a chunk lies what was cut off.
                let same = (*app, *width) == (context.app, entry.width) && tokens.starts_with(&context.held(index));
                assert!(same, "chunk {index} of {key} holds something else");
                held.insert(entry.place, entry.width);
            }
        }
        let budget = self.manager.budget();
        assert_eq!(
            budget.used(),
            held.values().map(|width| Bytes.memory(*width)).sum::<u64>(),
            "each page counts once"
        );
        assert!(budget.peak() <= BUDGET_CHUNKS * Bytes.memory(Width::W16));
        let free: u32 = self.arena.free_units().iter().map(ExactSizeIterator::len).sum::<usize>() as u32;
        let units: u32 = held.values().map(|width| GEOMETRY.units(*width)).sum();
        assert_eq!(self.arena.capacity() - free, units, "a page is taken that nobody holds");
    }
}

impl Context {
    fn new(app: u32) -> Self {
        Self { app, tokens: Vec::new(), table: ChunkTable::new() }
    }

    /// Tokens up to the end of a chunk.
    fn held(&self, index: usize) -> Vec<u32> {
        self.tokens[..self.tokens.len().min((index + 1) * CHUNK_TOKENS)].to_vec()
    }
}

fn days(service: &mut Service) {
    for now in 1..800 {
        let (key, other) = (service.random.below(6), service.random.below(6));
        match service.random.below(12) {
            0 => {
                let keep = service.random.below(MOST_TOKENS as u64) as usize;
                service.truncate(key, keep);
            }
            1 => service.remove(key),
            2 | 3 if key != other => service.fork(key, other),
            4 => {
                let gone = service.manager.free_one();
                service.carry_out(&gone);
            }
            5 => {
                let bytes = service.random.below(BUDGET_CHUNKS * Bytes.memory(Width::W16));
                let gone = service.manager.set_budget(bytes);
                service.carry_out(&gone);
                service.manager.set_budget(BUDGET_CHUNKS * Bytes.memory(Width::W16));
            }
            6 => service.manager.pin(key, other == 0 && service.contexts[&key].tokens.len() < 64, now),
            _ => {
                // Pinned contexts are small, so that the others fit beside them.
                service.manager.pin(key, false, now);
                let more = service.random.below(60) as usize;
                service.call(key, more, now);
            }
        }
        service.check();
    }
}

#[test]
fn no_shared_page_is_freed_written_or_left_behind() {
    for policy in Policy::ALL {
        let mut shared = 0;
        for seed in 0..4 {
            let mut service = Service::new(policy, seed);
            days(&mut service);
            shared += service.shared;
            (0..6).for_each(|key| service.remove(key));
            service.check();
            assert_eq!((service.manager.budget().used(), service.arena.used()), (0, 0), "{policy:?}, seed {seed}");
        }
        assert!(shared > 300, "{policy:?}: only {shared} chunks were shared");
    }
}

#[test]
#[should_panic(expected = "holds something else")]
fn the_model_notices_a_page_that_is_not_the_same() {
    let mut service = Service::new(Policy::Ours, 1);
    service.careless = true;
    days(&mut service);
}

#[test]
fn a_shared_chunk_keeps_its_width_until_one_holds_it_alone() {
    let mut service = Service::new(Policy::OursNoCompression, 1);
    service.call(0, 64, 1);
    let alone = service.manager.budget().used();
    service.fork(0, 2);
    service.call(2, 16, 2);
    assert_eq!(service.manager.budget().used(), alone + Bytes.memory(Width::W16), "the fork adds its tail");
    assert_eq!(service.manager.memory_bytes(2), (alone + Bytes.memory(Width::W16), alone));
    // The same contexts under a policy that wants 8 bits.
    let mut service = Service::new(Policy::ChunkSwapInt8, 1);
    let wide = |service: &Service, key| {
        service.manager.state(key).iter().filter(|(memory, _)| *memory == Some(Width::W16)).count()
    };
    service.manager.add(0, &[(None, 0.0); 4]);
    service.contexts.get_mut(&0).unwrap().tokens = (0..64).collect();
    service.contexts.get_mut(&0).unwrap().table = ChunkTable::absent(64);
    service.manager.set_split(Split::AllRecompute);
    let rates = Rates::new(LineFit::new(0.0, 0.01), LineFit::new(0.0, 1e-6));
    for index in service.manager.enter(0, &rates).unwrap().restore.recompute {
        service.contexts.get_mut(&0).unwrap().table.bring(index as usize, Width::W16, &mut service.arena).unwrap();
        service.write(0, std::iter::once(index as usize));
    }
    service.manager.stand_down(0, 1);
    service.fork(0, 2);
    service.call(2, 16, 2);
    assert_eq!((wide(&service, 0), wide(&service, 2)), (4, 4), "what is shared stays, what is new becomes narrower");
    service.remove(0);
    service.call(2, 0, 3);
    service.check();
    assert_eq!(wide(&service, 2), 0);
}
