//! Tables of the index and what their rows hold. Numbers are little-endian; `FORMAT.md` draws the rows.

use redb::TableDefinition;

use super::crypto::WRAPPED;
use super::extent::Cipher;
use super::space::Run;
use crate::Width;

/// Context to [`ContextRow`].
pub(super) const CONTEXTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("contexts");
/// Context and row to sealed tokens.
pub(super) const TOKENS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("tokens");
/// Chunk to [`ChunkRow`].
pub(super) const CHUNKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("chunks");
/// [`Prefix`], level and width to chunk.
pub(super) const PREFIXES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("prefixes");
/// Context and position to [`LinkRow`].
pub(super) const LINKS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("links");
/// Chunk and context that links to it.
pub(super) const REFS: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("refs");
/// Model to its centres.
pub(super) const CENTRES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("centres");
/// Key slots to overwrite before they are used again.
pub(super) const ERASE: TableDefinition<'_, u32, ()> = TableDefinition::new("erase");
/// Counters.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The counter of chunks.
pub(super) const NEXT_CHUNK: &str = "next chunk";

/// Tokens of a full row of the table of tokens.
pub(super) const ROW_TOKENS: usize = 1024;

/// Key of a chunk and all before it.
pub(super) type Prefix = [u8; 32];

/// Takes fields off the front of a row; what is cut short reads as `None`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContextRow {
    pub(super) app: [u8; 16],
    pub(super) model: [u8; 32],
    pub(super) slot: u32,
    pub(super) tokens: u32,
    pub(super) created_ms: u64,
    pub(super) used_ms: u64,
    pub(super) pinned: bool,
    pub(super) app_name: String,
}

impl ContextRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(75 + self.app_name.len());
        out.extend_from_slice(&self.app);
        out.extend_from_slice(&self.model);
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.tokens.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.used_ms.to_le_bytes());
        out.push(self.pinned.into());
        out.extend_from_slice(&(self.app_name.len() as u16).to_le_bytes());
        out.extend_from_slice(self.app_name.as_bytes());
        out
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let this = Self {
            app: fields.bytes()?,
            model: fields.bytes()?,
            slot: fields.u32()?,
            tokens: fields.u32()?,
            created_ms: fields.u64()?,
            used_ms: fields.u64()?,
            pinned: fields.bytes::<1>()?[0] != 0,
            app_name: {
                let len = fields.u16()?;
                String::from_utf8(fields.slice(len.into())?.to_vec()).ok()?
            },
        };
        fields.end()?;
        Some(this)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkRow {
    pub(super) app: [u8; 16],
    pub(super) model: [u8; 32],
    pub(super) prefix: Prefix,
    pub(super) position: u32,
    /// Tokens whose keys and values it holds, 1 to 16.
    pub(super) tokens: u8,
    pub(super) level: u16,
    pub(super) width: Width,
    pub(super) cipher: Cipher,
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Sealed bytes of each layer.
    pub(super) lens: Vec<u32>,
}

impl ChunkRow {
    pub(super) fn run(&self) -> Option<Run> {
        let len = self.lens.iter().try_fold(0_u32, |sum, len| sum.checked_add(*len))?;
        Some(Run { segment: self.segment, offset: self.offset, len })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(99 + 4 * self.lens.len());
        out.extend_from_slice(&self.app);
        out.extend_from_slice(&self.model);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.position.to_le_bytes());
        out.push(self.tokens);
        out.extend_from_slice(&self.level.to_le_bytes());
        out.push(self.width as u8);
        out.push(self.cipher as u8);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&(self.lens.len() as u16).to_le_bytes());
        for len in &self.lens {
            out.extend_from_slice(&len.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let this = Self {
            app: fields.bytes()?,
            model: fields.bytes()?,
            prefix: fields.bytes()?,
            position: fields.u32()?,
            tokens: fields.bytes::<1>()?[0],
            level: fields.u16()?,
            width: width_of(fields.bytes::<1>()?[0])?,
            cipher: Cipher::of(fields.bytes::<1>()?[0])?,
            segment: fields.u32()?,
            offset: fields.u32()?,
            lens: {
                let layers = fields.u16()?;
                (0..layers).map(|_| fields.u32()).collect::<Option<_>>()?
            },
        };
        fields.end()?;
        Some(this)
    }

    pub(super) fn prefix_key(&self) -> Vec<u8> {
        prefix_key(&self.prefix, self.level, self.width)
    }
}

pub(super) fn prefix_key(prefix: &Prefix, level: u16, width: Width) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(&level.to_le_bytes());
    key.push(width as u8);
    key
}

fn width_of(code: u8) -> Option<Width> {
    [Width::W16, Width::W8, Width::W4, Width::W2].into_iter().find(|width| *width as u8 == code)
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinkRow {
    pub(super) chunk: u64,
    pub(super) density: f32,
    /// The chunk's key under the context's.
    pub(super) wrapped: [u8; WRAPPED],
}

impl LinkRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + WRAPPED);
        out.extend_from_slice(&self.chunk.to_le_bytes());
        out.extend_from_slice(&self.density.to_le_bytes());
        out.extend_from_slice(&self.wrapped);
        out
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let mut fields = Fields(row);
        let this =
            Self { chunk: fields.u64()?, density: fields.bytes().map(f32::from_le_bytes)?, wrapped: fields.bytes()? };
        fields.end()?;
        Some(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_cut_rows_do_not() {
        let context = ContextRow {
            app: [1; 16],
            model: [2; 32],
            slot: 3,
            tokens: 4,
            created_ms: 5,
            used_ms: 6,
            pinned: true,
            app_name: "mail".into(),
        };
        let chunk = ChunkRow {
            app: [1; 16],
            model: [2; 32],
            prefix: [3; 32],
            position: 4,
            tokens: 16,
            level: 5,
            width: Width::W4,
            cipher: Cipher::Aes256Gcm,
            segment: 6,
            offset: 7,
            lens: vec![8, 9],
        };
        let link = LinkRow { chunk: 1, density: 0.5, wrapped: [9; WRAPPED] };
        assert_eq!(ContextRow::decode(&context.encode()), Some(context.clone()));
        assert_eq!(ChunkRow::decode(&chunk.encode()), Some(chunk.clone()));
        assert_eq!(LinkRow::decode(&link.encode()), Some(link.clone()));
        for i in 0..context.encode().len() {
            assert_eq!(ContextRow::decode(&context.encode()[..i]), None);
        }
        for i in 0..chunk.encode().len() {
            assert_eq!(ChunkRow::decode(&chunk.encode()[..i]), None);
        }
        assert_eq!(LinkRow::decode(&link.encode()[1..]), None);
    }
}
