//! From a change to a version: what changed, what is known, and whether it makes a version at all.
//!
//! All comparisons use raw values, so that a change of a protected column is seen even if both sides will look the
//! same.

use crate::change::{Change, Old, Row, Value};
pub use crate::events::Event;
use crate::expand::{self, Documents};
use crate::position::{Lsn, Position};
use crate::table::Table;

/// The place of a version in its transaction.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub position: Position,
    /// Start of the change's own WAL record.
    pub lsn: Lsn,
}

/// How much of a row the server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Only a part was sent: a NULL may stand for "not sent".
    Part,
}

/// The raw row before the change.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    row: Row<'a>,
    extent: Extent,
}

impl<'a> Before<'a> {
    fn of(old: Old<'a>) -> Option<Before<'a>> {
        match old {
            Old::None => None,
            Old::Key(row) => Some(Before { row, extent: Extent::Part }),
            Old::Full(row) => Some(Before { row, extent: Extent::Whole }),
        }
    }

    /// The value of the relation's column `source`. ⚠ A column of a replica identity's index is never NULL. So NULL in
    /// a row that is not whole stands for a value that was not sent, in every column.
    pub fn get(&self, source: usize) -> Value<&'a [u8]> {
        match (self.extent, self.row.get(source)) {
            (Extent::Part, Value::Null) => Value::Unknown,
            (_, value) => value,
        }
    }
}

/// A version whose values are raw. Only [`crate::protect::Policy::seal`] turns it into something that a sink can take.
#[derive(Clone, Copy, Debug)]
pub struct RawVersion<'a> {
    pub event: Event,
    pub(crate) before: Option<Before<'a>>,
    pub(crate) after: Option<Row<'a>>,
    /// Whether the whole row before is known.
    pub(crate) before_known: bool,
    /// One flag for each of the table's kept columns. It is set only for an update whose `before_known` is true.
    pub(crate) changed: Option<&'a [bool]>,
    /// Whether the key before differs from the key after.
    pub(crate) key_changed: bool,
}

impl<'a> RawVersion<'a> {
    /// The new value of the relation's column `source`. An unchanged TOAST value is not sent again: under REPLICA
    /// IDENTITY FULL the old row has it, otherwise it is unknown.
    pub(crate) fn after(&self, source: usize) -> Value<&'a [u8]> {
        match (self.after.map_or(Value::Unknown, |row| row.get(source)), self.before) {
            (Value::Unknown, Some(before)) => before.get(source),
            (value, _) => value,
        }
    }

    pub(crate) fn before(&self, source: usize) -> Value<&'a [u8]> {
        self.before.map_or(Value::Unknown, |before| before.get(source))
    }

    /// Whether the ciphertexts of the two sides differ in more than their values: in the data subject, or in what they
    /// are bound to.
    pub(crate) fn reseals(&self, table: &Table) -> bool {
        let bound = table.bound.iter().map(|column| table.columns[*column].source);
        table.subject.into_iter().chain(bound).any(|source| self.before(source) != self.after(source))
    }
}

/// Turns a change into a version; `None` if it makes none. `changed` is scratch space that is reused for each change.
pub fn version<'a>(table: &Table, change: Change<'a>, changed: &'a mut Vec<bool>) -> Option<RawVersion<'a>> {
    any_version(table, change, changed).filter(|version| table.events.contains(version.event))
}

fn any_version<'a>(table: &Table, change: Change<'a>, changed: &'a mut Vec<bool>) -> Option<RawVersion<'a>> {
    let plain = RawVersion {
        event: Event::Truncated,
        before: None,
        after: None,
        before_known: true,
        changed: None,
        key_changed: false,
    };
    Some(match change {
        Change::Insert { new } => RawVersion { event: Event::Created, after: Some(new), ..plain },
        Change::Snapshot { row } => RawVersion { event: Event::Snapshot, after: Some(row), ..plain },
        Change::Truncate => plain,
        Change::Delete { old } => {
            let before = Before::of(old);
            let before_known = before.is_some_and(|b| b.extent == Extent::Whole);
            RawVersion { event: Event::Deleted, before, before_known, ..plain }
        }
        Change::Update { old, new } => return update(table, old, new, changed),
    })
}

/// A document's text, if there is one.
pub(crate) fn document(value: Value<&[u8]>) -> Option<&str> {
    value.text().and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn update<'a>(table: &Table, old: Old<'a>, new: Row<'a>, changed: &'a mut Vec<bool>) -> Option<RawVersion<'a>> {
    let before = Before::of(old);
    let differs = |source: usize| {
        let before = before.map_or(Value::Unknown, |b| b.get(source));
        match (before, new.get(source)) {
            (Value::Unknown, _) | (_, Value::Unknown) => false,
            (before, after) => before != after,
        }
    };
    let key_changed = table.key.iter().any(|column| differs(column.source));
    let event = soft_deleted(table, before, new);
    let version = RawVersion { event, before, after: Some(new), before_known: false, changed: None, key_changed };
    if !before.is_some_and(|b| b.extent == Extent::Whole) {
        return Some(version);
    }
    changed.clear();
    let before_of = |source| before.map_or(Value::Unknown, |before| before.get(source));
    changed.extend(table.columns.iter().map(|column| {
        let differs = column.tracked && differs(column.source);
        differs
            && column.expansion.as_ref().is_none_or(|expansion| {
                let documents =
                    Documents { old: document(before_of(column.source)), new: document(new.get(column.source)) };
                expand::differs(expansion, documents)
            })
    }));
    let counts = table.columns.iter().zip(changed.iter()).any(|(column, changed)| *changed && column.makes_version);
    (counts || key_changed).then_some(RawVersion { before_known: true, changed: Some(changed), ..version })
}

/// Whether the update marks the row as deleted, or removes that mark. This is decided only if the mark before is known.
fn soft_deleted(table: &Table, before: Option<Before<'_>>, new: Row<'_>) -> Event {
    let marked = |value: Value<&[u8]>| match value {
        Value::Unknown => None,
        Value::Null => Some(false),
        // For a boolean only true is a mark; for any other type every value but NULL is.
        Value::Text(text) => Some(text != b"f"),
    };
    let marks = table.soft_delete.iter().filter_map(|source| {
        let before = before.map_or(Value::Unknown, |before| before.get(*source));
        Some((marked(before)?, marked(new.get(*source))?))
    });
    let (before, after) = marks.fold((false, false), |any, marks| (any.0 || marks.0, any.1 || marks.1));
    match (before, after) {
        (false, true) => Event::Discarded,
        (true, false) => Event::Restored,
        _ => Event::Updated,
    }
}
