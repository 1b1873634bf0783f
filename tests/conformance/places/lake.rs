//! A lake in its own folder.

use std::fs;
use std::path::Path;

use audit_lake::{LakeConfig, LakeSink};
use cdc_audit_tests::lake;
use tempfile::TempDir;

use crate::suite::{Found, Place, SINK};

/// Memory of the sink, in bytes.
const MEMORY: usize = 64 << 20;

pub struct Lake {
    folder: TempDir,
}

impl Place for Lake {
    type Sink = LakeSink;
    /// A copy of the folder.
    type Backup = TempDir;

    async fn new() -> Lake {
        Lake { folder: tempfile::tempdir().unwrap() }
    }

    fn sink(&self) -> LakeSink {
        let config = LakeConfig::at(self.folder.path().to_str().unwrap());
        LakeSink::new(SINK, &config, MEMORY).unwrap()
    }

    /// Reads the versions in the files that the tables' logs name.
    async fn found(&self) -> Vec<Found> {
        let versions = lake::by_log(self.folder.path()).into_iter();
        versions.map(|version| Found { position: version.position, event: version.event }).collect()
    }

    async fn backup(&self) -> TempDir {
        let backup = tempfile::tempdir().unwrap();
        copy(self.folder.path(), backup.path());
        backup
    }

    async fn restore(&self, backup: TempDir) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        copy(backup.path(), self.folder.path());
    }

    /// Refuses nothing, because a lake accepts every value up to two gigabytes.
    async fn refuse(&self) -> Option<String> {
        None
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
