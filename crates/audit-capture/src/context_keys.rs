//! The keys that `cdc_audit.set_context` signs with.

use audit_core::context::{ContextKey, ContextKeys};
use audit_core::position::Lsn;
use tokio_postgres::{Client, Row};

use crate::query::{QueryError, row};

/// The keys that are valid now. There are none if `setup` has not made them or this session's role may not read them:
/// then no context can be verified, which is no reason not to capture.
///
/// # Errors
/// Returns a [`QueryError`] if the server cannot be asked; missing keys or rights are not an error.
pub async fn read(client: &Client) -> Result<ContextKeys, QueryError> {
    const WHAT: &str = "read the keys of contexts";
    // The LSN is read in a statement of its own, before the keys, because a snapshot is taken before the functions of
    // its statement are called.
    let lsn = "SELECT to_jsonb(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)";
    let as_of: Lsn = row::<String>(client, WHAT, lsn, &[]).await?.parse().unwrap_or_default();
    // `to_regclass` fails for a role that may not use the schema.
    let may = "SELECT to_jsonb(EXISTS (
                   SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'cdc_audit' AND c.relname = 'context_keys'
                     AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')))";
    if !row::<bool>(client, WHAT, may, &[]).await? {
        return Ok(ContextKeys { keys: Vec::new(), as_of });
    }
    let sql = "SELECT id, inner_pad FROM cdc_audit.context_keys";
    let rows = client.query(sql, &[]).await.map_err(|error| QueryError::new(WHAT, error))?;
    let key = |row: &Row| ContextKey::new(row.get::<_, i32>(0).cast_unsigned(), row.get(1));
    Ok(ContextKeys { keys: rows.iter().filter_map(key).collect(), as_of })
}
