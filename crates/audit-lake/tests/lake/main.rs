//! The lake on a real disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

/// Columns: names, types, evolution, and what is kept exactly.
mod columns;
/// Files that are made into fewer.
mod compact;
/// The extreme values of each type.
mod extremes;
/// Fresh files, partitions and compression.
mod fresh;
/// Who owns a lake, and changes that were made by hand.
mod owner;
/// Lakes that were put back to an earlier state.
mod put_back;
/// History and export.
mod read;
/// What other engines read for one key and one day.
mod skipping;
/// The durable local store.
mod store;
/// Stores for tenants.
mod tenants;
/// Files that are read at a time.
mod together;
/// What is written, and when.
mod write;
