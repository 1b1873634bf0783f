//! Versions under the names that columns have now: [`Renames`].

use std::collections::HashMap;

use audit_core::json::{members, unquote};
use audit_core::rules::Rules;
use audit_core::shape::ColumnNames;
use audit_core::stored::{Record, json, summary};

use crate::store::StoreError;
use crate::timeline::Timeline;

/// The renamed columns of the tables that are asked about, read as they are needed.
pub struct Renames<'a> {
    store: &'a Timeline,
    source: &'a str,
    rules: Rules,
    known: HashMap<String, ColumnNames>,
}

impl<'a> Renames<'a> {
    /// `rules` say which renames the operator declared.
    pub fn new(store: &'a Timeline, source: &'a str, rules: Rules) -> Renames<'a> {
        Renames { store, source, rules, known: HashMap::new() }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// # Errors
    /// Fails if the shapes of the table cannot be read.
    pub async fn of_table(&mut self, table: &str) -> Result<&ColumnNames, StoreError> {
        if !self.known.contains_key(table) {
            let shapes = self.store.shapes(self.source, table).await?;
            let declared = self.rules.for_name(table.to_owned()).rule.renames;
            self.known.insert(table.to_owned(), ColumnNames::of(&shapes, &declared));
        }
        Ok(self.known.entry(table.to_owned()).or_default())
    }

    /// Gives the columns of records the names that they have now.
    ///
    /// # Errors
    /// Fails if the shapes of a table cannot be read.
    pub async fn applied(&mut self, records: Vec<Record>) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::with_capacity(records.len());
        for record in records {
            let names = self.of_table(&record.table_name).await?;
            all.push(renamed(names, record));
        }
        Ok(all)
    }
}

/// The same for one record of a table with these names.
pub fn renamed(names: &ColumnNames, mut record: Record) -> Record {
    let schema_version = record.schema_version;
    if !names.renames(schema_version) {
        return record;
    }
    let shown = |stored: &str| names.shown(schema_version, stored).into_owned();
    let objects = [&mut record.changes, &mut record.before, &mut record.after, &mut record.included];
    for object in objects.into_iter().flatten() {
        let member =
            |(name, value): (&str, &str)| format!("{}: {value}", serde_json::Value::from(shown(&unquote(name))));
        let renamed: Vec<String> = members(object.get()).map(member).collect();
        *object = json(format!("{{{}}}", renamed.join(", ")));
    }
    let lists = record.changed.iter_mut().chain([&mut record.unknown, &mut record.carried]);
    lists.flatten().for_each(|name| *name = shown(name));
    record.summary = summary(&record.event, record.changes.as_deref(), record.before_known);
    record
}
