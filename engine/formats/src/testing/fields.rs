//! Where the fields of a GGUF header lie, so that tests can change one at a time. A second, independent reader: it believes
//! everything and panics on a file that is not right.

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names of the format
pub enum FieldKind {
    Magic,
    Version,
    TensorCount,
    PairCount,
    StringLength,
    Text,
    ValueType,
    ArrayCount,
    Value,
    Dims,
    Dim,
    TensorType,
    Offset,
}

/// A field of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub len: usize,
    /// Key or tensor it belongs to; empty in the file's own header.
    pub owner: String,
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    owner: String,
    fields: Vec<Field>,
}

/// The fields of a valid file in order, and the end of the last. Of long arrays the first and last three items are given.
pub fn header_fields(bytes: &[u8]) -> (Vec<Field>, usize) {
    let mut walk = Walk { bytes, at: 0, owner: String::new(), fields: Vec::new() };
    walk.number(FieldKind::Magic, 4);
    walk.number(FieldKind::Version, 4);
    let tensors = walk.number(FieldKind::TensorCount, 8);
    let pairs = walk.number(FieldKind::PairCount, 8);
    for _ in 0..pairs {
        walk.owner = walk.peek_text();
        walk.text();
        let kind = walk.number(FieldKind::ValueType, 4);
        walk.value(kind);
    }
    for _ in 0..tensors {
        walk.owner = walk.peek_text();
        walk.text();
        for _ in 0..walk.number(FieldKind::Dims, 4) {
            walk.number(FieldKind::Dim, 8);
        }
        walk.number(FieldKind::TensorType, 4);
        walk.number(FieldKind::Offset, 8);
    }
    (walk.fields, walk.at)
}

impl Walk<'_> {
    fn push(&mut self, kind: FieldKind, len: usize) {
        self.fields.push(Field { kind, at: self.at, len, owner: self.owner.clone() });
        self.at += len;
    }

    fn peek(&self, at: usize, len: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&self.bytes[at..at + len]);
        u64::from_le_bytes(wide)
    }

    fn number(&mut self, kind: FieldKind, len: usize) -> u64 {
        let value = self.peek(self.at, len);
        self.push(kind, len);
        value
    }

    fn peek_text(&self) -> String {
        let len = self.peek(self.at, 8) as usize;
        let text = &self.bytes[self.at + 8..self.at + 8 + len];
        String::from_utf8(text.to_vec()).expect("UTF-8")
    }

    fn text(&mut self) {
        let len = self.number(FieldKind::StringLength, 8) as usize;
        self.push(FieldKind::Text, len);
    }

    fn value(&mut self, kind: u64) {
        match kind {
            0 | 1 | 7 => self.push(FieldKind::Value, 1),
            2 | 3 => self.push(FieldKind::Value, 2),
            4..=6 => self.push(FieldKind::Value, 4),
            8 => self.text(),
            9 => self.array(),
            10..=12 => self.push(FieldKind::Value, 8),
            _ => panic!("value type {kind}"),
        }
    }

    fn array(&mut self) {
        let kind = self.number(FieldKind::ValueType, 4);
        let count = self.number(FieldKind::ArrayCount, 8);
        for i in 0..count {
            let before = self.fields.len();
            self.value(kind);
            if i >= 3 && i + 3 < count {
                self.fields.truncate(before);
            }
        }
    }
}
