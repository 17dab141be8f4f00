//! Writing GGUF, right or wrong: nothing is checked.

use crate::DType;
use crate::gguf::{Value, pair_value, string};

/// Collects pairs and tensors, then gives the bytes of the file.
#[derive(Debug, Clone)]
pub struct GgufWriter {
    version: u32,
    alignment: usize,
    pairs: Vec<u8>,
    n_pairs: u64,
    table: Vec<u8>,
    n_tensors: u64,
    data: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        GgufWriter::new(3, 32)
    }
}

impl GgufWriter {
    /// A file of that version with its data aligned so. An alignment other than 32 needs the pair `general.alignment` too.
    pub fn new(version: u32, alignment: usize) -> Self {
        let (pairs, table, data) = Default::default();
        GgufWriter { version, alignment, pairs, n_pairs: 0, table, n_tensors: 0, data }
    }

    /// Add a pair.
    pub fn pair(&mut self, key: &str, value: Value) -> &mut Self {
        string(&mut self.pairs, key);
        pair_value(&mut self.pairs, &value);
        self.n_pairs += 1;
        self
    }

    /// Add a tensor, `dims` innermost first, `code` a `ggml_type`.
    pub fn tensor(&mut self, name: &str, dims: &[u64], code: u32, data: &[u8]) -> &mut Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        string(&mut self.table, name);
        self.table.extend((dims.len() as u32).to_le_bytes());
        for dim in dims {
            self.table.extend(dim.to_le_bytes());
        }
        self.table.extend(code.to_le_bytes());
        self.table.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(data);
        self.n_tensors += 1;
        self
    }

    /// The file.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.to_le_bytes());
        out.extend(self.n_pairs.to_le_bytes());
        out.extend(&self.pairs);
        out.extend(&self.table);
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }

    /// The `ggml_type` of a type.
    pub fn code(dtype: DType) -> u32 {
        dtype.ggml()
    }
}
