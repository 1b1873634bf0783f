//! A row as a line of JSON: [`line`].

use audit_core::json::object;
use serde_json::{Map, Value, json};

use super::{Row, TableAt};
use crate::row::{Known, knowledge};

/// The row with the columns of which the values are known, and what is known of them. `tenant` is the one that it belongs
/// to.
pub fn line(table: &TableAt, tenant: Option<&str>, row: &Row) -> String {
    let Row { key, standing } = row;
    let mut columns: Vec<(&String, &Known)> = standing.state.iter().collect();
    columns.sort_by_cached_key(|(column, _)| table.facts.place(column));
    let values = columns.iter().filter_map(|(column, known)| Some((column.as_str(), known.value()?)));
    let told = columns.iter().filter_map(|(column, known)| {
        let told = knowledge(&table.facts, standing.schema_version, column, known)?;
        Some(((*column).clone(), Value::from(told)))
    });
    let last = standing.last;
    let members = [
        ("table_name", json!(table.name()).to_string()),
        ("tenant", json!(tenant).to_string()),
        ("key", json!(key).to_string()),
        ("row", object(values)),
        ("knowledge", Value::Object(told.collect::<Map<String, Value>>()).to_string()),
        ("position", json!(last.map(|last| last.position)).to_string()),
        ("committed_at", json!(last.map(|last| last.committed_at.to_string())).to_string()),
    ];
    let shown = members.iter().filter(|(name, _)| *name != "tenant" || tenant.is_some());
    object(shown.map(|(name, json)| (*name, json.as_str())))
}
