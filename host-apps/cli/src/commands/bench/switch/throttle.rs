//! A disk made slow on purpose.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use concertina::kv::store::Medium;

/// Reads and writes no faster than a rate, one after the other as a disk would.
#[derive(Debug)]
pub struct Throttled<M> {
    medium: M,
    bytes_per_s: f64,
    /// When the disk is done with what it was asked so far.
    free_at: Mutex<Instant>,
}

impl<M: Medium> Throttled<M> {
    pub fn new(medium: M, mb_per_s: f64) -> Self {
        Self { medium, bytes_per_s: mb_per_s * 1e6, free_at: Mutex::new(Instant::now()) }
    }

    fn wait(&self, bytes: usize) {
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s);
            *free_at
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

impl<M: Medium> Medium for Throttled<M> {
    fn len(&self, name: &str) -> io::Result<Option<u64>> {
        self.medium.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.wait(out.len());
        self.medium.read_at(name, offset, out)
    }

    fn write_at(&self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.wait(data.len());
        self.medium.write_at(name, offset, data)
    }

    fn set_len(&self, name: &str, len: u64) -> io::Result<()> {
        self.medium.set_len(name, len)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.medium.sync(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.medium.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.medium.list()
    }
}
