//! The elastic prompt (ELMS / ElastiLM, arXiv 2409.09071): a text as words, and the best-scored of them.
//!
//! A word is a longest run of characters that are not white space. What is dropped is dropped word by word; the text that
//! remains is put together again by [`join`], which keeps lines apart.

mod shorten;
mod words;

pub use shorten::{join, shorten};
pub use words::{Word, words};

#[cfg(test)]
mod tests;
