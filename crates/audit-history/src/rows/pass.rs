//! One pass over the versions of a table, in which the rows of a range of keys are kept: [`Pass`].

use std::collections::HashMap;
use std::vec;

use audit_core::position::Position;
use audit_core::stored::Record;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use super::RowsError;
use crate::row::{Facts, Fold, Standing, ends, is_move, state_bytes};

/// What a map takes for an entry beside the bytes of its texts, about.
const ENTRY: usize = 64;

pub(super) struct Pass<'f> {
    table: String,
    facts: &'f Facts,
    fold: Fold<'f>,
    /// The keys with which the rows of this pass began.
    keys: Keys,
    /// By the key that a row has now: the one that it began with, if that is another. Only where one of the two is a key of
    /// this pass.
    roots: HashMap<String, String>,
    /// The position from which on changes are looked for.
    pub since: Option<Position>,
    /// By its number: what a row was at that position, if it was touched since.
    thens: HashMap<u32, Touched>,
    bytes: usize,
    memory: usize,
}

/// A range of keys: at or after `from`, and before `to`.
struct Keys {
    from: String,
    to: Option<String>,
}

impl Keys {
    fn has(&self, key: &str) -> bool {
        self.from.as_str() <= key && self.to.as_deref().is_none_or(|to| key < to)
    }
}

/// A row that has versions at or after the position from which on changes are looked for.
struct Touched {
    root: String,
    key: String,
    then: Then,
}

/// What is known of a row at the earlier position.
pub(super) enum Then {
    /// Nothing happened to it since.
    Untouched,
    Row(Standing),
    /// It was created later.
    New,
    /// It was there, and no version until then names it.
    Unseen,
}

/// A row at both positions.
pub(super) struct Entry {
    pub key: String,
    pub then: Then,
    /// `None` if it has ended.
    pub now: Option<Standing>,
}

impl<'f> Pass<'f> {
    pub fn new(table: &str, facts: &'f Facts, memory: usize, from: String) -> Pass<'f> {
        Pass {
            table: table.to_owned(),
            facts,
            fold: Fold::new(facts),
            keys: Keys { from, to: None },
            roots: HashMap::new(),
            since: None,
            thens: HashMap::new(),
            bytes: 0,
            memory,
        }
    }

    /// Takes all versions, in the order of their positions.
    pub async fn read(&mut self, versions: BoxStream<'_, Result<Record, RowsError>>) -> Result<(), RowsError> {
        let mut versions = versions.fuse();
        let mut last = versions.try_next().await?;
        while let Some(record) = last.take() {
            match versions.try_next().await? {
                Some(next) if is_move(&record, &next) => {
                    self.push(next, Some(record))?;
                    last = versions.try_next().await?;
                }
                next => {
                    self.push(record, None)?;
                    last = next;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, record: Record, moved: Option<Record>) -> Result<(), RowsError> {
        if record.event == "truncated" {
            self.truncate(record);
            return Ok(());
        }
        let Some(key) = record.key.clone() else { return self.without_key(&record) };
        // An insertion of a moved row goes on with the row that was deleted.
        let begins = record.event == "created" && moved.is_none();
        let was = record.old_key.clone().filter(|_| !begins).unwrap_or_else(|| key.clone());
        let ended = ends(&record);
        let root = self.roots.get(&was).filter(|_| !begins).unwrap_or(&was).clone();
        let before = self.weight(&was) + if was == key { 0 } else { self.weight(&key) };
        let later = self.since.is_some_and(|since| since <= record.position);
        if later {
            self.remember(&was);
            self.remember(&key);
        }
        self.roots.remove(&was);
        self.roots.remove(&key);
        if self.keys.has(&root) {
            let created = begins.then_some(Then::New);
            let version = self.fold.push(record, moved);
            if later && version.previous.is_none() {
                let then = created.unwrap_or(Then::Unseen);
                self.touch(version.row, Touched { root: root.clone(), key: key.clone(), then });
            }
        } else {
            // ⚠ The row that had this key until now has ended, even if its end was not recorded.
            self.fold.forget(&key);
        }
        if !ended && root != key && (self.keys.has(&root) || self.keys.has(&key)) {
            self.roots.insert(key.clone(), root);
        }
        self.bytes = (self.bytes + self.weight(&key)).saturating_sub(before);
        while self.bytes > self.memory {
            self.divide()?;
        }
        Ok(())
    }

    /// A change without a key is one of a row that nobody can name. A quarantined one is among the marks.
    fn without_key(&self, record: &Record) -> Result<(), RowsError> {
        match record.event.as_str() {
            "error" => Ok(()),
            _ => Err(RowsError::NoKey { table: self.table.clone() }),
        }
    }

    fn truncate(&mut self, record: Record) {
        if self.since.is_some_and(|since| since <= record.position) {
            let keys: Vec<String> = self.fold.keys().map(str::to_owned).collect();
            keys.iter().for_each(|key| self.remember(key));
        }
        self.roots.clear();
        self.fold.push(record, None);
        self.bytes = self.thens.values().map(Touched::bytes).sum();
    }

    /// Keeps what the row was at the earlier position, before the first version after that changes it.
    fn remember(&mut self, key: &str) {
        let Some(at) = self.since.map(|since| since.previous().unwrap_or_default()) else { return };
        let Some(row) = self.fold.row_of(key).filter(|row| !self.thens.contains_key(row)) else { return };
        let Some(standing) = self.fold.state(key, at) else { return };
        let root = self.roots.get(key).cloned().unwrap_or_else(|| key.to_owned());
        self.touch(row, Touched { root, key: key.to_owned(), then: Then::Row(standing) });
    }

    fn touch(&mut self, row: u32, touched: Touched) {
        self.bytes += touched.bytes();
        self.thens.entry(row).or_insert(touched);
    }

    /// Bytes that are held because of a key.
    fn weight(&self, key: &str) -> usize {
        self.fold.bytes(key) + self.roots.get(key).map_or(0, |root| ENTRY + key.len() + root.len())
    }

    /// Leaves the upper half of the keys to another pass.
    fn divide(&mut self) -> Result<(), RowsError> {
        let of_rows = self.fold.keys().map(|key| self.roots.get(key).map_or(key, String::as_str));
        let of_others = self.roots.iter().flat_map(|(key, root)| [key.as_str(), root.as_str()]);
        let of_ended = self.thens.values().map(|touched| touched.root.as_str());
        let mut held: Vec<&str> = of_rows.chain(of_others).chain(of_ended).filter(|key| self.keys.has(key)).collect();
        held.sort_unstable();
        held.dedup();
        let to = held.get(held.len() / 2).filter(|_| held.len() > 1).map(|key| (*key).to_owned());
        self.keys.to = Some(to.ok_or_else(|| RowsError::Memory { table: self.table.clone() })?);
        self.fold.retain(|key| self.keys.has(self.roots.get(key).map_or(key, String::as_str)));
        self.roots.retain(|key, root| self.keys.has(root) || self.keys.has(key));
        self.thens.retain(|_, touched| self.keys.has(&touched.root));
        let rows: usize = self.fold.keys().map(|key| self.fold.bytes(key)).sum();
        let roots: usize = self.roots.iter().map(|(key, root)| ENTRY + key.len() + root.len()).sum();
        self.bytes = rows + roots + self.thens.values().map(Touched::bytes).sum::<usize>();
        Ok(())
    }

    /// Every row of the pass, with its state at `at`, after which no version was read.
    pub fn finish(mut self, at: Position) -> Finished<'f> {
        let mut found = Vec::new();
        for key in self.fold.keys() {
            let root = self.roots.get(key).cloned().unwrap_or_else(|| key.to_owned());
            let row = self.fold.row_of(key).unwrap_or_default();
            found.push(Place { root, row, key: Some(key.to_owned()), touched: self.thens.remove(&row) });
        }
        for (row, touched) in self.thens {
            found.push(Place { root: touched.root.clone(), row, key: None, touched: Some(touched) });
        }
        found.sort_by(|a, b| (&a.root, a.row).cmp(&(&b.root, b.row)));
        let since = self.since.map(|since| since.previous().unwrap_or_default());
        let since = since.filter(|since| !self.facts.is_calm(*since, at));
        Finished { fold: self.fold, found: found.into_iter(), since, at, left_from: self.keys.to }
    }
}

impl Touched {
    fn bytes(&self) -> usize {
        let state = match &self.then {
            Then::Row(standing) => state_bytes(&standing.state),
            Then::Untouched | Then::New | Then::Unseen => 0,
        };
        ENTRY + size_of::<Touched>() + self.root.len() + self.key.len() + state
    }
}

/// What a pass has found: an iterator over its rows, in the order of the keys that they began with; of those that began
/// with the same key the first one first.
pub(super) struct Finished<'f> {
    fold: Fold<'f>,
    found: vec::IntoIter<Place>,
    /// The earlier position, if something between the two makes values unknown without touching the row.
    since: Option<Position>,
    at: Position,
    /// The first key of the rows that were left to another pass.
    pub left_from: Option<String>,
}

/// A row that was found.
struct Place {
    root: String,
    row: u32,
    /// `None` if it has ended.
    key: Option<String>,
    touched: Option<Touched>,
}

impl Iterator for Finished<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let Place { key, touched, .. } = self.found.next()?;
        let (last_key, then) = touched.map_or((None, None), |touched| (Some(touched.key), Some(touched.then)));
        let untouched = |key: &String| self.since.and_then(|since| self.fold.state(key, since)).map(Then::Row);
        let then = then.or_else(|| key.as_ref().and_then(untouched)).unwrap_or(Then::Untouched);
        let now = key.as_ref().and_then(|key| self.fold.remove(key, self.at));
        Some(Entry { key: key.or(last_key).unwrap_or_default(), then, now })
    }
}
