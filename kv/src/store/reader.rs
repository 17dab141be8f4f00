//! Reading a chunk's extents, away from the store: on another thread, or with the caller's own I/O.

use std::sync::Arc;

use super::crypto::{Aad, Key, TAG};
use super::extent::ExtentKey;
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

    /// Where it lies on the disk: who reads several in this order reads forwards.
    pub fn place(&self) -> (u32, u32) {
        (self.row.segment, self.row.offset)
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

    /// Read all layers in one piece, sealed. `buffer` is used again; what it holds does not matter.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn read_sealed(&self, mut buffer: Vec<u8>) -> Result<Vec<u8>, Missing> {
        buffer.resize(self.bytes() as usize, 0);
        self.disk.read_at(&self.file(), self.row.offset.into(), &mut buffer).map_err(|_| Missing)?;
        Ok(buffer)
    }

    /// Open all layers, as [`read_sealed`](Self::read_sealed) read them.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn open_whole(&self, mut buffer: Vec<u8>) -> Result<Opened, Missing> {
        if buffer.len() as u64 != self.bytes() {
            return Err(Missing);
        }
        let key = self.extent_key();
        let mut aad = extent_aad(&self.store, self.id, &self.row, 0);
        let mut rest = &mut buffer[..];
        for (layer, len) in (0..).zip(&self.row.lens) {
            let (extent, behind) = rest.split_at_mut(*len as usize);
            aad.set_last(layer);
            if !key.open(layer, &aad, extent) {
                return Err(Missing);
            }
            rest = behind;
        }
        let lens = self.row.lens.iter().map(|len| *len as usize).collect();
        Ok(Opened { buffer, lens })
    }

    fn extent_key(&self) -> ExtentKey {
        ExtentKey::new(self.row.cipher, &self.key)
    }

    fn open_slice(&self, layer: usize, sealed: &mut [u8]) -> Result<(), Missing> {
        let Ok(layer) = u32::try_from(layer) else { return Err(Missing) };
        let aad = extent_aad(&self.store, self.id, &self.row, u64::from(layer));
        if self.extent_key().open(layer, &aad, sealed) { Ok(()) } else { Err(Missing) }
    }

    /// Whether every layer opens.
    pub fn verify(&self) -> bool {
        let mut buffer = Vec::new();
        (0..self.layers()).all(|layer| self.read_layer(layer, &mut buffer).is_ok())
    }
}

/// What an extent is sealed to. The context is named where the chunk's key is wrapped, because contexts share chunks.
pub(super) fn extent_aad(store: &[u8; 16], id: u64, row: &ChunkRow, layer: u64) -> Aad {
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
        .number(layer)
}

/// The layers of a chunk, opened where they were read.
#[derive(Debug)]
pub struct Opened {
    /// Layer after layer, each with its tag behind it.
    buffer: Vec<u8>,
    /// Bytes of each with its tag.
    lens: Vec<usize>,
}

impl Opened {
    /// What each layer held.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut rest = &self.buffer[..];
        self.lens.iter().map(move |len| {
            let (extent, behind) = rest.split_at(*len);
            rest = behind;
            &extent[..extent.len() - TAG]
        })
    }

    /// Bytes of all layers.
    pub fn bytes(&self) -> usize {
        self.buffer.len() - self.lens.len() * TAG
    }

    /// Memory for another chunk.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}
