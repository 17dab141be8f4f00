//! Writing GGUF, right or wrong: nothing is checked.

use crate::DType;
use crate::gguf::{Array, Value};

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
        scalar(&mut self.pairs, &value);
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
        (0..64).find(|&code| DType::from_ggml(code) == Some(dtype)).expect("every type has a code")
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

macro_rules! numbers {
    ($out:expr, $code:expr, $items:expr) => {{
        $out.extend(u32::to_le_bytes($code));
        $out.extend(($items.len() as u64).to_le_bytes());
        $items.iter().for_each(|x| $out.extend(x.to_le_bytes()));
    }};
}

/// Type and value.
fn scalar(out: &mut Vec<u8>, value: &Value) {
    let mut put = |code: u32, bytes: &[u8]| {
        out.extend(code.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(x) => put(0, &x.to_le_bytes()),
        Value::I8(x) => put(1, &x.to_le_bytes()),
        Value::U16(x) => put(2, &x.to_le_bytes()),
        Value::I16(x) => put(3, &x.to_le_bytes()),
        Value::U32(x) => put(4, &x.to_le_bytes()),
        Value::I32(x) => put(5, &x.to_le_bytes()),
        Value::F32(x) => put(6, &x.to_le_bytes()),
        Value::Bool(x) => put(7, &[u8::from(*x)]),
        Value::Str(text) => {
            put(8, &[]);
            string(out, text);
        }
        Value::Array(items) => {
            put(9, &[]);
            array(out, items);
        }
        Value::U64(x) => put(10, &x.to_le_bytes()),
        Value::I64(x) => put(11, &x.to_le_bytes()),
        Value::F64(x) => put(12, &x.to_le_bytes()),
    }
}

/// Type, count and items.
fn array(out: &mut Vec<u8>, items: &Array) {
    match items {
        Array::U8(v) => numbers!(out, 0, v),
        Array::I8(v) => numbers!(out, 1, v),
        Array::U16(v) => numbers!(out, 2, v),
        Array::I16(v) => numbers!(out, 3, v),
        Array::U32(v) => numbers!(out, 4, v),
        Array::I32(v) => numbers!(out, 5, v),
        Array::F32(v) => numbers!(out, 6, v),
        Array::Bool(v) => numbers!(out, 7, v.iter().map(|&b| u8::from(b)).collect::<Vec<u8>>()),
        Array::Str(v) => {
            numbers!(out, 8, [0u8; 0]);
            rewrite_count(out, v.len());
            v.iter().for_each(|text| string(out, text));
        }
        Array::Array(v) => {
            numbers!(out, 9, [0u8; 0]);
            rewrite_count(out, v.len());
            v.iter().for_each(|inner| array(out, inner));
        }
        Array::U64(v) => numbers!(out, 10, v),
        Array::I64(v) => numbers!(out, 11, v),
        Array::F64(v) => numbers!(out, 12, v),
    }
}

/// Replace the count that was just written.
fn rewrite_count(out: &mut [u8], count: usize) {
    let at = out.len() - 8;
    out[at..].copy_from_slice(&(count as u64).to_le_bytes());
}
