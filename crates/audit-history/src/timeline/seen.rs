//! Which snapshot rows were shown: [`Seen`].
//!
//! A baseline may have as many rows as its table, so their identities are kept as digests: in memory and, beyond that,
//! in scratch files, which have no names and disappear with the process.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

use audit_core::stored::Record;
use futures::TryStreamExt;
use sha2::{Digest as _, Sha256};

use crate::store::{Selection, Snapshot, Store, StoreError};

/// Number of digests in memory, which take about 40 MiB.
const WINDOW: usize = 1 << 20;

/// Bytes of a digest: enough that two identities never share one.
const BYTES: usize = 16;

type Digest = [u8; BYTES];

/// Identities of snapshot rows.
pub(super) struct Seen {
    memory: HashSet<Digest>,
    /// Sorted digests.
    scratch: Vec<File>,
    window: usize,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { memory: HashSet::new(), scratch: Vec::new(), window: WINDOW }
    }
}

impl Seen {
    /// Whether the record is another version than those so far: no snapshot row, or one that comes for the first time.
    pub fn is_new(&mut self, record: &Record) -> Result<bool, StoreError> {
        match identity(record) {
            Some(snapshot) => self.add(&snapshot).map_err(StoreError::Scratch),
            None => Ok(true),
        }
    }

    /// Adds the selected snapshot rows of a store.
    pub async fn collect(&mut self, store: &Store, selection: &Selection) -> Result<(), StoreError> {
        let mut found = store.snapshots(selection).await?;
        while let Some(snapshot) = found.try_next().await? {
            self.add(&snapshot).map_err(StoreError::Scratch)?;
        }
        Ok(())
    }

    /// Returns false if it was there already.
    fn add(&mut self, (baseline, key): &Snapshot) -> io::Result<bool> {
        let hash = Sha256::new().chain_update(baseline.to_be_bytes()).chain_update(key).finalize();
        let digest: Digest = std::array::from_fn(|at| hash[at]);
        for file in &self.scratch {
            if is_in(file, &digest)? {
                return Ok(false);
            }
        }
        if self.memory.len() >= self.window {
            self.spill()?;
        }
        Ok(self.memory.insert(digest))
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut sorted: Vec<Digest> = self.memory.drain().collect();
        sorted.sort_unstable();
        let mut out = BufWriter::new(tempfile::tempfile()?);
        sorted.iter().try_for_each(|digest| out.write_all(digest))?;
        self.scratch.push(out.into_inner().map_err(|error| error.into_error())?);
        Ok(())
    }
}

/// What a snapshot row is known by in every store; `None` if the record is none, or if its table has no key.
pub(super) fn identity(record: &Record) -> Option<Snapshot> {
    let snapshot = record.baseline.zip(record.key.clone());
    snapshot.filter(|_| record.event == "snapshot")
}

/// Searches a file of sorted digests.
fn is_in(file: &File, digest: &Digest) -> io::Result<bool> {
    let (mut from, mut to) = (0, file.metadata()?.len() / BYTES as u64);
    while from < to {
        let middle = from + (to - from) / 2;
        let mut found = Digest::default();
        file.read_exact_at(&mut found, middle * BYTES as u64)?;
        match found.cmp(digest) {
            std::cmp::Ordering::Less => from = middle + 1,
            std::cmp::Ordering::Equal => return Ok(true),
            std::cmp::Ordering::Greater => to = middle,
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_time_is_noticed_in_memory_and_in_files() {
        let mut seen = Seen { window: 10, ..Seen::default() };
        let mut add = |number: u32| seen.add(&(number % 3, number.to_string())).unwrap();
        assert!((0..25).all(&mut add));
        assert!(!(0..25).any(&mut add));
        assert!(add(25));
        assert_eq!(seen.scratch.len(), 2);
    }
}
