//! Maps the columns of the record and of a table's rows to the Delta schema and the Parquet files.
//!
//! A lake column is one source column with one form: if the type or the protection of a column changes, a new lake
//! column begins (`name__2`), and if it changes back, the old one continues. Field metadata says which source column a
//! lake column holds, and how. Columns are never removed: rows stay readable under the name that they were written
//! with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use audit_core::table::{Column, Table};
use audit_core::value::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::form::Form;
use crate::partition::Partitioning;

/// Keys of a lake column's field metadata.
pub const SOURCE_COLUMN: &str = "cdc_audit.column";
pub const SOURCE_KIND: &str = "cdc_audit.kind";
pub const SOURCE_TYPE: &str = "cdc_audit.type";
pub const SOURCE_METHOD: &str = "cdc_audit.method";

/// The name of the struct that holds the row before the change, if that is kept.
pub const BEFORE: &str = "cdc_before";

/// A field of the Delta schema, as in its JSON (Delta protocol, "Schema Serialization Format").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeltaField {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Value,
    pub nullable: bool,
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// The record's own columns, in order: name, form, whether a value may be missing. `cdc_commit_lsn` and `cdc_lsn` are
/// 16 lower-case hex digits, which sort correctly as text.
pub const RECORD_COLUMNS: [(&str, Form, bool); 29] = [
    ("cdc_source", Form::Text, false),
    ("cdc_position", Form::Text, false),
    ("cdc_table_name", Form::Text, false),
    ("cdc_item_type", Form::Text, false),
    ("cdc_key", Form::Text, true),
    ("cdc_old_key", Form::Text, true),
    ("cdc_event", Form::Text, false),
    ("cdc_changes", Form::Text, true),
    ("cdc_changed", Form::TextList, true),
    ("cdc_before_known", Form::Bool, false),
    ("cdc_unknown", Form::TextList, true),
    ("cdc_carried", Form::TextList, true),
    ("cdc_included", Form::Text, true),
    ("cdc_actor_id", Form::Text, true),
    ("cdc_actor", Form::Text, true),
    ("cdc_reason", Form::Text, true),
    ("cdc_context", Form::Text, true),
    ("cdc_actor_source", Form::Text, true),
    ("cdc_context_verified", Form::Bool, true),
    ("cdc_xid", Form::Int64, false),
    ("cdc_commit_lsn", Form::Text, false),
    ("cdc_lsn", Form::Text, false),
    ("cdc_seq", Form::Int64, false),
    ("cdc_committed_at", Form::Timestamp { zone: true }, false),
    ("cdc_recorded_at", Form::Timestamp { zone: true }, false),
    ("cdc_schema_version", Form::Int32, false),
    ("cdc_baseline", Form::Int32, true),
    ("cdc_tenant", Form::Text, true),
    // A value that a typed column cannot hold exactly is null there, and its text is here: {"lake column":
    // "PostgreSQL's text"}.
    ("cdc_exact", Form::Text, true),
];

/// How the rows of a table, in one shape under one set of rules, are laid out in its files.
#[derive(Debug)]
pub struct RowPlan {
    pub schema: SchemaRef,
    /// For each of the table's kept columns, the lake column that it goes to; `None` for columns that are kept for
    /// another purpose.
    pub targets: Vec<Option<usize>>,
    /// The lake columns of this shape: name and form.
    pub columns: Vec<(String, Form)>,
    /// Whether the files have the row before the change.
    pub before: bool,
}

impl RowPlan {
    /// Bytes that a row takes in memory in addition to its record and its texts: in a table of many columns, NULLs take
    /// most of them. Buffers double when they are full, so up to half of them is unused.
    pub fn width(&self) -> usize {
        let row: usize = self.columns.iter().map(|(_, form)| form.width()).sum();
        2 * row * self.images()
    }

    /// Number of builders that a file of such rows has.
    pub fn builders(&self) -> usize {
        RECORD_COLUMNS.len() + self.columns.len() * self.images()
    }

    fn images(&self) -> usize {
        1 + usize::from(self.before)
    }
}

/// The fields of a Delta table that has no rows yet.
pub fn first_fields(keep_before: bool, by: Partitioning) -> Vec<DeltaField> {
    let field = |name: &str, form: &Form| DeltaField {
        name: name.to_string(),
        kind: form.delta(),
        nullable: true,
        metadata: Map::new(),
    };
    let mut fields: Vec<DeltaField> = RECORD_COLUMNS.iter().map(|(name, form, _)| field(name, form)).collect();
    if keep_before {
        fields.push(before_field());
    }
    fields.extend(by.columns().iter().map(|(name, form)| field(name, form)));
    fields
}

fn before_field() -> DeltaField {
    DeltaField {
        name: BEFORE.to_string(),
        kind: json!({"type": "struct", "fields": []}),
        nullable: true,
        metadata: Map::new(),
    }
}

/// Lays out `table`, adding to `fields` what is missing. Returns true if something was added.
pub fn plan(table: &Table, keep_before: bool, fields: &mut Vec<DeltaField>) -> (RowPlan, bool) {
    let known = fields.len();
    let mut columns = Vec::new();
    let mut targets = Vec::new();
    let mut used = Vec::new();
    for column in &table.columns {
        if !column.tracked {
            targets.push(None);
            continue;
        }
        let at = find_or_add(column, fields);
        used.push(fields[at].clone());
        targets.push(Some(columns.len()));
        columns.push((fields[at].name.clone(), Form::of(&column.kind)));
    }
    // Parquet has no structs without fields, so a table without tracked columns keeps no row before the change.
    let before = keep_before && !columns.is_empty();
    let grown = before && widen_before(&used, fields);
    let plan = RowPlan { schema: arrow_schema(&used, &columns, before), targets, columns, before };
    let added = fields.len() > known || grown;
    (plan, added)
}

fn find_or_add(column: &Column, fields: &mut Vec<DeltaField>) -> usize {
    let method = column.method().map(|method| method.name());
    let kind = column.kind.to_string();
    let text = |field: &DeltaField, key: &str| field.metadata.get(key).and_then(Value::as_str).map(str::to_string);
    let same = |field: &DeltaField| {
        text(field, SOURCE_COLUMN).as_deref() == Some(&column.name)
            && text(field, SOURCE_KIND).as_deref() == Some(&kind)
            && text(field, SOURCE_METHOD).as_deref() == method
    };
    if let Some(at) = fields.iter().position(same) {
        return at;
    }
    let mut metadata = Map::new();
    metadata.insert(SOURCE_COLUMN.to_string(), json!(column.name));
    metadata.insert(SOURCE_KIND.to_string(), json!(kind));
    metadata.insert(SOURCE_TYPE.to_string(), json!(column.type_name));
    if let Some(method) = method {
        metadata.insert(SOURCE_METHOD.to_string(), json!(method));
    }
    let name = free_name(&column.name, fields);
    fields.push(DeltaField { name, kind: Form::of(&column.kind).delta(), nullable: true, metadata });
    fields.len() - 1
}

/// The lake name of a source column: characters outside `[A-Za-z0-9_]` are replaced, and it is unique regardless of
/// case.
fn free_name(column: &str, fields: &[DeltaField]) -> String {
    let plain: String = column.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    let free = |name: &str| {
        !name.eq_ignore_ascii_case(BEFORE) && !fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
    };
    let numbered = (2u32..).map(|number| format!("{plain}__{number}"));
    std::iter::once(plain.clone()).chain(numbered).find(|name| free(name)).unwrap_or(plain)
}

/// Adds to `cdc_before` the fields that it lacks.
fn widen_before(used: &[DeltaField], fields: &mut Vec<DeltaField>) -> bool {
    let at = fields.iter().position(|field| field.name == BEFORE).unwrap_or_else(|| {
        fields.push(before_field());
        fields.len() - 1
    });
    let Some(inner) = fields[at].kind.get_mut("fields").and_then(Value::as_array_mut) else { return false };
    let known = inner.len();
    for field in used {
        if !inner.iter().any(|inner| inner.get("name").and_then(Value::as_str) == Some(&field.name)) {
            inner.push(json!({"name": field.name, "type": field.kind, "nullable": true, "metadata": {}}));
        }
    }
    inner.len() > known
}

fn arrow_schema(used: &[DeltaField], columns: &[(String, Form)], before: bool) -> SchemaRef {
    let mut fields: Vec<Field> =
        RECORD_COLUMNS.iter().map(|(name, form, nullable)| Field::new(*name, form.arrow(), *nullable)).collect();
    let row: Vec<Field> = columns.iter().map(|(name, form)| Field::new(name, form.arrow(), true)).collect();
    if before {
        fields.push(Field::new_struct(BEFORE, row.clone(), true));
    }
    // A file describes its own columns, in case the log is lost.
    let metadata = |field: &DeltaField| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        field.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect::<HashMap<_, _>>()
    };
    fields.extend(row.into_iter().zip(used).map(|(field, used)| field.with_metadata(metadata(used))));
    Arc::new(Schema::new(fields))
}

/// The row's columns in a file, from the file's own schema.
pub fn columns_of(schema: &Schema) -> Vec<(String, Form)> {
    let kind = |field: &Field| field.metadata().get(SOURCE_KIND)?.parse::<Kind>().ok();
    schema.fields().iter().filter_map(|field| Some((field.name().clone(), Form::of(&kind(field)?)))).collect()
}

/// Adds a file's columns that are missing in `fields`. Returns true if there were any.
pub fn add_columns_of(schema: &Schema, fields: &mut Vec<DeltaField>) -> bool {
    let known = fields.len();
    for field in schema.fields() {
        let Some(kind) = field.metadata().get(SOURCE_KIND).and_then(|kind| kind.parse::<Kind>().ok()) else { continue };
        if !fields.iter().any(|known| known.name == *field.name()) {
            let metadata = field.metadata().iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            fields.push(DeltaField {
                name: field.name().clone(),
                kind: Form::of(&kind).delta(),
                nullable: true,
                metadata,
            });
        }
    }
    fields.len() > known
}
