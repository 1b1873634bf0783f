//! `cdc_audit.captured` and `cdc_audit.captured_since` in the source: which objects were captured under which names,
//! and from which point on everything that is published is accounted for. See [`super::listed`] for what follows from
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::error::BaselineError;
use super::listed::{Listed, Publishes};
use super::store::{Store, classify, failed, number};
use crate::query::rows;

/// A table as it was captured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Captured {
    pub oid: u32,
    pub by: BTreeSet<String>,
    /// Sinks that had every row through the stream, and so need no baseline with a number up to `baseline`.
    pub streamed: BTreeSet<Arc<str>>,
    pub baseline: u32,
}

impl Captured {
    /// Whether the table is the same object and was published without a break: at least one entry that publishes it is
    /// the same as before.
    pub fn goes_on(&self, listed: &Listed) -> bool {
        self.oid == listed.oid && !self.by.is_disjoint(&listed.by)
    }
}

/// A point in the history of the source at which every published table had its record, and every partition had been
/// seen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Since {
    /// All transactions below this number had ended when the tables were listed. Links and schemas are compared with
    /// it: an older one was in that list.
    pub settled: i64,
    /// A transaction that began after the publication and the rules had been read. Tables are compared with it: all
    /// rows in a younger table came later.
    pub xid: i64,
    pub publication: String,
    pub by: BTreeSet<String>,
    pub rules: String,
    pub sinks: BTreeSet<Arc<str>>,
}

/// Number of transactions after which the point is moved even if nothing else has changed, because numbers are compared
/// modulo 2^32.
const AGE_MAX: i64 = 1 << 20;

impl Since {
    /// Whether the publication and the rules are those of that point.
    pub fn holds(&self, publishes: &Publishes, rules: &str) -> bool {
        self.publication == publishes.version && self.rules == rules && publishes.operations.contains("insert")
    }

    /// Whether the point has to be moved to a present in which everything is accounted for.
    pub fn is_outdated(&self, settled: i64, publishes: &Publishes, rules: &str, sinks: &BTreeSet<Arc<str>>) -> bool {
        !self.holds(publishes, rules)
            || self.by != publishes.by
            || !sinks.is_subset(&self.sinks)
            || settled.saturating_sub(self.settled) > AGE_MAX
    }

    /// The sinks whose stream has had every row of a table.
    pub fn gave(&self, listed: &Listed) -> BTreeSet<Arc<str>> {
        if listed.born && !self.by.is_disjoint(&listed.by) { self.sinks.clone() } else { BTreeSet::new() }
    }
}

#[derive(Deserialize)]
struct Row {
    table_name: String,
    #[serde(flatten)]
    captured: Captured,
}

impl Store<'_> {
    /// All records, by table name.
    pub async fn captured(&self) -> Result<BTreeMap<Arc<str>, Captured>, BaselineError> {
        let sql = "SELECT to_jsonb(c) FROM cdc_audit.captured c WHERE source = $1";
        let found: Vec<Row> =
            rows(self.client, "read cdc_audit.captured", sql, &[&self.source]).await.map_err(classify)?;
        Ok(found.into_iter().map(|row| (Arc::from(row.table_name), row.captured)).collect())
    }

    pub async fn store_captured(&self, tables: &[(Arc<str>, Captured)]) -> Result<(), BaselineError> {
        if tables.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO cdc_audit.captured (source, table_name, oid, by, streamed, baseline)
                   SELECT $1, t.* FROM jsonb_to_recordset($2)
                       AS t (table_name text, oid bigint, by text[], streamed text[], baseline int)
                   ON CONFLICT (source, table_name) DO UPDATE
                   SET oid = excluded.oid, by = excluded.by, streamed = excluded.streamed, baseline = excluded.baseline";
        let row = |(table, captured): &(Arc<str>, Captured)| {
            let streamed: Vec<&str> = captured.streamed.iter().map(AsRef::as_ref).collect();
            serde_json::json!({
                "table_name": table.as_ref(), "oid": captured.oid, "by": captured.by, "streamed": streamed,
                "baseline": number(captured.baseline),
            })
        };
        let tables: serde_json::Value = tables.iter().map(row).collect();
        let what = "store what is captured";
        self.client.execute(sql, &[&self.source, &tables]).await.map_err(|error| failed(what, error))?;
        Ok(())
    }

    pub async fn since(&self) -> Result<Option<Since>, BaselineError> {
        let sql = "SELECT to_jsonb(s) FROM cdc_audit.captured_since s WHERE source = $1";
        let what = "read cdc_audit.captured_since";
        Ok(rows(self.client, what, sql, &[&self.source]).await.map_err(classify)?.pop())
    }

    /// Moves the point to now. `settled` is the xmin of a snapshot from before the tables were listed.
    pub async fn store_since(
        &self,
        settled: i64,
        publishes: &Publishes,
        rules: &str,
        sinks: &BTreeSet<Arc<str>>,
    ) -> Result<Since, BaselineError> {
        let sql = "INSERT INTO cdc_audit.captured_since (source, settled, xid, publication, by, rules, sinks)
                   VALUES ($1, $2, pg_current_xact_id()::text::bigint, $3, $4, $5, $6)
                   ON CONFLICT (source) DO UPDATE
                   SET settled = excluded.settled, xid = excluded.xid, publication = excluded.publication, by = excluded.by,
                       rules = excluded.rules, sinks = excluded.sinks
                   RETURNING xid";
        let by: Vec<&String> = publishes.by.iter().collect();
        let names: Vec<&str> = sinks.iter().map(AsRef::as_ref).collect();
        let row = self
            .client
            .query_one(sql, &[&self.source, &settled, &publishes.version, &by, &rules, &names])
            .await
            .map_err(|error| failed("store since when everything is captured", error))?;
        let (publication, by, rules) = (publishes.version.clone(), publishes.by.clone(), rules.to_owned());
        Ok(Since { settled, xid: row.get(0), publication, by, rules, sinks: sinks.clone() })
    }

    /// Forgets the point because the stream does not continue from there: nothing that was created since is known to be
    /// in it.
    pub async fn forget_since(&self) -> Result<(), BaselineError> {
        let sql = "DELETE FROM cdc_audit.captured_since WHERE source = $1";
        let what = "forget since when everything is captured";
        self.client.execute(sql, &[&self.source]).await.map_err(|error| failed(what, error))?;
        Ok(())
    }
}
