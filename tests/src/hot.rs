//! Reads the hot table back with SQL.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use tokio_postgres::{Client, Row as SqlRow};

use crate::trail::{Row, Version, lsn};
use crate::value::{Text, from_json};

/// The kinds of a table's columns in one of its shapes.
pub type Kinds = HashMap<String, String>;

/// The shapes that the sink has stored: table and `schema_version` to the kinds of the columns.
pub type Shapes = BTreeMap<(String, i32), Kinds>;

/// Reads all versions of this source in the order of their positions, from all tables of versions.
pub async fn trail(client: &Client, source: &str) -> Vec<Version> {
    let shapes = shapes(client, source).await;
    let names = "SELECT 'versions' UNION SELECT quote_ident(name) FROM cdc_audit.versions_tables";
    let mut all = Vec::new();
    for name in client.query(names, &[]).await.expect("the tables of versions") {
        all.extend(trail_in(client, source, name.get(0), &shapes).await);
    }
    all.sort_by(|a, b| a.position.cmp(&b.position));
    all
}

async fn trail_in(client: &Client, source: &str, name: &str, shapes: &Shapes) -> Vec<Version> {
    let sql = "SELECT source, position, table_name, item_type, key, old_key, event, changes::text, before::text, \
               after::text, changed, before_known, coalesce(unknown, '{}'), included::text, actor_id, actor::text, \
               reason, context::text, actor_source, context_verified, xid, commit_lsn::text, lsn::text, seq, \
               (extract(epoch FROM committed_at) * 1000000)::bigint, schema_version, baseline, tenant \
               FROM cdc_audit.? WHERE source = $1 ORDER BY position COLLATE \"C\"";
    let rows = client.query(&sql.replace('?', name), &[&source]).await.expect("the hot table is read");
    rows.iter().map(|row| version(row, shapes)).collect()
}

/// Reads the LSN before which everything that committed is in the hot table, according to its checkpoint. 0 before the
/// first checkpoint.
pub async fn flushed(client: &Client, source: &str) -> u64 {
    let sql = "SELECT flushed_lsn::text FROM cdc_audit.checkpoints WHERE source = $1";
    let row = client.query_opt(sql, &[&source]).await.expect("the checkpoint is read");
    row.and_then(|row| row.get::<_, Option<String>>(0)).map_or(0, |text| lsn(&text))
}

pub async fn shapes(client: &Client, source: &str) -> Shapes {
    let sql = "SELECT table_name, schema_version, c ->> 'name', c ->> 'kind' \
               FROM cdc_audit.shapes, jsonb_array_elements(shape -> 'columns') AS c WHERE source = $1";
    let mut shapes = Shapes::new();
    for row in client.query(sql, &[&source]).await.expect("the shapes are read") {
        shapes.entry((row.get(0), row.get(1))).or_default().insert(row.get(2), row.get(3));
    }
    shapes
}

fn version(row: &SqlRow, shapes: &Shapes) -> Version {
    let none = Kinds::new();
    let (table, schema_version): (String, i32) = (row.get(2), row.get(25));
    let kinds = shapes.get(&(table.clone(), schema_version)).unwrap_or(&none);
    let json = |at: usize| row.get::<_, Option<&str>>(at);
    let document = |at: usize| json(at).map(|text| serde_json::from_str(text).expect("jsonb"));
    let (event, before_known): (String, bool) = (row.get(6), row.get(11));
    let mut before = json(8).map(|text| image(text, kinds));
    if event == "deleted" && !before_known {
        // Only the key is known, and no part of a key is NULL.
        before.iter_mut().for_each(|row| row.retain(|_, value| value.is_some()));
    }
    Version {
        source: row.get(0),
        position: row.get(1),
        item_type: row.get(3),
        key: row.get(4),
        old_key: row.get(5),
        changes: json(7).map(|text| changes(text, kinds)),
        before,
        after: json(9).map(|text| image(text, kinds)),
        changed: row.get(10),
        before_known,
        unknown: row.get(12),
        included: json(13).map(|text| image(text, kinds)),
        actor_id: row.get(14),
        actor: document(15),
        reason: row.get(16),
        context: document(17),
        actor_source: row.get(18),
        context_verified: row.get(19),
        xid: row.get(20),
        commit_lsn: lsn(row.get(21)),
        lsn: lsn(row.get(22)),
        seq: row.get(23),
        committed_at: row.get(24),
        schema_version,
        baseline: row.get(26),
        tenant: row.get(27),
        table,
        event,
    }
}

/// Parses an object of columns.
pub(crate) fn image(json: &str, kinds: &Kinds) -> Row {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).expect("an object");
    let read = |(column, value): (String, &RawValue)| {
        let value = from_json(value, kind(kinds, &column));
        (column, value)
    };
    fields.into_iter().map(read).collect()
}

/// Parses `{"column": [old, new]}`.
pub(crate) fn changes(json: &str, kinds: &Kinds) -> BTreeMap<String, (Text, Text)> {
    let fields: BTreeMap<String, [&RawValue; 2]> = serde_json::from_str(json).expect("an object of pairs");
    let read = |(column, [old, new]): (String, [&RawValue; 2])| {
        let kind = kind(kinds, &column);
        let pair = (from_json(old, kind), from_json(new, kind));
        (column, pair)
    };
    fields.into_iter().map(read).collect()
}

pub(crate) fn kind<'k>(kinds: &'k Kinds, column: &str) -> &'k str {
    kinds.get(column).map_or("text", String::as_str)
}
