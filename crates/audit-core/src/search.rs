//! What a search asks of a store: versions, newest first ([`Wanted`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::position::{Lsn, Micros, Position, Window};
use crate::stored::Record;

/// The place of a version among all versions in the order of their commit times; equal times are in order of position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub committed_at: Micros,
    pub position: Position,
}

impl Moment {
    pub fn of(record: &Record) -> Moment {
        Moment { committed_at: record.committed_at, position: record.position }
    }
}

/// A transaction of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit {
    pub epoch: u16,
    pub lsn: Lsn,
}

impl Commit {
    pub fn of(position: Position) -> Commit {
        Commit { epoch: position.epoch, lsn: position.commit_lsn }
    }

    /// The positions of its first and its last possible version.
    pub fn bounds(self) -> (Position, Position) {
        (Position::new(self.epoch, self.lsn, 0), Position::new(self.epoch, self.lsn, u32::MAX))
    }
}

/// Conditions that a store can check by itself, all of which have to hold. An empty list is no condition. What is asked
/// beyond these is checked on the records.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub source: String,
    pub tables: Vec<String>,
    /// Inclusive.
    pub since: Option<Micros>,
    /// Exclusive.
    pub until: Option<Micros>,
    /// Only versions before this one: the rest of an answer that stopped there.
    pub before: Option<Moment>,
    /// Only versions in this range of positions.
    pub window: Window,
    pub keys: Vec<String>,
    pub events: Vec<String>,
    pub actors: Vec<String>,
    pub xids: Vec<u32>,
    pub commit: Option<Commit>,
    /// Columns of which each must have changed, where it is known what changed.
    pub changed: Vec<String>,
}

impl Wanted {
    /// Whether a version of this time may be wanted.
    pub fn is_in_span(&self, at: Micros) -> bool {
        self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at < until)
            && self.before.is_none_or(|before| at <= before.committed_at)
    }

    pub fn is_before(&self, moment: Moment) -> bool {
        self.before.is_none_or(|before| moment < before)
    }
}

/// Whether a record is part of the answer. It is asked once for each record that the store's conditions leave.
pub type Matches<'m> = &'m (dyn Fn(&Record) -> bool + Send + Sync);

/// The newest records of those that it is given, at most `limit`.
pub struct Newest {
    limit: usize,
    records: BTreeMap<Reverse<Moment>, Record>,
}

impl Newest {
    pub fn new(limit: usize) -> Newest {
        Newest { limit, records: BTreeMap::new() }
    }

    /// Whether a record of this moment would be kept.
    pub fn takes(&self, moment: Moment) -> bool {
        self.records.len() < self.limit
            || self.records.last_key_value().is_some_and(|(Reverse(oldest), _)| *oldest < moment)
    }

    /// Whether no record of this time or an earlier one would be kept.
    pub fn is_done_at(&self, at: Micros) -> bool {
        self.records.len() >= self.limit
            && self.records.last_key_value().is_none_or(|(Reverse(oldest), _)| at < oldest.committed_at)
    }

    /// The commit time before which no record would be kept, once there are enough.
    pub fn oldest(&self) -> Option<Micros> {
        let oldest = self.records.last_key_value().filter(|_| self.records.len() >= self.limit);
        oldest.map(|(Reverse(oldest), _)| oldest.committed_at)
    }

    pub fn add(&mut self, record: Record) {
        self.records.insert(Reverse(Moment::of(&record)), record);
        if self.records.len() > self.limit {
            self.records.pop_last();
        }
    }

    /// The records, newest first.
    pub fn into_records(self) -> Vec<Record> {
        self.records.into_values().collect()
    }
}
