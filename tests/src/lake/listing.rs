//! A reader that knows nothing of Delta: every Parquet file below `data/`, partitions from the paths.

use std::path::{Path, PathBuf};

use crate::lake::file;
use crate::trail::Version;

pub fn versions(table: &Path) -> Vec<Version> {
    files(&table.join("data")).iter().flat_map(|path| file::versions(path, &file::columns_of(path))).collect()
}

/// Every file below a folder. Whatever is no Parquet file of ours would be read, or trip a reader, and fails the test.
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
