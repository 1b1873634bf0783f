//! Which versions put back what others had changed: [`Undone`].

use std::collections::{BTreeMap, BTreeSet};

use audit_core::position::{Lsn, Position};
use audit_core::stored::Record;
use serde::Deserialize;

use super::fold::Version;

/// What a version says that it puts back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndoOf {
    pub positions: BTreeSet<Position>,
    /// All of one transaction.
    commit: Option<Lsn>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    undo_of: Vec<String>,
    undo_of_commit: Option<String>,
}

impl UndoOf {
    /// `None` for a version that is no undo.
    pub fn of(record: &Record) -> Option<UndoOf> {
        let context = record.context.as_ref()?.get();
        if !context.contains("\"undo_of\"") {
            return None;
        }
        let said: Said = serde_json::from_str(context).ok()?;
        let positions = said.undo_of.iter().filter_map(|position| position.parse().ok()).collect();
        let commit = said.undo_of_commit.and_then(|commit| commit.parse().ok());
        Some(UndoOf { positions, commit })
    }

    fn names(&self, record: &Record) -> bool {
        self.positions.contains(&record.position)
            || (self.commit == Some(record.commit_lsn) && record.event != "snapshot")
    }
}

/// The versions of a row that were undone.
#[derive(Clone, Debug, Default)]
pub struct Undone {
    by: BTreeMap<Position, Position>,
    hidden: BTreeSet<Position>,
}

impl Undone {
    /// `versions` are oldest first.
    pub fn of(versions: &[Version]) -> Undone {
        let mut undone = Undone::default();
        let mut cancelled = BTreeSet::new();
        for (at, undo) in versions.iter().enumerate().rev() {
            let Some(of) = UndoOf::of(&undo.record) else { continue };
            let named: Vec<&Version> = versions.iter().take(at).filter(|version| of.names(&version.record)).collect();
            let positions = || named.iter().map(|version| version.record.position);
            undone.by.extend(positions().map(|position| (position, undo.record.position)));
            // ⚠ An undo that was undone itself cancels nothing, and neither does one that put back only a part.
            let stands = !cancelled.contains(&undo.record.position);
            if stands && !named.is_empty() && named.iter().all(|version| covers(undo, version)) {
                cancelled.extend(positions());
                undone.hidden.extend(positions().chain([undo.record.position]));
            }
        }
        undone
    }

    /// The first version that put this one back.
    pub fn by(&self, position: Position) -> Option<Position> {
        self.by.get(&position).copied()
    }

    /// Whether nothing is left of what the version changed.
    pub fn hides(&self, position: Position) -> bool {
        self.hidden.contains(&position)
    }
}

/// Whether every column that the version changed, or may have changed, was changed by the undo.
fn covers(undo: &Version, version: &Version) -> bool {
    let written: BTreeSet<&String> = undo.changes.iter().map(|change| &change.column).collect();
    let changed = version.changes.iter().map(|change| &change.column);
    changed.chain(version.unknown.keys()).all(|column| written.contains(column))
}
