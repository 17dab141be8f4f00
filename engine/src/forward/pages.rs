//! Chunks on their way out of the arena and back into it.

use std::ops::Range;

use concertina_kv::ChunkEntry;

use super::{Forward, geometry};
use crate::record::Slice;
use crate::{Backend, Result};

impl Forward {
    /// Whether a chunk whose layers have so many bytes belongs to a place.
    pub fn takes(&self, entry: ChunkEntry, mut layers: impl ExactSizeIterator<Item = usize>) -> bool {
        let bytes = geometry(&self.spec, self.capacity.exact).layer_bytes(entry.width);
        layers.len() == self.buffers.pages.len() && layers.all(|len| len as u64 == bytes)
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

    /// Chunks will be written, and nothing is submitted meanwhile: where memory is unified, in place.
    pub async fn open_pages(&self, backend: &mut Backend) -> Result<()> {
        backend.open_buffers(&self.buffers.pages).await
    }

    /// Write the contents of chunks with the next delivery: of each, all layers in order. Chunks that lie side by side are
    /// one copy a layer.
    ///
    /// # Panics
    /// If a chunk has not a piece a layer, or a piece not as many bytes as its place.
    pub fn write_chunks(&self, backend: &mut Backend, chunks: &[(ChunkEntry, Vec<&[u8]>)]) -> Result<()> {
        let geometry = geometry(&self.spec, self.capacity.exact);
        let (unit, layers) = (geometry.unit_bytes(), self.buffers.pages.len());
        let bytes = |entry: &ChunkEntry| geometry.layer_bytes(entry.width);
        for (entry, pieces) in chunks {
            assert!(
                pieces.len() == layers && pieces.iter().all(|piece| piece.len() as u64 == bytes(entry)),
                "{entry:?}"
            );
        }
        let mut by_place: Vec<&(ChunkEntry, Vec<&[u8]>)> = chunks.iter().collect();
        by_place.sort_by_key(|(entry, _)| entry.place);
        let side_by_side =
            |a: &ChunkEntry, b: &ChunkEntry| u64::from(a.place) * unit + bytes(a) == u64::from(b.place) * unit;
        let mut parts = Vec::new();
        for run in by_place.chunk_by(|a, b| side_by_side(&a.0, &b.0)) {
            let len = run.iter().map(|(entry, _)| bytes(entry)).sum();
            for (layer, pages) in self.buffers.pages.iter().enumerate() {
                parts.clear();
                parts.extend(run.iter().map(|(_, pieces)| pieces[layer]));
                let offset = pages.offset + u64::from(run[0].0.place) * unit;
                backend.put(Slice { offset, len, ..*pages }, &parts)?;
            }
        }
        Ok(())
    }

    /// Overwrite chunks with zeros.
    pub fn clear_chunks(&self, backend: &mut Backend, entries: &[ChunkEntry]) -> Result<()> {
        backend.clear(&entries.iter().flat_map(|entry| self.extents(*entry)).collect::<Vec<_>>())
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

    /// All pages of all layers, without the centres of keys behind them.
    pub async fn read_pages(&self, backend: &mut Backend) -> Result<Vec<u8>> {
        let len = geometry(&self.spec, self.capacity.exact).unit_bytes() * self.capacity.units as u64;
        let pages: Vec<Slice> = self.buffers.pages.iter().map(|pages| Slice { len, ..*pages }).collect();
        backend.gather(&pages).await
    }
}
