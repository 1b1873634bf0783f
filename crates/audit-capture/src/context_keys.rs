//! The keys that `cdc_audit.set_context` signs with.

use audit_core::context::ContextKey;
use tokio_postgres::Client;

use crate::query::{QueryError, row};

/// The keys that are valid now. None where `setup` has not made them, or this session's role may not read them: then no context can be
/// verified, which is no reason not to capture.
pub async fn read(client: &Client) -> Result<Vec<ContextKey>, QueryError> {
    const WHAT: &str = "read the keys of contexts";
    let may = "SELECT to_jsonb(coalesce(has_table_privilege(to_regclass('cdc_audit.context_keys'), 'SELECT'), false))";
    if !row::<bool>(client, WHAT, may, &[]).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT id, inner_pad FROM cdc_audit.context_keys";
    let rows = client.query(sql, &[]).await.map_err(|error| QueryError::new(WHAT, error))?;
    Ok(rows.iter().filter_map(|row| ContextKey::new(row.get::<_, i32>(0).cast_unsigned(), row.get(1))).collect())
}
