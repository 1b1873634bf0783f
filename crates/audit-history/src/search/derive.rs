//! Old values that the server did not send, for versions of which it cannot be told otherwise whether they match:
//! [`Deriver`].

use std::collections::{HashMap, VecDeque};

use audit_core::position::{Position, Window};
use audit_core::rules::Rules;
use audit_core::stored::Record;
use serde::Serialize;

use crate::question::matcher::Matcher;
use crate::row::{Facts, Fold, Told, Undone, Version, moves};
use crate::store::StoreError;
use crate::timeline::Timeline;

/// Versions that are read of a row: its newest ones.
const VERSIONS_MAX: usize = 1_000;

/// Versions that are kept, so that the next ones of the same rows are told without reading.
const KEPT_MAX: usize = 10_000;

/// Rows that are looked up in one search. What is left after these cannot be told.
const LOOKUPS_MAX: usize = 20_000;

/// A version that matches.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its `changes`, `changed` and `summary` have the old values that are derived.
    #[serde(flatten)]
    pub record: Record,
    /// Columns whose old values are derived.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<String>,
}

/// Reads what came before versions. A row is read once for all of its versions that are asked about.
pub struct Deriver<'t> {
    store: &'t Timeline,
    source: &'t str,
    matcher: &'t Matcher,
    /// They say which columns were renamed.
    rules: &'t Rules,
    facts: HashMap<String, Facts>,
    /// By table and key: the versions that were read of a row, and of all that had its key.
    rows: HashMap<(String, String), HashMap<Position, Derived>>,
    /// In the order in which they were read.
    order: VecDeque<(String, String)>,
    kept: usize,
    lookups: usize,
}

/// A version with what was found out about it.
#[derive(Clone)]
struct Derived {
    found: Found,
    /// Columns of which it is not known whether they changed.
    unknown: Vec<String>,
}

impl<'t> Deriver<'t> {
    pub fn new(store: &'t Timeline, source: &'t str, matcher: &'t Matcher, rules: &'t Rules) -> Deriver<'t> {
        Deriver {
            store,
            source,
            matcher,
            rules,
            facts: HashMap::new(),
            rows: HashMap::new(),
            order: VecDeque::new(),
            kept: 0,
            lookups: 0,
        }
    }

    /// The version, if it is part of the answer. Those of which that cannot be told are counted.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn told(&mut self, record: Record) -> Result<Option<Found>, StoreError> {
        match self.matcher.truth(&record, &[]) {
            Some(true) => return Ok(Some(Found { record, derived: Vec::new() })),
            Some(false) => return Ok(None),
            None => {}
        }
        let derived = self.derived(&record).await?;
        let truth = derived.as_ref().and_then(|derived| self.matcher.truth(&derived.found.record, &derived.unknown));
        if truth.is_none() {
            self.matcher.leave_untold(record.position);
        }
        Ok(derived.filter(|_| truth == Some(true)).map(|derived| derived.found))
    }

    async fn derived(&mut self, record: &Record) -> Result<Option<Derived>, StoreError> {
        let Some(key) = record.key.clone() else { return Ok(None) };
        let row = (record.table_name.clone(), key);
        if let Some(known) = self.rows.get(&row).and_then(|versions| versions.get(&record.position)) {
            return Ok(Some(known.clone()));
        }
        let everything = self.read(&row, Window::ALL).await?;
        let missing = everything.as_ref().is_some_and(|versions| !versions.contains_key(&record.position));
        // ⚠ A version that is not among the row's newest ones is read with those before it.
        let until = Window { from: None, to: Some(record.position.next()) };
        let versions = if missing { self.read(&row, until).await? } else { everything };
        let Some(versions) = versions else { return Ok(None) };
        let found = versions.get(&record.position).cloned();
        self.keep(row, versions);
        Ok(found)
    }

    /// The newest versions of a row in a range; `None` if too many rows were read.
    async fn read(
        &mut self,
        (table, key): &(String, String),
        window: Window,
    ) -> Result<Option<HashMap<Position, Derived>>, StoreError> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            return Ok(None);
        }
        if !self.facts.contains_key(table) {
            let marks = self.store.marks(self.source, table).await?;
            // Numbers of versions are not asked for.
            let renames = self.rules.for_name(table.clone()).rule.renames;
            let facts = Facts::new(self.store.shapes(self.source, table).await?, &renames, &marks, false);
            self.facts.insert(table.clone(), facts);
        }
        let store = self.store.within(window);
        let mut records = store.history(self.source, table, key, VERSIONS_MAX as u32).await?;
        records.reverse();
        let Some(facts) = self.facts.get(table) else { return Ok(None) };
        let mut fold = Fold::new(facts);
        let derived = |version: Version| (version.record.position, Derived::of(facts, &version));
        Ok(Some(moves(facts, records).map(|(record, moved)| derived(fold.push(record, moved))).collect()))
    }

    fn keep(&mut self, row: (String, String), versions: HashMap<Position, Derived>) {
        self.kept += versions.len();
        if let Some(replaced) = self.rows.insert(row.clone(), versions) {
            self.kept -= replaced.len();
        } else {
            self.order.push_back(row);
        }
        while self.kept > KEPT_MAX && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.rows.remove(&oldest));
            self.kept -= oldest.map_or(0, |versions| versions.len());
        }
    }
}

impl Derived {
    /// Columns keep the names that they had, by which filters know them.
    fn of(facts: &Facts, version: &Version) -> Derived {
        let told = Told::of(facts, version, &Undone::default(), true);
        let unknown = told.unknown_why.into_keys().collect();
        Derived { found: Found { record: told.record, derived: told.derived }, unknown }
    }
}
