//! Old values that the server did not send, taken from earlier versions of the same row where that is sound.

use std::collections::HashMap;

use audit_core::position::Position;
use audit_core::shape::Shape;
use audit_core::stored::Record;
use audit_history::row::{Facts, Fold, Version, moves};
use audit_undo::Derived;

use super::task::Question;
use crate::error::CliError;

impl Question {
    /// All versions of a row, oldest first, with their numbers and with what is known of old values.
    pub async fn row(&self, table: &str, key: &str) -> Result<Vec<Version>, CliError> {
        let records = self.history(table, key).await?;
        let marks = self.store.marks(&self.source, table).await?;
        let shapes: Vec<Shape> = self.store.shapes(&self.source, table).await?;
        let facts = Facts::new(shapes, &marks, true);
        let mut fold = Fold::new(&facts);
        Ok(moves(records).map(|(record, moved)| fold.push(record, moved)).collect())
    }

    /// What is derived for those versions that lack old values.
    pub async fn derive(&self, records: &[Record]) -> Result<HashMap<Position, Derived>, CliError> {
        let mut found = HashMap::new();
        for record in records.iter().filter(|record| lacks(record)) {
            let Some(key) = record.key.as_deref().filter(|_| !found.contains_key(&record.position)) else { continue };
            let versions = self.row(&record.table_name, key).await?;
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
