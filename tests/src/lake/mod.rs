//! Reads a lake back without the program: like an engine that knows Delta, and like one that lists folders.

mod delta;
mod file;
mod listing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use delta::Snapshot;
pub use listing::files;

use crate::trail::Version;

/// Lists the tables of a lake: folder name to path. The lake's own folder is not a table.
pub fn tables(lake: &Path) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(lake).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let named = folders.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    named.filter(|(name, _)| !name.starts_with(['_', '.'])).collect()
}

/// Reads the versions in the files that the tables' Delta logs name, in the order of their positions.
pub fn by_log(lake: &Path) -> Vec<Version> {
    sorted(tables(lake).values().flat_map(|table| delta::versions(table)))
}

/// Reads the versions in the tables' data folders, in the order of their positions.
pub fn by_listing(lake: &Path) -> Vec<Version> {
    sorted(tables(lake).values().flat_map(|table| listing::versions(table)))
}

/// Reads the LSN before which everything that committed is in the lake, according to its newest checkpoint. 0 before
/// the first checkpoint.
pub fn flushed(lake: &Path) -> u64 {
    let entries = std::fs::read_dir(lake.join("_cdc_audit/checkpoint")).into_iter().flatten().flatten();
    let newest = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json")).max();
    let text = newest.and_then(|path| std::fs::read_to_string(path).ok());
    let note: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(&text).ok());
    let flushed = note.as_ref().and_then(|note| note["checkpoint"]["flushed_lsn"].as_str());
    flushed.map_or(0, crate::trail::lsn)
}

fn sorted(versions: impl Iterator<Item = Version>) -> Vec<Version> {
    let mut versions: Vec<Version> = versions.collect();
    // The sort is stable and keeps a position that occurs twice, so that tests see it.
    versions.sort_by(|a, b| a.position.cmp(&b.position));
    versions
}
