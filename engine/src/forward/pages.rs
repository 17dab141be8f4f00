//! Chunks on their way out of the arena and back into it.

use std::ops::Range;

use concertina_kv::ChunkEntry;

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

    /// Write the contents of a chunk with the next delivery.
    ///
    /// # Panics
    /// If there are not as many bytes as [`Forward::chunk_bytes`] says.
    pub fn write_chunk(&self, backend: &mut Backend, entry: ChunkEntry, bytes: &[u8]) -> Result<()> {
        assert_eq!(bytes.len(), self.chunk_bytes(entry));
        let layer = bytes.len() / self.buffers.pages.len();
        self.extents(entry).zip(bytes.chunks_exact(layer)).try_for_each(|(to, bytes)| backend.put(to, bytes))
    }

    /// Overwrite units of every layer with zeros.
    pub fn clear_units(&self, backend: &mut Backend, units: &[Range<u32>]) -> Result<()> {
        let unit = geometry(&self.spec, self.capacity.exact).unit_bytes();
        let of = |pages: &Slice, range: &Range<u32>| Slice {
            offset: pages.offset + u64::from(range.start) * unit,
            len: u64::from(range.end - range.start) * unit,
            ..*pages
        };
        let slices: Vec<Slice> =
            self.buffers.pages.iter().flat_map(|pages| units.iter().map(move |range| of(pages, range))).collect();
        backend.clear(&slices)
    }

    /// All pages of all layers.
    pub async fn read_pages(&self, backend: &mut Backend) -> Result<Vec<u8>> {
        backend.gather(&self.buffers.pages).await
    }
}
