//! Slots of a page pool.

/// No slot of the pool is free.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("all {capacity} KV slots are in use")]
pub struct OutOfSlots {
    /// Slots of the pool.
    pub capacity: u32,
}

/// Which slots of a pool are free. Slots are handed out lowest first, so that a small load touches little memory.
#[derive(Debug)]
pub struct SlotPool {
    capacity: u32,
    next: u32,
    free: std::collections::BTreeSet<u32>,
}

impl SlotPool {
    /// A pool of `capacity` free slots.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, next: 0, free: Default::default() }
    }

    /// Slots in use.
    pub fn used(&self) -> u32 {
        self.next - self.free.len() as u32
    }

    /// Slots of the pool.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Take a slot.
    pub fn take(&mut self) -> Result<u32, OutOfSlots> {
        if let Some(slot) = self.free.pop_first() {
            return Ok(slot);
        }
        if self.next == self.capacity {
            return Err(OutOfSlots { capacity: self.capacity });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Give a slot back.
    ///
    /// # Panics
    /// If it was not taken: two contexts would share it.
    pub fn give(&mut self, slot: u32) {
        assert!(slot < self.next && self.free.insert(slot), "slot {slot} was not in use");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_never_shared_and_come_back() {
        let mut pool = SlotPool::new(3);
        let taken: Vec<u32> = (0..3).map(|_| pool.take().unwrap()).collect();
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!(pool.take(), Err(OutOfSlots { capacity: 3 }));
        pool.give(1);
        assert_eq!((pool.used(), pool.take()), (2, Ok(1)));
    }

    #[test]
    #[should_panic(expected = "was not in use")]
    fn giving_twice_is_caught() {
        let mut pool = SlotPool::new(2);
        let slot = pool.take().unwrap();
        pool.give(slot);
        pool.give(slot);
    }
}
