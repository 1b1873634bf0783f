//! Counts what is read of a lake ([`Meter`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit_core::cost::Cost;

/// Counters that clones share.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    files: AtomicU64,
    files_skipped: AtomicU64,
    row_groups: AtomicU64,
    row_groups_skipped: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    pub fn file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    pub fn file_skipped(&self) {
        self.0.files_skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub fn bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds row groups of a file: those that are read, out of all.
    pub fn row_groups(&self, read: usize, all: usize) {
        self.0.row_groups.fetch_add(read as u64, Ordering::Relaxed);
        self.0.row_groups_skipped.fetch_add(all.saturating_sub(read) as u64, Ordering::Relaxed);
    }

    pub fn cost(&self) -> Cost {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Cost {
            files: count(&self.0.files),
            files_skipped: count(&self.0.files_skipped),
            row_groups: count(&self.0.row_groups),
            row_groups_skipped: count(&self.0.row_groups_skipped),
            bytes: count(&self.0.bytes),
            ..Cost::default()
        }
    }
}
