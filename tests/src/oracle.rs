//! Compares the trail with what happened: the changes that the server's `test_decoding` saw, one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::decoded::{Cell, Change, Columns, Name, Transaction, What};
use crate::hot::{Kinds, Shapes, kind};
use crate::trail::{self, Row, Version};
use crate::value::{Text, from_postgres};

/// Everything that is needed to predict which version a change must make.
pub struct Oracle<'a> {
    /// The epoch in which they are recorded.
    pub epoch: usize,
    pub transactions: &'a [Transaction],
    pub roots: &'a HashMap<Name, Name>,
    pub shapes: &'a Shapes,
    /// True if all tables have REPLICA IDENTITY FULL; `None` if some have it and some do not.
    pub full: Option<bool>,
    /// Tells whether the publication contained a table when a change was made there.
    pub published: &'a dyn Fn(&Name, u64) -> bool,
}

/// A change that pgoutput sends, with its place.
struct Sent<'a> {
    change: &'a Change,
    /// Where its transaction ends.
    end: u64,
    table: String,
    seq: i64,
}

impl Oracle<'_> {
    /// Lists the first few places where the trail of a sink differs from what these transactions make. Snapshots are
    /// ignored, and changes that a gap record of this sink covers may be missing.
    pub fn differences(&self, sink: &str, trail: &[Version]) -> Vec<String> {
        let mut found = Vec::new();
        let holes = trail::holes(trail, sink);
        let trail: Vec<&Version> = trail.iter().filter(|version| version.epoch() == self.epoch).collect();
        let streamed = |version: &&Version| !matches!(version.event.as_str(), "snapshot" | "gap");
        let made: HashSet<(i64, i64, &str)> = trail.iter().map(|v| (v.xid, v.seq, v.table.as_str())).collect();
        let mut versions = trail.iter().copied().filter(streamed).peekable();
        for sent in self.sent() {
            if found.len() >= 10 {
                break;
            }
            let covered = || holes.iter().any(|hole| hole.covers(self.epoch, sent.end));
            let here = |version: &&Version| {
                version.xid == sent.change.xid && version.seq == sent.seq && version.table == sent.table
            };
            match versions.next_if(here) {
                Some(version) => {
                    found.extend(self.wrong(&sent, version).map(|what| format!("{}: {what}", version.place())))
                }
                None if covered() || self.changes_nothing(&sent, &made) => {}
                None => {
                    let next = versions.peek().map_or("the end".to_owned(), |version| version.place());
                    found.push(format!("lost: {} of transaction {}, before {next}", describe(&sent), sent.change.xid));
                }
            }
        }
        found.extend(versions.take(5).map(|version| format!("nobody did this: {}", version.place())));
        found
    }

    /// Lists the changes that pgoutput sends, numbered as it sends them.
    fn sent(&self) -> Vec<Sent<'_>> {
        let mut all = Vec::new();
        for transaction in self.transactions {
            let mut seq = 0;
            let mut truncated: (u64, BTreeSet<String>) = (0, BTreeSet::new());
            for change in &transaction.changes {
                let table = self.roots.get(&change.table).unwrap_or(&change.table);
                if table.schema == "cdc_audit" || !(self.published)(table, change.lsn) {
                    continue;
                }
                let table = table.to_string();
                // `test_decoding` names the partitions of a truncated table too, but pgoutput does not send them.
                if matches!(change.what, What::Truncate) {
                    if truncated.0 != change.lsn {
                        truncated = (change.lsn, BTreeSet::new());
                    }
                    if !truncated.1.insert(table.clone()) {
                        continue;
                    }
                }
                all.push(Sent { change, end: transaction.end, table, seq });
                seq += 1;
            }
        }
        all
    }

    /// Tells whether an update is known to change nothing, so that it makes no version.
    fn changes_nothing(&self, sent: &Sent, made: &HashSet<(i64, i64, &str)>) -> bool {
        let What::Update { old: Some(old), new } = &sent.change.what else { return false };
        if self.full == Some(false) || made.contains(&(sent.change.xid, sent.seq, sent.table.as_str())) {
            return false;
        }
        new.iter().all(|(column, value)| match (old.get(column), value) {
            (_, Cell::Unchanged) => true,
            (Some(old), new) => old == new,
            (None, new) => *new == Cell::Is(None),
        })
    }

    fn wrong(&self, sent: &Sent, version: &Version) -> Option<String> {
        let none = Kinds::new();
        let kinds = self.shapes.get(&(version.table.clone(), version.schema_version)).unwrap_or(&none);
        if version.lsn != sent.change.lsn {
            return Some(format!("lsn {:X}, not {:X}", version.lsn, sent.change.lsn));
        }
        if let (Some(full), "updated" | "deleted") = (self.full, version.event.as_str())
            && version.before_known != full
        {
            return Some(format!("before_known is {}", version.before_known));
        }
        match (&sent.change.what, version.event.as_str()) {
            (What::Insert { new }, "created") => {
                row_differs("after", version.after.as_ref(), &known(new, kinds), false)
            }
            (What::Delete { old: Some(old) }, "deleted") => {
                // In a row that is known whole, a missing value is NULL.
                row_differs("before", version.before.as_ref(), &known(old, kinds), version.before_known)
            }
            (What::Update { old, new }, "updated") => update_differs(old.as_ref(), new, version, kinds),
            (What::Truncate, "truncated") => None,
            (_, event) => Some(format!("{event}, not {}", describe(sent))),
        }
    }
}

fn describe(sent: &Sent) -> String {
    let what = match sent.change.what {
        What::Insert { .. } => "INSERT",
        What::Update { .. } => "UPDATE",
        What::Delete { .. } => "DELETE",
        What::Truncate => "TRUNCATE",
    };
    format!("{what} {} (number {}, {:X})", sent.table, sent.seq, sent.change.lsn)
}

/// Returns the known values of the published columns.
fn known(columns: &Columns, kinds: &Kinds) -> Row {
    let told = columns.iter().filter(|(column, _)| kinds.contains_key(*column));
    let value = |(column, cell): (&String, &Cell)| match cell {
        Cell::Is(text) => Some((column.clone(), canonical(text, kinds, column))),
        Cell::Unchanged => None,
    };
    told.filter_map(value).collect()
}

fn canonical(text: &Text, kinds: &Kinds, column: &str) -> Text {
    text.as_ref().map(|text| from_postgres(text, kind(kinds, column)))
}

/// Compares two rows. With `nulls`, columns of `row` that `told` lacks must be NULL; otherwise both must have the same
/// columns.
fn row_differs(side: &str, row: Option<&Row>, told: &Row, nulls: bool) -> Option<String> {
    let Some(row) = row else { return Some(format!("no row {side}")) };
    let columns: BTreeSet<&String> = row.keys().chain(told.keys()).collect();
    let differs = |column: &&String| match (row.get(*column), told.get(*column)) {
        (Some(None), None) => !nulls,
        (one, other) => one != other,
    };
    let column = columns.into_iter().find(differs)?;
    Some(format!("{side}.{column} is {:?}, not {:?}", row.get(column), told.get(column)))
}

fn update_differs(old: Option<&Columns>, new: &Columns, version: &Version, kinds: &Kinds) -> Option<String> {
    let mut after = known(new, kinds);
    let unchanged = new.iter().filter(|(column, cell)| **cell == Cell::Unchanged && kinds.contains_key(*column));
    if !version.before_known {
        let unknown: BTreeSet<&String> = unchanged.map(|(column, _)| column).collect();
        if unknown != version.unknown.iter().collect() {
            return Some(format!("unknown is {:?}, not {unknown:?}", version.unknown));
        }
        return row_differs("after", version.after.as_ref(), &after, false);
    }
    let before = old.map(|old| known(old, kinds)).unwrap_or_default();
    for (column, _) in unchanged {
        after.insert(column.clone(), before.get(column).cloned().flatten());
    }
    if let Some(row) = &version.after
        && let Some(what) = row_differs("after", Some(row), &after, false)
    {
        return Some(what);
    }
    if let Some(row) = &version.before
        && let Some(what) = row_differs("before", Some(row), &before, true)
    {
        return Some(what);
    }
    let mut changes: BTreeMap<String, (Text, Text)> = BTreeMap::new();
    for (column, cell) in new.iter().filter(|(column, _)| kinds.contains_key(*column)) {
        // Values are compared as the server wrote them: -0 is not 0.
        let null = Cell::Is(None);
        let was = old.and_then(|old| old.get(column)).unwrap_or(&null);
        if *cell != Cell::Unchanged && cell != was {
            changes.insert(column.clone(), (before.get(column).cloned().flatten(), after[column].clone()));
        }
    }
    let told = version.changes.clone().unwrap_or_default();
    (told != changes).then(|| format!("changes {told:?}, not {changes:?}"))
}
