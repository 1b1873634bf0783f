//! The lake: Parquet files in Delta tables, written exactly once and read back.
//!
//! For each captured table one Delta table, in folders by UTC commit date. Two kinds of readers see each version exactly once: those that
//! read the Delta log, because every commit holds its position as an application transaction and is written by compare and set; and those that
//! list the folders `data/`, because a file that a kill left without its commit is adopted, never written again ([`adopt`]).
//!
//! ```text
//! Batch ──▶ OpenTable ──rows──▶ OpenFile ──Parquet──▶ object store ──▶ Delta commit ──▶ the lake's checkpoint
//!           (session, table)    (cells, rows, encode)  (store)          (commit)         (checkpoint)
//! ```
//!
//! Small files go to `fresh/`, which only the log names, and are rolled into larger ones ([`table`], [`merge`]).
//!
//! Order makes it hold: data before the log that names it, the log before the checkpoint that counts on it, each durable before the next
//! begins. What is missing after a kill at any point is in the stream again, since the checkpoint lags.

mod adopt;
mod cells;
mod checkpoint;
mod cloud;
mod commit;
pub mod compact;
pub mod config;
mod encode;
pub mod error;
mod fetch;
mod file;
pub mod layout;
mod merge;
mod parse;
pub mod partition;
mod parts;
pub mod place;
mod probe;
mod read;
mod rows;
mod schema;
mod session;
pub mod sink;
mod sort;
mod stats;
pub mod store;
mod table;
pub mod tenants;

pub use compact::{Compacted, Compactor};
pub use config::LakeConfig;
pub use error::LakeError;
pub use probe::probe;
pub use read::{FieldDescription, LakeReader, TableDescription};
pub use sink::LakeSink;
pub use tenants::Stores;
