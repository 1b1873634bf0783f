//! Reads the source's tables as they are now.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::decoded::{Name, OUTPUT};
use crate::trail::Row;

/// A table's rows in the server's own text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The primary key's columns in key order; empty if there is none.
    pub key: Vec<String>,
    /// Stored generated columns, which are not replicated before PostgreSQL 18.
    pub generated: Vec<String>,
    pub rows: Vec<Row>,
}

/// Reads all tables except partitions and those of the server and the program, by name as the record writes it.
pub async fn read(client: &Client) -> BTreeMap<String, Table> {
    client.batch_execute(OUTPUT).await.expect("settings of the session");
    // Read all tables in one snapshot.
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.expect("a transaction");
    let sql = "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind = 'p', \
               coalesce((SELECT array_agg(a.attname::text ORDER BY k.at) FROM pg_index i, \
                         unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, at), pg_attribute a \
                         WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.number), '{}'), \
               coalesce((SELECT array_agg(a.attname::text) FROM pg_attribute a \
                         WHERE a.attrelid = c.oid AND a.attgenerated <> ''), '{}') \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
               AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'cdc_audit')";
    let mut tables = BTreeMap::new();
    for found in client.query(sql, &[]).await.expect("the list of tables") {
        let name = Name { schema: found.get(0), table: found.get(1) };
        let only = if found.get(3) { "" } else { "ONLY " };
        let rows = rows(client, &format!("{only}{}", found.get::<_, String>(2))).await;
        tables.insert(name.to_string(), Table { key: found.get(4), generated: found.get(5), rows });
    }
    client.batch_execute("COMMIT").await.expect("the transaction ends");
    tables
}

async fn rows(client: &Client, table: &str) -> Vec<Row> {
    let messages = client.simple_query(&format!("SELECT * FROM {table}")).await.expect("a table is read");
    let mut rows = Vec::new();
    for message in messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let names = row.columns().iter().map(|column| column.name().to_owned());
        rows.push(names.enumerate().map(|(at, name)| (name, row.get(at).map(str::to_owned))).collect());
    }
    rows
}
