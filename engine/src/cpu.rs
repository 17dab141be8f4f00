//! The CPU twins as a backend: slow, plain, and what every adapter is compared with.

use std::cell::Cell;

use concertina_shaders::{Step, twins};

use crate::backend::{Counters, Restrictions};
use crate::record::{BufId, Recording, Slice};
use crate::{Error, Result};

/// Buffers in host memory, and recordings run by twins.
#[derive(Default)]
pub struct Cpu {
    buffers: Vec<Vec<Cell<u32>>>,
    pub(crate) counters: Counters,
    pub(crate) restrictions: Restrictions,
}

impl Cpu {
    /// A zeroed buffer.
    pub fn alloc(&mut self, bytes: u64) -> BufId {
        self.buffers.push(vec![Cell::new(0); bytes.div_ceil(4) as usize]);
        BufId(self.buffers.len() as u32 - 1)
    }

    /// Frees its memory; the number is not used again.
    pub fn free(&mut self, buf: BufId) {
        self.buffers[buf.0 as usize] = Vec::new();
    }

    fn words(&self, slice: Slice) -> &[Cell<u32>] {
        &self.buffers[slice.buf.0 as usize][slice.offset as usize / 4..][..slice.len.div_ceil(4) as usize]
    }

    /// Copies bytes, a whole number of words, into a buffer.
    pub fn write(&self, to: Slice, bytes: &[u8]) {
        for (word, bytes) in self.words(to).iter().zip(bytes.chunks_exact(4)) {
            word.set(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        }
    }

    /// Copies bytes out.
    pub fn read(&self, from: Slice) -> Vec<u8> {
        self.words(from).iter().flat_map(|w| w.get().to_le_bytes()).collect()
    }

    /// Run a recording.
    pub fn run(&self, step: &Step, recording: &Recording) -> Result<()> {
        for op in &recording.ops {
            if op.groups(step).contains(&0) {
                continue;
            }
            let args: Vec<twins::Words<'_>> = op.args.iter().map(|slice| twins::Words(self.words(*slice))).collect();
            let call = twins::Call { variant: op.variant, step: *step, params: &op.params, args: &args };
            twins::run(&call);
        }
        Ok(())
    }

    /// Limits of host memory: none but the address space.
    pub fn check(bytes: u64) -> Result<()> {
        usize::try_from(bytes).map(|_| ()).map_err(|_| Error::OutOfMemory(format!("{bytes} bytes on the host")))
    }
}
