//! One file for each command: its arguments, its help, its body.

pub mod before;
pub mod bench;
pub mod chat;
pub mod ctx;
pub mod doctor;
pub mod elastic;
pub mod elasticize;
pub mod eval;
pub mod level;
pub mod list;
pub mod policy;
pub mod pull;
pub mod run;
pub mod sampling;
pub mod slo;
pub mod store;
pub mod tune;
