//! Where chunks of several widths lie in one arena of units: a pool for each width, which grows and shrinks by slabs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{KvGeometry, Width};

/// Chunks of the widest kind that a slab has room for: what a slab's end wastes is a few percent then.
const SLAB_CHUNKS: u32 = 8;

/// The arena has no room for a chunk of this width.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no room for a chunk of {} bits: {used} of {capacity} units of KV memory are in use", width.bits())]
pub struct OutOfRoom {
    /// Width of the chunk.
    pub width: Width,
    /// Units in use.
    pub used: u32,
    /// Units of the arena.
    pub capacity: u32,
}

/// Part of the arena that holds chunks of one width while it holds any.
#[derive(Debug)]
struct Slab {
    width: Width,
    /// Chunks of that width that it could hold.
    room: u32,
    /// Which are taken, and by how many.
    taken: BTreeMap<u32, u32>,
}

/// An arena of units, the same for all layers. Places are handed out lowest first, so that a small load touches little
/// memory.
#[derive(Debug)]
pub struct Arena {
    capacity: u32,
    units: [u32; 5],
    slab_units: u32,
    used: u32,
    /// `None`: free for any width.
    slabs: Vec<Option<Slab>>,
    free: BTreeSet<u32>,
    /// Slabs of each width that have room.
    open: [BTreeSet<u32>; 5],
}

impl Arena {
    /// An empty arena of `capacity` units.
    pub fn new(geometry: &KvGeometry, capacity: u32) -> Self {
        let units = Width::ALL.map(|width| geometry.units(width));
        let written = geometry.units(geometry.written);
        // A small arena has small slabs, so that every width finds one.
        let slab_units = written * (capacity / written / 16).clamp(1, SLAB_CHUNKS);
        let slabs = capacity.div_ceil(slab_units);
        Self {
            capacity,
            units,
            slab_units,
            used: 0,
            slabs: (0..slabs).map(|_| None).collect(),
            free: (0..slabs).collect(),
            open: Default::default(),
        }
    }

    /// Units in use, whole slabs.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Units of the arena.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    fn slab_size(&self, slab: u32) -> u32 {
        self.slab_units.min(self.capacity - slab * self.slab_units)
    }

    /// Chunks of a width that there are places for now.
    pub fn room(&self, width: Width) -> u32 {
        let units = self.units[width as usize];
        let open = self.open[width as usize].iter().filter_map(|slab| self.slabs[*slab as usize].as_ref());
        let fresh: u32 = self.free.iter().map(|slab| self.slab_size(*slab) / units).sum();
        open.map(|slab| slab.room - slab.taken.len() as u32).sum::<u32>() + fresh
    }

    /// Units that no chunk has: ranges of them, in order.
    pub fn free_units(&self) -> Vec<std::ops::Range<u32>> {
        let mut free = Vec::new();
        for slab in 0..self.slabs.len() as u32 {
            let (begin, end) = (slab * self.slab_units, slab * self.slab_units + self.slab_size(slab));
            let mut from = begin;
            if let Some(inside) = &self.slabs[slab as usize] {
                let units = self.units[inside.width as usize];
                for at in inside.taken.keys() {
                    free.push(from..begin + at * units);
                    from = begin + (at + 1) * units;
                }
            }
            free.push(from..end);
        }
        free.retain(|range| !range.is_empty());
        free
    }

    /// Take a place for a chunk: its first unit.
    pub fn take(&mut self, width: Width) -> Result<u32, OutOfRoom> {
        let units = self.units[width as usize];
        let slab = match self.open[width as usize].first() {
            Some(slab) => *slab,
            None => {
                // The last slab may be too short.
                let fits = self.free.iter().copied().find(|slab| self.slab_size(*slab) >= units);
                let slab = fits.ok_or(OutOfRoom { width, used: self.used, capacity: self.capacity })?;
                self.free.remove(&slab);
                self.used += self.slab_size(slab);
                let room = self.slab_size(slab) / units;
                self.slabs[slab as usize] = Some(Slab { width, room, taken: BTreeMap::new() });
                self.open[width as usize].insert(slab);
                slab
            }
        };
        let Some(inside) = &mut self.slabs[slab as usize] else { unreachable!("open slabs have a width") };
        let at = (0..inside.room).find(|at| !inside.taken.contains_key(at)).expect("open slabs have room");
        inside.taken.insert(at, 1);
        if inside.taken.len() as u32 == inside.room {
            self.open[width as usize].remove(&slab);
        }
        Ok(slab * self.slab_units + at * units)
    }

    /// One more holds a place: it is free when all have given it back.
    ///
    /// # Panics
    /// If it was not taken for that width.
    pub fn hold(&mut self, width: Width, place: u32) {
        *self.holders_mut(width, place) += 1;
    }

    /// Whether more than one holds a place: then nobody may write to it.
    ///
    /// # Panics
    /// If it was not taken for that width.
    pub fn is_shared(&mut self, width: Width, place: u32) -> bool {
        *self.holders_mut(width, place) > 1
    }

    fn holders_mut(&mut self, width: Width, place: u32) -> &mut u32 {
        let (slab, rest, units) = (place / self.slab_units, place % self.slab_units, self.units[width as usize]);
        let inside = self.slabs.get_mut(slab as usize).and_then(Option::as_mut).filter(|slab| slab.width == width);
        let holders =
            inside.filter(|_| rest.is_multiple_of(units)).and_then(|slab| slab.taken.get_mut(&(rest / units)));
        holders.unwrap_or_else(|| panic!("place {place} was not in use by {width:?}"))
    }

    /// Give a place back. The last to hold it frees it.
    ///
    /// # Panics
    /// If it was not taken for that width: two contexts would take it for their own.
    pub fn give(&mut self, width: Width, place: u32) {
        let holders = self.holders_mut(width, place);
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        let (slab, rest) = (place / self.slab_units, place % self.slab_units);
        let Some(inside) = &mut self.slabs[slab as usize] else { unreachable!("it holds the place") };
        inside.taken.remove(&(rest / self.units[width as usize]));
        if inside.taken.is_empty() {
            self.slabs[slab as usize] = None;
            self.open[width as usize].remove(&slab);
            self.free.insert(slab);
            self.used -= self.slab_size(slab);
        } else {
            self.open[width as usize].insert(slab);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of test choices (SplitMix64).
    struct Choices(u64);

    impl Choices {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n as u64) as usize
        }
    }

    #[test]
    fn places_never_overlap_never_exceed_and_all_return() {
        for seed in 0..60 {
            let mut pick = Choices(seed);
            let head_dim = [8, 16, 64, 80, 128, 256][pick.below(6)];
            let geometry = KvGeometry { layers: 1, groups: 1, head_dim, written: Width::W16 };
            let capacity = geometry.units(Width::W16) * (1 + pick.below(60) as u32) + pick.below(7) as u32;
            let mut arena = Arena::new(&geometry, capacity);
            let mut owner = vec![false; capacity as usize];
            let mut held: Vec<(Width, u32)> = Vec::new();
            for _ in 0..2000 {
                let width = Width::ALL[pick.below(4)];
                if held.is_empty() || pick.below(5) < 3 {
                    match arena.take(width) {
                        Ok(place) => {
                            for unit in place..place + geometry.units(width) {
                                assert!(
                                    !std::mem::replace(&mut owner[unit as usize], true),
                                    "seed {seed}: {unit} twice"
                                );
                            }
                            held.push((width, place));
                        }
                        Err(full) => assert_eq!(full.width, width),
                    }
                } else {
                    let (width, place) = held.swap_remove(pick.below(held.len()));
                    owner[place as usize..][..geometry.units(width) as usize].fill(false);
                    arena.give(width, place);
                }
                assert!(arena.used() <= arena.capacity());
            }
            let mut free = vec![false; capacity as usize];
            arena.free_units().into_iter().flatten().for_each(|unit| free[unit as usize] = true);
            assert!(owner.iter().zip(&free).all(|(owned, free)| owned != free), "seed {seed}: free is what nobody has");
            held.into_iter().for_each(|(width, place)| arena.give(width, place));
            assert_eq!(arena.used(), 0, "seed {seed}: everything came back");
            let whole = capacity / geometry.units(Width::W16);
            let mut all = 0;
            while arena.take(Width::W16).is_ok() {
                all += 1;
            }
            assert_eq!(all, whole, "seed {seed}: nothing is lost to slabs of the written width");
        }
    }

    #[test]
    fn the_ends_of_slabs_waste_little() {
        let geometry = KvGeometry { layers: 30, groups: 3, head_dim: 64, written: Width::W16 };
        for width in [Width::W8, Width::W4, Width::W2] {
            let mut arena = Arena::new(&geometry, 256 * 32);
            let chunks = (0..).take_while(|_| arena.take(width).is_ok()).count() as u32;
            let share = f64::from(chunks * geometry.units(width)) / f64::from(arena.capacity());
            assert!(share > 0.98, "{width:?}: {share}");
        }
    }

    #[test]
    fn a_place_is_free_when_all_who_hold_it_gave_it_back() {
        let geometry = KvGeometry { layers: 1, groups: 1, head_dim: 64, written: Width::W16 };
        let mut arena = Arena::new(&geometry, 320);
        let place = arena.take(Width::W4).unwrap();
        arena.hold(Width::W4, place);
        assert!(arena.is_shared(Width::W4, place));
        arena.give(Width::W4, place);
        assert!(!arena.is_shared(Width::W4, place));
        assert!(arena.used() > 0 && arena.take(Width::W4) != Ok(place), "it is held still");
        arena.give(Width::W4, place);
        assert_eq!(arena.take(Width::W4), Ok(place));
    }

    #[test]
    #[should_panic(expected = "was not in use")]
    fn giving_twice_is_caught() {
        let geometry = KvGeometry { layers: 1, groups: 1, head_dim: 64, written: Width::W16 };
        let mut arena = Arena::new(&geometry, 320);
        let (one, _) = (arena.take(Width::W4).unwrap(), arena.take(Width::W4).unwrap());
        arena.give(Width::W4, one);
        arena.give(Width::W4, one);
    }
}
