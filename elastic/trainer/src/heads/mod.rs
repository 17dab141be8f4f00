//! The heads of the prompt's encoder: labels, training, measurements (ElastiLM, arXiv 2409.09071).
//!
//! The paper labels words by a large model's summaries of meetings. There are none here: a word's label is what leaving it
//! out does to the model's own likelihood of the right answer.

pub mod bench;
pub mod decision;
pub mod decisions;
pub mod encode;
pub mod encoded;
pub mod grid;
pub mod labels;
pub mod make;
pub mod prompts;
pub mod reader;
pub mod report;
pub mod score;
pub mod table;
