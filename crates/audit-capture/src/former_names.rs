//! `cdc_audit.captured_names` in the source: what captured tables were called before, and of which tables partitions were part. An oid tells that
//! it is the same object; the catalog forgets both.

use audit_core::position::Lsn;
use audit_core::rules::{Called, FormerNames};
use audit_core::shape::TableName;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::published::with_published;
use crate::query::{QueryError, row, rows};

#[derive(Deserialize)]
struct Row {
    oid: u32,
    schema: String,
    table: String,
    seen: String,
}

impl Row {
    fn called(self) -> Called {
        // Whatever is no position is before every other: the name counts.
        (self.oid, TableName::new(self.schema, self.table), self.seen.parse().unwrap_or(Lsn::ZERO))
    }
}

/// What is stored. `None` where `setup` has not made the table, or this session's role may not read it.
pub async fn read(client: &Client, source: &str) -> Result<Option<Vec<Called>>, QueryError> {
    const WHAT: &str = "read cdc_audit.captured_names";
    // `to_regclass` fails for a role that may not use the schema.
    let may = "SELECT to_jsonb(EXISTS (
                   SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'cdc_audit' AND c.relname = 'captured_names'
                     AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')))";
    if !row::<bool>(client, WHAT, may, &[]).await? {
        return Ok(None);
    }
    // ⚠ pg_upgrade keeps every oid and gives the server another identifier. That an object still has one of its names
    // shows that it is the same; `store` then stores its names under the new identifier.
    let sql = "SELECT jsonb_build_object('oid', n.oid, 'schema', n.schema_name, 'table', n.table_name,
                   'seen', CASE WHEN n.system_id = s.system_identifier::text THEN n.seen::text ELSE '0/0' END)
               FROM cdc_audit.captured_names n, pg_control_system() s
               WHERE n.source = $1 AND (n.system_id = s.system_identifier::text OR EXISTS (
                   SELECT FROM cdc_audit.captured_names own
                   JOIN pg_class c ON c.oid::bigint = own.oid
                   JOIN pg_namespace m ON m.oid = c.relnamespace
                   WHERE own.source = n.source AND own.system_id = n.system_id AND own.oid = n.oid
                     AND own.schema_name = m.nspname::text AND own.table_name = c.relname::text))
               ORDER BY n.seen";
    let found: Vec<Row> = rows(client, WHAT, sql, &[&source]).await?;
    Ok(Some(found.into_iter().map(Row::called).collect()))
}

/// The same as the program holds it.
pub async fn known(client: &Client, source: &str) -> Result<FormerNames, QueryError> {
    let names = FormerNames::default();
    names.stored(read(client, source).await?.unwrap_or_default());
    Ok(names)
}

/// Stores the names of now, and what the stream has shown, as far as that is new.
pub(crate) async fn store(
    client: &Client,
    source: &str,
    publication: &str,
    names: &FormerNames,
) -> Result<(), QueryError> {
    const WHAT: &str = "store names in cdc_audit.captured_names";
    // ⚠ Before the names are read: where a table gets another name right after that, this one counts as a former one from there on.
    let lsn = "SELECT to_jsonb(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)";
    let now: String = row(client, WHAT, lsn, &[]).await?;
    let unstored = names.unstored();
    let object = |(oid, name, seen): &Called| serde_json::json!({ "oid": oid, "schema": name.schema, "table": name.table, "seen": seen.to_string() });
    let streamed: serde_json::Value = unstored.iter().map(object).collect();
    let sql = with_published(client, include_str!("sql/former_names.sql")).await?;
    let new: Vec<Row> = rows(client, WHAT, &sql, &[&publication, &source, &streamed, &now]).await?;
    names.stored(new.into_iter().map(Row::called).chain(unstored));
    Ok(())
}
