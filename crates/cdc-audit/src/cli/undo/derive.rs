//! Old values that the server did not send, taken from earlier versions of the same row where that is sound.

use std::collections::HashMap;

use audit_core::position::Position;
use audit_core::shape::Shape;
use audit_core::stored::Record;
use audit_history::row::{Facts, Fold, Version, moves};
use audit_undo::Derived;

use super::question::Question;
use crate::error::CliError;

impl Question {
    /// All versions of a row, oldest first, with their numbers and, if the `marks` are given, with what is known of old
    /// values.
    pub async fn row(&self, table: &str, key: &str, marks: &[Record]) -> Result<Vec<Version>, CliError> {
        let records = self.history(table, key).await?;
        let shapes: Vec<Shape> = self.store.shapes(&self.source, table).await?;
        // A declared rename is no proof of where an old value belongs.
        let facts = Facts::new(shapes, &[], marks, true);
        let mut fold = Fold::new(&facts);
        Ok(moves(&facts, records).map(|(record, moved)| fold.push(record, moved)).collect())
    }

    /// What is derived for those versions that lack old values.
    pub async fn derive(&self, records: &[Record]) -> Result<HashMap<Position, Derived>, CliError> {
        let mut found = HashMap::new();
        let mut marks: HashMap<&str, Vec<Record>> = HashMap::new();
        for record in records.iter().filter(|record| lacks(record)) {
            let Some(key) = record.key.as_deref().filter(|_| !found.contains_key(&record.position)) else { continue };
            let table = record.table_name.as_str();
            if !marks.contains_key(table) {
                marks.insert(table, self.store.marks(&self.source, table).await?);
            }
            let marks = marks.get(table).map(Vec::as_slice).unwrap_or_default();
            let versions = self.row(table, key, marks).await?;
            found.extend(versions.iter().filter(|version| lacks(&version.record)).map(derived));
        }
        Ok(found)
    }
}

fn lacks(record: &Record) -> bool {
    let changes = matches!(record.event.as_str(), "updated" | "discarded" | "restored" | "deleted");
    changes && !record.before_known
}

fn derived(version: &Version) -> (Position, Derived) {
    let old = version.changes.iter().filter_map(|change| Some((change.column.clone(), change.old.value()?.to_owned())));
    let unknown = version.unknown.iter().map(|(column, why)| (column.clone(), why.to_string()));
    (version.record.position, Derived { old: old.collect(), unknown: unknown.collect() })
}
