//! The parts that are the same in all messages of a table with one shape (schemas, names and forms), made once.

use std::collections::HashMap;
use std::sync::Arc;

use audit_core::batch::Image;
use audit_core::change::Value;
use audit_core::table::Table;
use audit_core::value::write_json_string;
use serde_json::value::RawValue;

use super::form::Form;
use super::value::write_value;
use crate::config::{Decimals, FormatConfig};

/// The plans of the tables that were seen, by name. A table with a new shape replaces its plan.
#[derive(Debug)]
pub(super) struct Plans {
    source: String,
    inline_schema: bool,
    decimals: Decimals,
    known: HashMap<Arc<str>, Plan>,
}

#[derive(Debug)]
pub(super) struct Plan {
    table: Arc<Table>,
    /// One entry for each of the table's columns; `None` if the column is not tracked.
    fields: Vec<Option<Field>>,
    key: Vec<KeyField>,
    /// The bytes before the payload: the schema, or nothing.
    pub value_head: Vec<u8>,
    key_head: Vec<u8>,
    key_tail: &'static [u8],
    /// `,"schema":"…","table":"…","txId":`
    pub source_table: Vec<u8>,
}

#[derive(Debug)]
struct Field {
    /// `"name":`
    label: Vec<u8>,
    form: Form,
}

#[derive(Debug)]
struct KeyField {
    label: Vec<u8>,
    form: Form,
    /// Index into the table's columns, if the key has the row's own value.
    column: Option<usize>,
}

impl Plans {
    pub fn new(source: &str, config: &FormatConfig) -> Plans {
        Plans {
            source: source.to_owned(),
            inline_schema: config.inline_schema,
            decimals: config.decimals,
            known: HashMap::new(),
        }
    }

    pub fn of(&mut self, table: &Arc<Table>) -> &Plan {
        // `HashMap::entry` would need an owned name for every version.
        if !self.known.get(&table.name).is_some_and(|plan| Arc::ptr_eq(&plan.table, table)) {
            let plan = Plan::new(table, &self.source, self.inline_schema, self.decimals);
            self.known.insert(table.name.clone(), plan);
        }
        &self.known[&table.name]
    }
}

impl Plan {
    fn new(table: &Arc<Table>, source: &str, inline_schema: bool, decimals: Decimals) -> Plan {
        let shape = &table.shape;
        let form = |at: usize| Form::of(&table.columns[at], &shape.columns[table.columns[at].source], decimals);
        let fields: Vec<Option<Field>> = (0..table.columns.len())
            .map(|at| {
                table.columns[at].tracked.then(|| Field { label: label(&table.columns[at].name), form: form(at) })
            })
            .collect();
        let key: Vec<KeyField> = table
            .key
            .iter()
            .map(|part| {
                let own =
                    |column: &audit_core::table::Column| column.source == part.source && column.protection.is_none();
                let column = table.columns.iter().position(own).filter(|_| !part.protected);
                // If sensitive content may be found in the column, two rows may show the same mask in it, but their
                // keys differ. So the version's key is used.
                let column = column.filter(|at| table.columns[*at].inside.is_none());
                KeyField { label: label(&part.name), form: column.map_or(Form::Text(None), form), column }
            })
            .collect();
        let name = format!("{source}.{}.{}", shape.schema, shape.table);
        let mut source_table = br#","schema":"#.to_vec();
        write_json_string(&mut source_table, &shape.schema);
        source_table.extend_from_slice(br#","table":"#);
        write_json_string(&mut source_table, &shape.table);
        source_table.extend_from_slice(br#","txId":"#);
        let (mut value_head, mut key_head) = (Vec::new(), Vec::new());
        if inline_schema {
            write_value_schema(&mut value_head, table, &fields, &name);
            write_key_schema(&mut key_head, table, &key, &name);
        }
        let key_tail: &[u8] = if inline_schema { b"}" } else { b"" };
        Plan { table: table.clone(), fields, key, value_head, key_head, key_tail, source_table }
    }

    /// Appends one side of a row, or null.
    pub fn write_row(&self, out: &mut Vec<u8>, image: Option<Image<'_>>, new: bool) {
        let Some(image) = image else { return out.extend_from_slice(b"null") };
        out.push(b'{');
        let start = out.len();
        for (at, field) in self.fields.iter().enumerate() {
            let Some(field) = field else { continue };
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(&field.label);
            write_value(out, &field.form, image.get(at), new);
        }
        out.push(b'}');
    }

    /// Appends the key. Its columns come from the row or, if the row does not have the key's own values, from the
    /// version's `key`.
    pub fn write_key(&self, out: &mut Vec<u8>, key: &str, image: Option<Image<'_>>) {
        out.extend_from_slice(&self.key_head);
        out.push(b'{');
        for (at, part) in self.key.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&part.label);
            match part.column.and_then(|column| image.map(|image| image.get(column))) {
                Some(value) => write_value(out, &part.form, value, false),
                None if self.key.len() == 1 => write_value(out, &part.form, Value::Text(key), false),
                None => {
                    write_value(out, &part.form, text_of(key, at).as_deref().map_or(Value::Null, Value::Text), false)
                }
            }
        }
        out.push(b'}');
        out.extend_from_slice(self.key_tail);
    }
}

/// Returns the text of one element of a key of several columns, which is a JSON array.
fn text_of(key: &str, at: usize) -> Option<String> {
    let parts: Vec<&RawValue> = serde_json::from_str(key).ok()?;
    let part = parts.get(at)?.get();
    Some(serde_json::from_str(part).unwrap_or_else(|_| part.to_owned()))
}

fn label(name: &str) -> Vec<u8> {
    let mut label = Vec::new();
    write_json_string(&mut label, name);
    label.push(b':');
    label
}

/// The schemas of the parts that all tables share: `source`, `transaction`, `op` and times, `message`.
const SOURCE_SCHEMA: &[u8] = br#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},{"type":"int64","optional":false,"field":"ts_ms"},{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},{"type":"string","optional":false,"field":"db"},{"type":"string","optional":true,"field":"sequence"},{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"},{"type":"string","optional":false,"field":"schema"},{"type":"string","optional":false,"field":"table"},{"type":"int64","optional":true,"field":"txId"},{"type":"int64","optional":true,"field":"lsn"},{"type":"int64","optional":true,"field":"xmin"},{"type":"string","optional":true,"field":"origin"},{"type":"int64","optional":true,"field":"origin_lsn"}],"optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"}"#;
const TRANSACTION_SCHEMA: &[u8] = br#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":false,"field":"total_order"},{"type":"int64","optional":false,"field":"data_collection_order"}],"optional":true,"name":"event.block","version":1,"field":"transaction"}"#;
const TIMES_SCHEMA: &[u8] = br#"{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"},{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"}"#;
const MESSAGE_SCHEMA: &[u8] = br#"{"type":"struct","fields":[{"type":"string","optional":true,"field":"prefix"},{"type":"bytes","optional":true,"field":"content"}],"optional":false,"name":"io.debezium.connector.postgresql.Message","version":1,"field":"message"}"#;

fn write_value_schema(out: &mut Vec<u8>, table: &Table, fields: &[Option<Field>], name: &str) {
    out.extend_from_slice(br#"{"schema":{"type":"struct","fields":["#);
    for side in ["before", "after"] {
        out.extend_from_slice(br#"{"type":"struct","fields":["#);
        let start = out.len();
        for (column, field) in table.columns.iter().zip(fields) {
            let Some(field) = field else { continue };
            if out.len() > start {
                out.push(b',');
            }
            let in_key = table.key.iter().any(|part| part.source == column.source);
            field.form.write_schema(out, !in_key, Some(&column.name));
        }
        out.extend_from_slice(br#"],"optional":true,"name":"#);
        write_json_string(out, &format!("{name}.Value"));
        out.extend_from_slice(br#","field":""#);
        out.extend_from_slice(side.as_bytes());
        out.extend_from_slice(b"\"},");
    }
    for part in [SOURCE_SCHEMA, b",", TRANSACTION_SCHEMA, b",", TIMES_SCHEMA, br#"],"optional":false,"name":"#] {
        out.extend_from_slice(part);
    }
    write_json_string(out, &format!("{name}.Envelope"));
    out.extend_from_slice(br#","version":2},"payload":"#);
}

fn write_key_schema(out: &mut Vec<u8>, table: &Table, key: &[KeyField], name: &str) {
    out.extend_from_slice(br#"{"schema":{"type":"struct","fields":["#);
    for (at, (part, field)) in table.key.iter().zip(key).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        field.form.write_schema(out, false, Some(&part.name));
    }
    out.extend_from_slice(br#"],"optional":false,"name":"#);
    write_json_string(out, &format!("{name}.Key"));
    out.extend_from_slice(br#"},"payload":"#);
}

/// Appends the schema of a message about no row.
pub(super) fn write_note_schema(out: &mut Vec<u8>) {
    let head = br#"{"schema":{"type":"struct","fields":[{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"},"#;
    let tail = br#"],"optional":false,"name":"io.debezium.connector.postgresql.MessageValue","version":1},"payload":"#;
    for part in [&head[..], SOURCE_SCHEMA, b",", TRANSACTION_SCHEMA, b",", MESSAGE_SCHEMA, tail] {
        out.extend_from_slice(part);
    }
}
