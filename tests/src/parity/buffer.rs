//! Buffers of a case: what is in them, what the kernel must write, and how it is compared.

use std::ops::Range;

/// A NaN that stands in f32 words until a kernel writes them. It is a signalling one: arithmetic quiets it, so that a
/// kernel which computes NaN from NaN where it must not write changes bits all the same.
pub const POISON: u32 = 0x7fa0_dead;

/// Two NaNs of f16, likewise.
pub const POISON_F16: u32 = 0x7d5a_7d5a;

/// A NaN that stands where a kernel must not read: not the one of outputs, so that a copy of it shows.
pub const UNREAD: u32 = 0x7fa0_cafe;

/// Words of slack after the contents of every buffer, inside its binding.
const SLACK: usize = 8;

/// How written words are compared with the twin's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compare {
    /// Nothing is written.
    Unwritten,
    /// Equal, bit for bit.
    Bits,
    /// Two f16 a word, each at most one unit in the last place apart.
    Half,
    /// Two f16 a word, each at most `each` of the twin's size or of 1 apart, whichever is more.
    Halves {
        /// The bound.
        each: f32,
    },
    /// f32: `‖d‖ / ‖twin‖ <= norm`, and for each element `|d| <= each · (rms(twin) + |twin|)`. Where the twin's rms is less
    /// than `usual`, that stands for it.
    F32 {
        /// Bound of the normalised error.
        norm: f64,
        /// Bound of the error of an element.
        each: f64,
        /// The rms that such outputs have as a rule: a few may all be small by chance, and rounded inputs do not follow.
        usual: f64,
    },
    /// The case verifies it by itself.
    Verified,
}

impl Compare {
    /// f32 with a bound on the normalised error; a single element may be off by ten times that.
    pub const fn f32(norm: f64) -> Self {
        Self::F32 { norm, each: 10.0 * norm, usual: 0.0 }
    }
}

/// A buffer before the dispatch.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// What it holds.
    pub words: Vec<u32>,
    /// Which words the kernel must write. The others must keep their bits.
    pub written: Vec<bool>,
    /// How the written ones are compared.
    pub compare: Compare,
    /// Another binding that shows the same bytes; then the rest is empty.
    pub alias: Option<usize>,
}

impl Buffer {
    /// A buffer that is only read.
    pub fn input(mut words: Vec<u32>) -> Self {
        words.resize((words.len() + SLACK).next_multiple_of(4), UNREAD);
        for word in words.iter_mut().filter(|word| **word == POISON) {
            *word = UNREAD;
        }
        let written = vec![false; words.len()];
        Self { words, written, compare: Compare::Unwritten, alias: None }
    }

    /// Likewise, of f32.
    pub fn floats(values: &[f32]) -> Self {
        Self::input(values.iter().map(|v| v.to_bits()).collect())
    }

    /// A buffer that stands in for what the kernel does not read.
    pub fn none() -> Self {
        Self::input(vec![UNREAD; 64])
    }

    /// Another view of binding `of`, counted from the first storage buffer.
    pub fn alias(of: usize) -> Self {
        Self { words: Vec::new(), written: Vec::new(), compare: Compare::Unwritten, alias: Some(of) }
    }
}

/// A buffer that is being made: poison, until something is put there or the kernel is expected to write there.
#[derive(Debug, Clone)]
pub struct Out {
    /// What it holds.
    pub words: Vec<u32>,
    /// Which words the kernel must write.
    pub written: Vec<bool>,
}

impl Out {
    /// `len` words of poison.
    pub fn new(len: usize) -> Self {
        Self::filled(len, POISON)
    }

    /// `len` words of `poison`.
    pub fn filled(len: usize, poison: u32) -> Self {
        Self { words: vec![poison; len], written: vec![false; len] }
    }

    /// The kernel must write these.
    pub fn expect(&mut self, range: Range<usize>) {
        self.written[range].fill(true);
    }

    /// Put f32 there.
    pub fn put(&mut self, at: usize, values: &[f32]) {
        for (word, value) in self.words[at..].iter_mut().zip(values) {
            *word = value.to_bits();
        }
    }

    /// As an input; nothing may have been expected.
    ///
    /// # Panics
    /// If the kernel was expected to write to it.
    pub fn input(self) -> Buffer {
        assert!(!self.written.contains(&true), "an input is not written");
        Buffer::input(self.words)
    }

    /// As an output.
    pub fn output(mut self, compare: Compare) -> Buffer {
        let len = (self.words.len() + SLACK).next_multiple_of(4);
        self.words.resize(len, POISON);
        self.written.resize(len, false);
        Buffer { words: self.words, written: self.written, compare, alias: None }
    }
}
