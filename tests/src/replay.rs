//! Plays a trail back: the tables as they must have been after any of its versions.

use std::collections::{BTreeMap, BTreeSet};

use crate::hot::{Kinds, Shapes, kind};
use crate::tables::Table;
use crate::trail::{Row, Version};
use crate::value::from_postgres;

/// The state of tables as far as a trail shows it.
#[derive(Clone, Debug, Default)]
pub struct State {
    tables: BTreeMap<String, Contents>,
    /// Contradictions in the trail, one in each entry.
    pub flaws: Vec<String>,
    /// True if rows existed before capture, which may change before the trail shows them.
    earlier: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    keyed: BTreeMap<String, Known>,
    /// Rows of a table without a key.
    loose: Vec<Row>,
    /// How often the stream and a later baseline showed each of those rows, because a baseline may show a row again.
    told: BTreeMap<Row, Told>,
    /// Rows as they were shown before a gap. A baseline after it leaves out rows that the trail has from the history
    /// that both share.
    before: BTreeMap<Option<String>, Vec<Row>>,
    /// Keys of rows that were seen to be deleted. A snapshot must not bring one back.
    gone: BTreeSet<String>,
    truncated: bool,
    schema_version: i32,
    /// Columns that were renamed: new name and old name.
    renamed: Vec<(String, String)>,
}

/// How often a row's values were shown.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    streamed: usize,
    /// Number of snapshots that came after one from the stream.
    again: usize,
}

/// A row, or the part of it that was shown.
#[derive(Clone, Debug)]
struct Known {
    row: Row,
    whole: bool,
}

impl State {
    /// Returns an empty state for a source in which rows existed before capture began.
    pub fn with_earlier_rows() -> State {
        State { earlier: true, ..State::default() }
    }

    pub fn apply(&mut self, version: &Version) {
        if matches!(version.event.as_str(), "gap" | "error") {
            return;
        }
        let contents = self.tables.entry(version.table.clone()).or_default();
        contents.reshape(version);
        let flaw = match (version.event.as_str(), &version.key) {
            ("truncated", _) => {
                contents.keyed.clear();
                contents.loose.clear();
                contents.truncated = true;
                None
            }
            (_, Some(key)) => contents.keyed(version, key),
            (_, None) => contents.loose(version).filter(|_| !self.earlier),
        };
        self.flaws.extend(flaw.map(|flaw| format!("{flaw}: {}", version.place())));
    }

    /// Notes that changes were lost: what was known may no longer be true.
    pub fn gap(&mut self) {
        for contents in self.tables.values_mut() {
            let Contents { keyed, loose, schema_version, .. } = std::mem::take(contents);
            let keyed = keyed.into_iter().map(|(key, known)| (Some(key), vec![known.row]));
            let before = keyed.chain([(None, loose)]).collect();
            *contents = Contents { before, schema_version, ..Contents::default() };
        }
    }

    /// Renames a column in every row of a table: ALTER TABLE makes no versions.
    pub fn rename(&mut self, table: &str, from: &str, to: &str) {
        let contents = self.tables.entry(table.to_owned()).or_default();
        let rename = |row: &mut Row| {
            if let Some(value) = row.remove(from) {
                row.insert(to.to_owned(), value);
            }
        };
        contents.keyed.values_mut().for_each(|known| rename(&mut known.row));
        contents.loose.iter_mut().for_each(rename);
        contents.renamed.push((to.to_owned(), from.to_owned()));
    }

    /// Forgets a table that was dropped, which makes no versions.
    pub fn forget(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Lists the first few rows in which the state differs from the tables as they are.
    pub fn differences(&self, tables: &BTreeMap<String, Table>, shapes: &Shapes) -> Vec<String> {
        let mut found = self.flaws.clone();
        let nothing = Contents::default();
        for (name, table) in tables {
            let newest = shapes.iter().rev().find(|((shape, _), _)| shape == name);
            let kinds = newest.map(|(_, kinds)| kinds.clone()).unwrap_or_default();
            let contents = self.tables.get(name).unwrap_or(&nothing);
            found.extend(contents.differences(table, &kinds).map(|what| format!("{name}: {what}")).take(5));
        }
        found.truncate(20);
        found
    }
}

impl Contents {
    /// Removes columns that a new shape does not have, because they were dropped: one with that name in a later shape
    /// is another column.
    fn reshape(&mut self, version: &Version) {
        let whole = match version.event.as_str() {
            "deleted" => version.before.as_ref().filter(|_| version.before_known),
            _ => version.after.as_ref(),
        };
        let Some(row) = whole.filter(|_| version.schema_version != self.schema_version) else { return };
        self.schema_version = version.schema_version;
        let rows = self.keyed.values_mut().map(|known| &mut known.row).chain(&mut self.loose);
        rows.for_each(|known| known.retain(|column, _| row.contains_key(column) || version.unknown.contains(column)));
    }

    fn keyed(&mut self, version: &Version, key: &str) -> Option<String> {
        match version.event.as_str() {
            "created" => {
                let row = version.after.clone().unwrap_or_default();
                self.gone.remove(key);
                let known = self.keyed.insert(key.to_owned(), Known { row, whole: true });
                known.map(|_| "created, but it was there".to_owned())
            }
            "snapshot" => self.snapshot(version, key),
            "deleted" => {
                if self.keyed.remove(key).is_none() {
                    self.take_loose(version.before.as_ref());
                }
                self.gone.insert(key.to_owned());
                None
            }
            "updated" => {
                let old_key = version.old_key.as_deref().unwrap_or(key);
                let loose = |row| Known { row, whole: true };
                let base = self.keyed.remove(old_key).or_else(|| {
                    let row = self.take_loose(version.before.as_ref()).or_else(|| self.take_by_key(version, key));
                    row.map(loose)
                });
                if old_key != key {
                    self.gone.insert(old_key.to_owned());
                    self.gone.remove(key);
                }
                let whole_after = version.after.is_some() && version.unknown.is_empty();
                let whole = whole_after || base.as_ref().is_some_and(|known| known.whole);
                let mut row = base.map(|known| known.row).unwrap_or_default();
                let told = version.changes.iter().flatten();
                row.extend(told.map(|(column, (_, new))| (column.clone(), new.clone())));
                row.extend(version.after.iter().flatten().map(|(column, value)| (column.clone(), value.clone())));
                let replaced = self.keyed.insert(key.to_owned(), Known { row, whole });
                replaced.map(|_| "its new key was taken".to_owned())
            }
            other => Some(format!("no event that changes a row: {other}")),
        }
    }

    fn snapshot(&mut self, version: &Version, key: &str) -> Option<String> {
        let row = version.after.clone().unwrap_or_default();
        if self.gone.contains(key) || (self.truncated && !self.keyed.contains_key(key)) {
            return Some("a snapshot of a row that had gone".to_owned());
        }
        match self.keyed.insert(key.to_owned(), Known { row: row.clone(), whole: true }) {
            None => None,
            // A row that was created or changed before the chunk was read may be in the chunk as it was then.
            Some(known) => {
                let differs = known.row.iter().find(|(column, value)| row.get(*column) != Some(value));
                differs.map(|(column, value)| format!("the snapshot has {column} {:?}, not {value:?}", row.get(column)))
            }
        }
    }

    fn loose(&mut self, version: &Version) -> Option<String> {
        let missing = match version.event.as_str() {
            "deleted" | "updated" => self.take_loose(version.before.as_ref()).is_none(),
            _ => false,
        };
        if version.event != "deleted" {
            let row = version.after.clone().unwrap_or_default();
            let told = self.told.entry(row.clone()).or_default();
            match version.event.as_str() {
                "snapshot" if told.again < told.streamed => told.again += 1,
                "snapshot" => {}
                _ => told.streamed += 1,
            }
            self.loose.push(row);
        }
        missing.then(|| "the row before was not there".to_owned())
    }

    /// Takes a row without a key: it is equal in every column that the table has now, and a column that was added since
    /// is NULL. Its key may have become known meanwhile.
    fn take_loose(&mut self, row: Option<&Row>) -> Option<Row> {
        let row = row?;
        let equal = |known: &Row| row.iter().all(|(column, value)| *value == known.get(column).cloned().flatten());
        if let Some(at) = self.loose.iter().position(equal) {
            return Some(self.loose.swap_remove(at));
        }
        // The table had another key when the row was shown.
        let key = self.keyed.iter().find(|(_, known)| known.whole && equal(&known.row)).map(|(key, _)| key.clone())?;
        self.keyed.remove(&key).map(|known| known.row)
    }

    /// Takes a row that was shown when the table had no key yet. If the version has no row before, the column that is
    /// now the key identifies it.
    fn take_by_key(&mut self, version: &Version, key: &str) -> Option<Row> {
        let after = version.after.as_ref().filter(|_| !version.before_known)?;
        let mut shows = after.clone();
        shows.retain(|_, value| value.as_deref() == Some(key));
        if shows.is_empty() { None } else { self.take_loose(Some(&shows)) }
    }

    fn differences(&self, table: &Table, kinds: &Kinds) -> impl Iterator<Item = String> {
        let mut expected: Vec<Row> = table.rows.iter().map(|row| self.replicated(row, table, kinds)).collect();
        expected.sort();
        let mut wrong = Vec::new();
        for known in self.keyed.values() {
            match at(&expected, known) {
                Some(at) => drop(expected.remove(at)),
                None => wrong.push(known.row.clone()),
            }
        }
        let mut again: BTreeMap<&Row, usize> = self.told.iter().map(|(row, told)| (row, told.again)).collect();
        for row in &self.loose {
            match (at(&expected, &Known { row: row.clone(), whole: true }), again.get_mut(row)) {
                (Some(at), _) => drop(expected.remove(at)),
                (None, Some(again)) if *again > 0 => *again -= 1,
                (None, _) => wrong.push(row.clone()),
            }
        }
        // If a row was shown again after a gap, its state before does not count.
        let again = |key: &Option<String>| {
            key.as_ref().is_some_and(|key| self.keyed.contains_key(key) || self.gone.contains(key))
        };
        let told_before = self.before.iter().filter(|(key, _)| !again(key)).flat_map(|(_, rows)| rows);
        let mut told_before: Vec<&Row> = if self.truncated { Vec::new() } else { told_before.collect() };
        expected.retain(|row| match told_before.iter().position(|told| *told == row) {
            Some(at) => {
                told_before.swap_remove(at);
                false
            }
            None => true,
        });
        let missing = expected.into_iter().map(|row| format!("the trail does not lead to {row:?}"));
        wrong
            .into_iter()
            .map(|row| format!("the trail leads to {row:?}"))
            .chain(missing)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Returns the replicated part of a row in canonical text.
    fn replicated(&self, row: &Row, table: &Table, kinds: &Kinds) -> Row {
        let replicated =
            row.iter().filter(|(column, _)| kinds.contains_key(*column) || !table.generated.contains(column));
        let canonical = |(column, value): (&String, &Option<String>)| {
            (column.clone(), value.as_ref().map(|text| from_postgres(text, self.kind(kinds, column))))
        };
        replicated.map(canonical).collect()
    }

    /// Returns a column's kind. A column that was renamed since the last shape is still known by its old name.
    fn kind<'k>(&self, kinds: &'k Kinds, column: &str) -> &'k str {
        let old = self.renamed.iter().find(|(new, _)| new == column && !kinds.contains_key(column));
        kind(kinds, old.map_or(column, |(_, old)| old))
    }
}

/// Finds the row that a known one is: it is equal in all of the table's columns, or in those that were shown. A column
/// that the trail never showed was added since, and is NULL.
fn at(rows: &[Row], known: &Known) -> Option<usize> {
    let fits = |row: &Row| {
        row.iter().all(|(column, value)| match known.row.get(column) {
            Some(told) => told == value,
            None => !known.whole || value.is_none(),
        })
    };
    // Most rows are whole and equal, so a binary search finds them.
    match rows.binary_search(&known.row) {
        Ok(at) => Some(at),
        Err(_) => rows.iter().position(fits),
    }
}
