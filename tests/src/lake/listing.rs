//! A reader that knows nothing of Delta: every Parquet file below `data/`, partitions from the paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::lake::{Snapshot, file};
use crate::trail::Version;

/// Reads the versions in listed files, and those in the fresh files of the log that are not in `data/` yet.
pub fn versions(table: &Path) -> Vec<Version> {
    let read = |path: &PathBuf| file::versions(path, &file::columns_of(path));
    let mut versions: Vec<Version> = files(&table.join("data")).iter().flat_map(read).collect();
    let listed: HashSet<String> = versions.iter().map(|version| version.position.clone()).collect();
    let named = Snapshot::read(table).files.into_keys().filter(|path| path.starts_with("fresh/"));
    let fresh = named.flat_map(|path| read(&table.join(path)));
    versions.extend(fresh.filter(|version| !listed.contains(&version.position)));
    versions
}

/// Lists every file below a folder. Any file that is not our Parquet file fails the test, because readers would read it
/// or fail at it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let parquet = path.extension().is_some_and(|extension| extension == "parquet");
            assert!(parquet, "a file that readers would stumble over: {}", path.display());
            found.push(path);
        }
    }
    found.sort();
    found
}
