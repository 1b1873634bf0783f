//! A row at a point of its history: [`Then`].

use std::collections::BTreeMap;

use audit_core::position::Position;
use audit_core::stored::Record;

use super::blame::{Blame, Through};
use super::facts::Facts;
use super::fold::{Fold, Standing, Version};
use super::moves::moves;
use crate::question::point::Point;

/// What was known of a key and its rows at a point.
pub struct Then<'f> {
    /// All versions up to the point, oldest first.
    pub versions: Vec<Version>,
    /// Everything up to here counts, and nothing after it.
    pub at: Position,
    fold: Fold<'f>,
    blames: BTreeMap<u32, Blame>,
    /// The first version after the point.
    next: Option<Record>,
}

/// Whether a row was there.
pub enum Found {
    Row(Standing),
    Absent(Absent),
}

/// Why a row was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// No version names the key.
    NeverSeen,
    /// It was created later.
    NotYet,
    /// It is first seen later, as a row that existed: whether it did at the point is not known.
    BeforeCapture,
    /// By the version at this index of [`Then::versions`].
    Deleted(usize),
    Truncated(usize),
}

/// A point that is none of the row's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchPoint {
    #[error("the row has no version {number}: its newest is {newest}")]
    Version { number: u32, newest: u32 },
    #[error("the row's versions have no numbers, because its earliest ones were not read")]
    Unnumbered,
    #[error("the row has only {count} versions")]
    Back { count: u32 },
    #[error("no version of the row was made by transaction {xid}")]
    Xid { xid: u32 },
    #[error("several transactions with number {xid} changed the row; their versions are at {positions}")]
    Xids { xid: u32, positions: String },
}

impl<'f> Then<'f> {
    /// Reads the records of a key, oldest first, up to a position; without one all of them count. `marks` are those that the
    /// facts were made with. The versions that `through` names are looked through by [`Then::blame`].
    pub fn read(
        facts: &'f Facts,
        records: Vec<Record>,
        marks: &[Record],
        until: Option<Position>,
        through: impl Fn(&Record) -> Through,
    ) -> Then<'f> {
        let after = records.partition_point(|record| until.is_none_or(|until| record.position <= until));
        let next = records.get(after).cloned();
        let mut fold = Fold::new(facts);
        let mut blames: BTreeMap<u32, Blame> = BTreeMap::new();
        let mut versions = Vec::with_capacity(after);
        for (record, moved) in moves(records.into_iter().take(after)) {
            let version = fold.push(record, moved);
            blames.entry(version.row).or_default().push(&version, through(&version.record));
            versions.push(version);
        }
        let last = versions.last().map(|version| version.record.position);
        let marked =
            marks.iter().map(|mark| mark.position).filter(|mark| until.is_none_or(|until| *mark <= until)).max();
        let at = until.or(last.max(marked)).unwrap_or_default();
        Then { versions, at, fold, blames, next }
    }

    /// The row that had the key at the point; else the row that had it last and has another one now.
    pub fn row(&self, key: &str) -> Found {
        let newest = || self.versions.iter().rev().find(|version| version.row != 0).map(|version| version.row);
        let here = self.fold.state(key, self.at);
        let standing = here.or_else(|| self.fold.state(self.fold.key_of(newest()?)?, self.at));
        match standing {
            Some(standing) => Found::Row(standing),
            None => Found::Absent(self.absent()),
        }
    }

    fn absent(&self) -> Absent {
        let last = self.versions.len().checked_sub(1);
        match (last.and_then(|last| Some((last, self.versions.get(last)?))), &self.next) {
            (Some((last, version)), _) if version.record.event == "truncated" => Absent::Truncated(last),
            (Some((last, _)), _) => Absent::Deleted(last),
            (None, Some(next)) if next.event == "created" => Absent::NotYet,
            (None, Some(_)) => Absent::BeforeCapture,
            (None, None) => Absent::NeverSeen,
        }
    }

    /// The newest version of a row up to the point.
    pub fn last_of(&self, row: u32) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.row == row)
    }

    pub fn blame(&self, row: u32) -> Option<&Blame> {
        self.blames.get(&row)
    }

    /// The key that a row has at the point.
    pub fn key_of(&self, row: u32) -> Option<&str> {
        self.fold.key_of(row)
    }
}

/// The last position that counts for a point of this row; `None` if the point is one of the whole source.
///
/// # Errors
/// Fails if the row has no such point.
pub fn place(facts: &Facts, records: &[Record], point: Point) -> Result<Option<Position>, NoSuchPoint> {
    Ok(match point {
        Point::BeforeXid(xid) => Some(of_xid(records, xid)?.previous().unwrap_or_default()),
        Point::Version(_) | Point::Back(_) => Some(numbered(facts, records, point)?),
        Point::Now | Point::Time(_) | Point::At(_) | Point::Before(_) => None,
    })
}

/// The first position of the one transaction with this number that changed the row.
fn of_xid(records: &[Record], xid: u32) -> Result<Position, NoSuchPoint> {
    let mut found: Vec<&Record> = records.iter().filter(|record| record.xid == xid).collect();
    found.dedup_by_key(|record| (record.position.epoch, record.commit_lsn));
    match found.as_slice() {
        [] => Err(NoSuchPoint::Xid { xid }),
        [one] => Ok(one.position),
        several => {
            let positions: Vec<String> = several.iter().map(|record| record.position.to_string()).collect();
            Err(NoSuchPoint::Xids { xid, positions: positions.join(", ") })
        }
    }
}

/// The position of a version of the newest row by its number.
fn numbered(facts: &Facts, records: &[Record], point: Point) -> Result<Position, NoSuchPoint> {
    let mut fold = Fold::new(facts);
    let places = moves(records.iter().cloned()).map(|(record, moved)| fold.push(record, moved));
    let places: Vec<(u32, Option<u32>, Position)> =
        places.map(|version| (version.row, version.number, version.record.position)).collect();
    let newest_row = places.iter().map(|(row, ..)| *row).max().unwrap_or_default();
    let own: Vec<(Option<u32>, Position)> = places
        .iter()
        .filter(|(row, ..)| *row == newest_row)
        .map(|(_, number, position)| (*number, *position))
        .collect();
    let newest = own.last().map(|(number, _)| *number).unwrap_or(Some(0));
    match point {
        Point::Back(count) => {
            let at = own.len().checked_sub(1 + count as usize).and_then(|at| own.get(at));
            at.map(|(_, position)| *position).ok_or(NoSuchPoint::Back { count: own.len() as u32 })
        }
        Point::Version(number) => {
            let newest = newest.ok_or(NoSuchPoint::Unnumbered)?;
            let found = own.iter().find(|(own, _)| *own == Some(number));
            found.map(|(_, position)| *position).ok_or(NoSuchPoint::Version { number, newest })
        }
        _ => Ok(Position::default()),
    }
}
