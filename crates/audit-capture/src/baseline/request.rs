//! Requesting a baseline by hand: [`request`].

use audit_core::rules::Rules;
use tokio_postgres::Client;

use super::error::BaselineError;
use super::listed::{self, Listed};
use super::store::failed;
use crate::former_names;

/// The baseline that was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    pub table: String,
    pub baseline: u32,
    /// Whether it had already been requested before.
    pub before: bool,
}

/// Stores that a baseline of a table is wanted for all `sinks` that the rules send it to. The daemon reads the request
/// at its next look at the source, or at its next start.
///
/// # Errors
/// Fails also if the daemon would not read the table: [`BaselineError::NotPublished`], [`BaselineError::NotWanted`].
pub async fn request(
    client: &Client,
    source: &str,
    publication: &str,
    rules: &Rules,
    sinks: &[&str],
    table: &str,
) -> Result<Requested, BaselineError> {
    let listed = listed::list(client, publication, None, None).await?;
    let found = find(&listed, table).ok_or_else(|| BaselineError::NotPublished { table: table.to_owned() })?;
    let names = former_names::known(client, source).await?;
    let (table, rules) = (found.name().to_string(), names.rules_now(rules, &found.name(), found.oid));
    if !rules.wants_baseline() {
        return Err(BaselineError::NotWanted { table });
    }
    let sinks: Vec<&str> = sinks.iter().copied().filter(|sink| rules.goes_to(sink)).collect();
    let what = "store that a baseline is wanted";
    let asked = "SELECT max(baseline) FROM cdc_audit.chunks WHERE source = $1 AND table_name = $2 AND chunk = 0 AND kind IS NULL";
    let asked = client.query_one(asked, &[&source, &table]).await.map_err(|error| failed(what, error))?;
    if let Some(baseline) = asked.get::<_, Option<i32>>(0) {
        return Ok(Requested { table, baseline: baseline.unsigned_abs(), before: true });
    }
    let sql = "INSERT INTO cdc_audit.chunks (source, table_name, baseline, chunk, sinks)
               SELECT $1, $2, 1 + greatest(
                   (SELECT coalesce(max(baseline), 0) FROM cdc_audit.chunks WHERE source = $1 AND table_name = $2),
                   (SELECT coalesce(max(baseline), 0) FROM cdc_audit.captured WHERE source = $1 AND table_name = $2)
               ), 0, $3
               RETURNING baseline";
    let row = client.query_one(sql, &[&source, &table, &sinks]).await.map_err(|error| failed(what, error))?;
    Ok(Requested { table, baseline: row.get::<_, i32>(0).unsigned_abs(), before: false })
}

/// Finds the table by its full name, or without its schema if only one table has that name.
fn find<'l>(listed: &'l [Listed], table: &str) -> Option<&'l Listed> {
    let exact = listed.iter().find(|listed| listed.name().to_string() == table);
    let mut same = listed.iter().filter(|listed| listed.table == table);
    exact.or_else(|| same.next().filter(|_| same.next().is_none()))
}
