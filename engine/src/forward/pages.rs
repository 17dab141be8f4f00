//! Chunks on their way out of the arena and back into it.

use concertina_kv::ChunkEntry;
use concertina_shaders::Step;

use super::{Forward, geometry};
use crate::record::Slice;
use crate::{Backend, Result};

impl Forward {
    /// Bytes of a chunk, all layers one after the other.
    pub fn chunk_bytes(&self, entry: ChunkEntry) -> usize {
        geometry(&self.spec, self.capacity.exact).chunk_bytes(entry.width) as usize
    }

    /// Where each layer of a chunk lies.
    fn extents(&self, entry: ChunkEntry) -> impl Iterator<Item = Slice> {
        let geometry = geometry(&self.spec, self.capacity.exact);
        let offset = u64::from(entry.place) * geometry.unit_bytes();
        let len = geometry.layer_bytes(entry.width);
        self.buffers.pages.iter().map(move |pages| Slice { offset: pages.offset + offset, len, ..*pages })
    }

    /// Contents of chunks, one after the other, of each all layers.
    pub async fn read_chunks(&self, backend: &mut Backend, entries: &[ChunkEntry]) -> Result<Vec<u8>> {
        let slices: Vec<Slice> = entries.iter().flat_map(|entry| self.extents(*entry)).collect();
        backend.gather(&slices).await
    }

    /// Write the contents of a chunk with the next submission.
    ///
    /// # Panics
    /// If there are not as many bytes as [`Forward::chunk_bytes`] says.
    pub fn write_chunk(&self, backend: &mut Backend, entry: ChunkEntry, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.chunk_bytes(entry));
        let layer = bytes.len() / self.buffers.pages.len();
        for (to, bytes) in self.extents(entry).zip(bytes.chunks_exact(layer)) {
            backend.stage(to, bytes);
        }
    }

    /// Submit what was written.
    pub async fn deliver(&self, backend: &mut Backend) -> Result<()> {
        backend.run(&Step::default(), &[], None).await.map(drop)
    }
}
