//! What one transaction did ([`Transaction`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use audit_core::position::{Micros, Position, Window};
use audit_core::search::{Commit, Moment, Wanted};
use audit_core::stored::Record;

use crate::store::StoreError;
use crate::timeline::Timeline;

/// Positions that are read at a time.
const WINDOW: u32 = 2_000;

/// A transaction with versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub commit: Commit,
    pub committed_at: Micros,
}

/// Which transactions are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that had this number: numbers are used again.
    Xid(u32),
    Of(Commit),
    /// The latest one.
    Last,
}

/// Finds transactions with versions in these tables, oldest first.
///
/// # Errors
/// Fails if the store cannot be read.
pub async fn find(
    store: &Timeline,
    source: &str,
    tables: Vec<String>,
    which: Which,
) -> Result<Vec<Transaction>, StoreError> {
    let mut wanted = Wanted { source: source.to_owned(), tables, ..Wanted::default() };
    match which {
        Which::Xid(xid) => wanted.xids = vec![xid],
        Which::Of(commit) => wanted.commit = Some(commit),
        Which::Last => {
            let newest = store.search(&wanted, &|_| true, 1).await?;
            return Ok(newest.iter().map(Transaction::of).collect());
        }
    }
    let found = Mutex::new(BTreeMap::new());
    let note = |record: &Record| {
        let Transaction { commit, committed_at } = Transaction::of(record);
        found.lock().unwrap_or_else(PoisonError::into_inner).insert(commit, committed_at);
        false
    };
    store.search(&wanted, &note, 1).await?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(found.into_iter().map(|(commit, committed_at)| Transaction { commit, committed_at }).collect())
}

impl Transaction {
    pub fn of(record: &Record) -> Transaction {
        Transaction { commit: Commit::of(record.position), committed_at: record.committed_at }
    }

    /// Reads the versions of the transaction, in order.
    pub fn versions<'s>(&self, store: &'s Timeline, source: &str, tables: Vec<String>) -> Versions<'s> {
        let wanted = Wanted {
            source: source.to_owned(),
            tables,
            since: Some(self.committed_at),
            until: Some(Micros(self.committed_at.0.saturating_add(1))),
            commit: Some(self.commit),
            ..Wanted::default()
        };
        Versions { store, wanted, of: *self, next: 0, last: None }
    }
}

/// The versions of a transaction. At most [`WINDOW`] of them are in memory.
pub struct Versions<'s> {
    store: &'s Timeline,
    wanted: Wanted,
    of: Transaction,
    /// The first `seq` that was not read yet.
    next: u32,
    last: Option<Position>,
}

impl Versions<'_> {
    /// The next versions in order; `None` after the last.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        if self.last.is_none() {
            let newest = self.store.search(&self.wanted, &|_| true, 1).await?;
            let Some(newest) = newest.first() else { return Ok(None) };
            self.last = Some(newest.position);
        }
        let last = self.last.map_or(0, |last| last.seq);
        let at = |seq: u32| Position::new(self.of.commit.epoch, self.of.commit.lsn, seq);
        while self.next <= last {
            let end = self.next.saturating_add(WINDOW);
            let window = Wanted {
                window: Window { from: Some(at(self.next)), to: None },
                before: Some(Moment { committed_at: self.of.committed_at, position: at(end) }),
                ..self.wanted.clone()
            };
            let mut records = self.store.search(&window, &|_| true, WINDOW as usize).await?;
            self.next = end;
            if !records.is_empty() {
                records.reverse();
                return Ok(Some(records));
            }
        }
        Ok(None)
    }
}
