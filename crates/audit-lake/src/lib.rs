//! The lake: Parquet files in Delta tables, written exactly once and read back.
//!
//! Each captured table has one Delta table, in folders by UTC commit date. Two kinds of readers see each version
//! exactly once: readers of the Delta log, because every commit holds its position as an application transaction and is
//! written by compare-and-set; and readers that list the folders `data/`, because a file that a kill left without its
//! commit is adopted and never written again ([`adopt`]).
//!
//! ```text
//! Batch ──▶ OpenTable ──rows──▶ OpenFile ──Parquet──▶ object store ──▶ Delta commit ──▶ the lake's checkpoint
//!           (session, table)    (cells, rows, encode)  (store)          (commit)         (checkpoint)
//! ```
//!
//! Small files go to `fresh/`, which only the log names, and are rolled into larger ones ([`table`], [`merge`]).
//!
//! The order of writes guarantees this: data is written before the log that names it, and the log before the checkpoint
//! that depends on it; each is durable before the next begins. Versions that are missing after a kill at any point are
//! sent again, because the checkpoint lags.

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
