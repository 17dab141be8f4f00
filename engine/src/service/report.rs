//! What the service tells of contexts and calls.

use std::collections::BTreeMap;

use concertina_kv::policy::Choice;
use concertina_kv::store::ContextId;

use crate::Answer;

/// Where a context's keys and values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residence {
    /// All in memory.
    Memory,
    /// Some in memory.
    Partly,
    /// None in memory.
    Disk,
}

/// A context, as its owner sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextUsage {
    /// Its app.
    pub app: String,
    /// Its name.
    pub id: ContextId,
    /// Tokens.
    pub tokens: usize,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used.
    pub used_ms: u64,
    /// Whether its chunks stay in memory.
    pub pinned: bool,
    /// Where its chunks are.
    pub residence: Residence,
    /// Chunks of each width in memory: bits, count.
    pub memory_chunks: BTreeMap<usize, usize>,
    /// Chunks by the level that computed them: percent, count. Those that are neither in memory nor on disk have none.
    pub levels: BTreeMap<u32, usize>,
    /// Bytes of its chunks in memory; contexts that share a chunk count it each.
    pub memory_bytes: u64,
    /// Of those, bytes that other contexts of the app hold too, which are in memory once.
    pub shared_bytes: u64,
    /// Chunks on disk.
    pub disk_chunks: usize,
    /// Bytes of its chunks on disk; contexts that share a chunk count it each.
    pub disk_bytes: u64,
    /// Place of its first chunk in the order of eviction, from 0; `None` where it has none there.
    pub evicted_after: Option<usize>,
}

/// How a context came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Switch {
    /// Milliseconds from the call to ready-to-prefill.
    pub ready_ms: f64,
    /// Milliseconds that the plan expected of the restore.
    pub planned_ms: f64,
    /// Chunks of other contexts that went.
    pub evicted: usize,
    /// Of those, chunks that had to be written first.
    pub written: usize,
    /// Chunks that another context of the app had in memory.
    pub shared: usize,
    /// Chunks read from disk.
    pub read: usize,
    /// Their bytes on disk.
    pub read_bytes: u64,
    /// Chunks computed anew.
    pub recomputed: usize,
    /// Chunks whose copy on disk was found damaged or gone.
    pub lost: usize,
    /// What the plan came to.
    pub choice: Option<Choice>,
}

/// An answer, and what it took to get back to its context.
#[derive(Debug, Clone)]
pub struct Served {
    /// The answer.
    pub answer: Answer,
    /// The way back.
    pub switch: Switch,
}
