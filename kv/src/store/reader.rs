//! Reading a chunk's extents, away from the store: on another thread, or with the caller's own I/O.

use std::sync::Arc;

use super::crypto::{self, Aad, Key, TAG};
use super::medium::Disk;
use super::rows::ChunkRow;
use super::space::segment_name;
use crate::Width;

/// The extent is lost, torn, stale or foreign, or the medium failed. Compute the chunk from its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the extent cannot be read")]
pub struct Missing;

/// Opens the extents of one chunk. It stays valid while the store changes: where the chunk is gone meanwhile, extents do
/// not open.
#[derive(Clone)]
pub struct ChunkReader {
    pub(super) disk: Arc<Disk>,
    pub(super) store: [u8; 16],
    pub(super) id: u64,
    pub(super) key: Key,
    pub(super) row: ChunkRow,
    pub(super) density: f32,
}

impl std::fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader").field("position", &self.row.position).finish_non_exhaustive()
    }
}

impl ChunkReader {
    /// Index of the chunk in its context.
    pub fn index(&self) -> usize {
        self.row.position as usize
    }

    /// Tokens whose keys and values it holds, 1 to 16.
    pub fn tokens(&self) -> usize {
        self.row.tokens.into()
    }

    /// Width of its elements.
    pub fn width(&self) -> Width {
        self.row.width
    }

    /// Level of the sub-model that computed it.
    pub fn level(&self) -> u16 {
        self.row.level
    }

    /// Its share of attention when it was stored.
    pub fn density(&self) -> f32 {
        self.density
    }

    /// Layers stored.
    pub fn layers(&self) -> usize {
        self.row.lens.len()
    }

    /// File that holds it.
    pub fn file(&self) -> String {
        segment_name(self.row.segment)
    }

    /// Offset and sealed bytes of a layer in that file; of nothing past the last layer.
    pub fn extent(&self, layer: usize) -> (u64, usize) {
        let lens = &self.row.lens;
        let before: u64 = lens.iter().take(layer).map(|len| u64::from(*len)).sum();
        (u64::from(self.row.offset) + before, lens.get(layer).map_or(0, |len| *len as usize))
    }

    /// Sealed bytes of all layers, which lie one after the other.
    pub fn bytes(&self) -> u64 {
        self.row.lens.iter().map(|len| u64::from(*len)).sum()
    }

    /// Read a layer into `out`, replacing what is there.
    ///
    /// # Errors
    /// [`Missing`], and then `out` holds nothing of use.
    pub fn read_layer(&self, layer: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
        let (offset, len) = self.extent(layer);
        out.clear();
        out.resize(len, 0);
        self.disk.read_at(&self.file(), offset, out).map_err(|_| Missing)?;
        self.open_layer(layer, out)
    }

    /// Open, in place, a layer that the caller read from [`extent`](Self::extent).
    ///
    /// # Errors
    /// [`Missing`], and then `sealed` holds nothing of use.
    pub fn open_layer(&self, layer: usize, sealed: &mut Vec<u8>) -> Result<(), Missing> {
        self.open_slice(layer, sealed)?;
        sealed.truncate(sealed.len() - TAG);
        Ok(())
    }

    /// Read all layers into `out`, replacing what is there, in one piece: what each layer holds, one after the other.
    ///
    /// # Errors
    /// [`Missing`], and then `out` holds nothing of use.
    pub fn read_whole(&self, out: &mut Vec<u8>) -> Result<(), Missing> {
        out.clear();
        out.resize(self.bytes() as usize, 0);
        self.disk.read_at(&self.file(), self.row.offset.into(), out).map_err(|_| Missing)?;
        let (mut from, mut to) = (0, 0);
        for layer in 0..self.layers() {
            let (_, len) = self.extent(layer);
            self.open_slice(layer, &mut out[from..from + len])?;
            out.copy_within(from..from + len - TAG, to);
            (from, to) = (from + len, to + len - TAG);
        }
        out.truncate(to);
        Ok(())
    }

    fn open_slice(&self, layer: usize, sealed: &mut [u8]) -> Result<(), Missing> {
        let Ok(layer) = u32::try_from(layer) else { return Err(Missing) };
        let aad = extent_aad(&self.store, self.id, &self.row, layer);
        if crypto::open_extent(self.row.cipher, &self.key, layer, &aad, sealed) { Ok(()) } else { Err(Missing) }
    }

    /// Whether every layer opens.
    pub fn verify(&self) -> bool {
        let mut buffer = Vec::new();
        (0..self.layers()).all(|layer| self.read_layer(layer, &mut buffer).is_ok())
    }
}

/// What an extent is sealed to. The context is named where the chunk's key is wrapped, because contexts share chunks.
pub(super) fn extent_aad(store: &[u8; 16], id: u64, row: &ChunkRow, layer: u32) -> Aad {
    Aad::new(b"extent.1")
        .bytes(store)
        .bytes(&row.app)
        .bytes(&row.model)
        .bytes(&row.prefix)
        .number(id)
        .number(row.position.into())
        .number(row.tokens.into())
        .number(row.level.into())
        .number(row.width as u64)
        .number(row.lens.len() as u64)
        .number(layer.into())
}
