//! The key-value pairs of a GGUF file, with getters that name the key in their errors.

use super::cursor::Cursor;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Least bytes of a pair: length of the key, type, a one-byte value.
pub(super) const MIN_PAIR_BYTES: u64 = 8 + 4 + 1;
/// Longest key: GGUF's own limit.
const MAX_KEY_BYTES: u64 = 65_535;
/// Longest string value; the longest real ones are chat templates of tens of kilobytes.
const MAX_STRING_BYTES: u64 = 64 << 20;
/// Arrays inside arrays, deepest.
const MAX_DEPTH: u32 = 4;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // GGUF's value types
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array value, all of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // GGUF's value types
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Str(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The key-value pairs. Getters come in two forms: `u32(key)` where the key must be there, and `opt_u32(key)` where its
/// absence is `None`. A value of the wrong type is an error in both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    pairs: BTreeMap<String, Value>,
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $opt:ident -> $ty:ty, $what:literal, $from:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Malformed`] naming the key when it is missing or of another type.
        pub fn $name(&self, key: &str) -> Result<$ty> {
            self.$opt(key)?.ok_or_else(|| missing(key, $what))
        }

        $(#[$doc])*
        ///
        /// `None` when the key is absent.
        ///
        /// # Errors
        /// [`Error::Malformed`] naming the key when it is of another type.
        pub fn $opt(&self, key: &str) -> Result<Option<$ty>> {
            let Some(value) = self.pairs.get(key) else { return Ok(None) };
            let from: fn(&Value) -> Option<$ty> = $from;
            from(value).map(Some).ok_or_else(|| mistyped(key, $what, value))
        }
    )*};
}

impl Metadata {
    /// The value of `key` as stored.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.get(key)
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// All pairs, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Set a pair: for tests that need metadata without a file.
    pub fn insert(&mut self, key: impl Into<String>, value: Value) {
        self.pairs.insert(key.into(), value);
    }

    getters! {
        /// An integer of any width that fits 32 bits unsigned.
        u32, opt_u32 -> u32, "a 32-bit unsigned integer", |v| v.integer().and_then(|i| u32::try_from(i).ok());
        /// A floating-point number of either width.
        f32, opt_f32 -> f32, "a floating-point number", |v| match v {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            _ => None,
        };
        /// A truth value.
        bool, opt_bool -> bool, "a bool", |v| match v {
            Value::Bool(x) => Some(*x),
            _ => None,
        };
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is missing or of another type.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| missing(key, "a string"))
    }

    /// The text of `key`, `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is of another type.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        match self.pairs.get(key) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
            Some(other) => Err(mistyped(key, "a string", other)),
        }
    }

    /// The strings of `key`, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is missing or of another type.
    pub fn strings(&self, key: &str) -> Result<&[String]> {
        self.opt_strings(key)?.ok_or_else(|| missing(key, "an array of strings"))
    }

    /// The strings of `key`, `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is of another type.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>> {
        match self.pairs.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Str(texts))) => Ok(Some(texts)),
            Some(other) => Err(mistyped(key, "an array of strings", other)),
        }
    }

    /// The f32 numbers of `key`, in order.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is missing or of another type.
    pub fn f32s(&self, key: &str) -> Result<&[f32]> {
        self.opt_f32s(key)?.ok_or_else(|| missing(key, "an array of f32"))
    }

    /// The f32 numbers of `key`, `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is of another type.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.pairs.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(numbers))) => Ok(Some(numbers)),
            Some(other) => Err(mistyped(key, "an array of f32", other)),
        }
    }

    /// The integers of `key`, in order; unsigned arrays are converted where every number fits.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is missing or of another type.
    pub fn i32s(&self, key: &str) -> Result<Cow<'_, [i32]>> {
        self.opt_i32s(key)?.ok_or_else(|| missing(key, "an array of i32"))
    }

    /// The integers of `key`, `None` when the key is absent.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the key when it is of another type.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>> {
        let Some(value) = self.pairs.get(key) else {
            return Ok(None);
        };
        let converted = match value {
            Value::Array(Array::I32(numbers)) => return Ok(Some(Cow::Borrowed(numbers))),
            Value::Array(Array::U32(numbers)) => numbers.iter().map(|&n| i32::try_from(n).ok()).collect(),
            _ => None,
        };
        let numbers: Vec<i32> = converted.ok_or_else(|| mistyped(key, "an array of i32", value))?;
        Ok(Some(Cow::Owned(numbers)))
    }

    pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata> {
        let mut pairs = BTreeMap::new();
        for i in 0..count {
            let key = cursor.string(&format!("metadata key {i}"), MAX_KEY_BYTES)?;
            let field = format!("metadata '{key}'");
            if pairs.contains_key(&key) {
                return Err(Error::malformed(field, "the key is there twice"));
            }
            let kind = cursor.u32(&field)?;
            pairs.insert(key, Value::read(cursor, &field, kind)?);
        }
        Ok(Metadata { pairs })
    }
}

impl Value {
    /// The value as a wide integer, when it is one.
    pub fn integer(&self) -> Option<i128> {
        Some(match self {
            Value::U8(x) => i128::from(*x),
            Value::I8(x) => i128::from(*x),
            Value::U16(x) => i128::from(*x),
            Value::I16(x) => i128::from(*x),
            Value::U32(x) => i128::from(*x),
            Value::I32(x) => i128::from(*x),
            Value::U64(x) => i128::from(*x),
            Value::I64(x) => i128::from(*x),
            _ => return None,
        })
    }

    fn describe(&self) -> String {
        match self {
            Value::Str(_) => "a string".into(),
            Value::Bool(x) => format!("bool {x}"),
            Value::F32(x) => format!("f32 {x}"),
            Value::F64(x) => format!("f64 {x}"),
            Value::Array(array) => format!("an array of {}", array.kind()),
            other => format!("integer {}", other.integer().unwrap_or_default()),
        }
    }

    fn read(cursor: &mut Cursor<'_>, field: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(cursor.u8(field)?),
            1 => Value::I8(cursor.u8(field)? as i8),
            2 => Value::U16(cursor.u16(field)?),
            3 => Value::I16(cursor.u16(field)? as i16),
            4 => Value::U32(cursor.u32(field)?),
            5 => Value::I32(cursor.u32(field)? as i32),
            6 => Value::F32(f32::from_bits(cursor.u32(field)?)),
            7 => Value::Bool(cursor.bool(field)?),
            8 => Value::Str(cursor.string(field, MAX_STRING_BYTES)?),
            9 => Value::Array(Array::read(cursor, field, MAX_DEPTH)?),
            10 => Value::U64(cursor.u64(field)?),
            11 => Value::I64(cursor.u64(field)? as i64),
            12 => Value::F64(f64::from_bits(cursor.u64(field)?)),
            _ => return Err(unknown_kind(field, kind)),
        })
    }
}

impl Array {
    fn kind(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::Str(_) => "strings",
            Array::Array(_) => "arrays",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
        }
    }

    fn read(cursor: &mut Cursor<'_>, field: &str, depth_left: u32) -> Result<Array> {
        if depth_left == 0 {
            return Err(Error::malformed(field, format!("arrays nested deeper than {MAX_DEPTH}")));
        }
        let kind = cursor.u32(field)?;
        let count = cursor.u64(field)?;
        Ok(match kind {
            0 => Array::U8(items(cursor, field, count, 1, |c| c.u8(field))?),
            1 => Array::I8(items(cursor, field, count, 1, |c| Ok(c.u8(field)? as i8))?),
            2 => Array::U16(items(cursor, field, count, 2, |c| c.u16(field))?),
            3 => Array::I16(items(cursor, field, count, 2, |c| Ok(c.u16(field)? as i16))?),
            4 => Array::U32(items(cursor, field, count, 4, |c| c.u32(field))?),
            5 => Array::I32(items(cursor, field, count, 4, |c| Ok(c.u32(field)? as i32))?),
            6 => Array::F32(items(cursor, field, count, 4, |c| Ok(f32::from_bits(c.u32(field)?)))?),
            7 => Array::Bool(items(cursor, field, count, 1, |c| c.bool(field))?),
            8 => Array::Str(items(cursor, field, count, 8, |c| c.string(field, MAX_STRING_BYTES))?),
            9 => Array::Array(items(cursor, field, count, 12, |c| Array::read(c, field, depth_left - 1))?),
            10 => Array::U64(items(cursor, field, count, 8, |c| c.u64(field))?),
            11 => Array::I64(items(cursor, field, count, 8, |c| Ok(c.u64(field)? as i64))?),
            12 => Array::F64(items(cursor, field, count, 8, |c| Ok(f64::from_bits(c.u64(field)?)))?),
            _ => return Err(unknown_kind(field, kind)),
        })
    }
}

/// `count` items of at least `min_bytes` each; room is made for them only after the rest of the file could hold them.
fn items<T>(
    cursor: &mut Cursor<'_>,
    field: &str,
    count: u64,
    min_bytes: u64,
    mut read: impl FnMut(&mut Cursor<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    cursor.expect_items(field, count, min_bytes)?;
    let room = usize::try_from(count).map_err(|_| Error::malformed(field, "longer than the address space"))?;
    let mut out = Vec::with_capacity(room);
    for _ in 0..count {
        out.push(read(cursor)?);
    }
    Ok(out)
}

fn unknown_kind(field: &str, kind: u32) -> Error {
    Error::malformed(field, format!("unknown value type {kind}; GGUF defines 0 to 12"))
}

fn missing(key: &str, what: &str) -> Error {
    Error::malformed(format!("metadata '{key}'"), format!("missing; expected {what}"))
}

fn mistyped(key: &str, what: &str, found: &Value) -> Error {
    Error::malformed(format!("metadata '{key}'"), format!("found {}, expected {what}", found.describe()))
}
