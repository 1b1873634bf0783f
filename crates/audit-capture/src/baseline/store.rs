//! `cdc_audit.chunks` in the source: which baselines were begun for which sinks, and the bounds of every chunk.
//!
//! A chunk's bounds and its watermark are written by one statement: a sink cannot have a chunk whose bounds are not
//! stored.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use audit_core::baseline::plan::{Begin, StoredBaseline};
use audit_core::baseline::snapshot::Snapshot;
use audit_core::baseline::{Nonce, WATERMARK_PREFIX};
use audit_core::batch::ChunkMark;
use serde::Deserialize;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::BaselineError;
use crate::query::{QueryError, rows};

/// What is stored of a baseline besides what the plan knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// How rows are found; `None` if the baseline was requested but the table has not been examined yet.
    pub kind: Option<Kind>,
    /// See [`super::key::identity`] and [`super::files::identity`].
    pub identity: Vec<String>,
    /// The snapshot at which it began.
    pub snapshot: Option<Snapshot>,
    /// Number of rows in the stored chunks.
    pub rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Key,
    Ctid,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::Ctid => "ctid",
        }
    }
}

/// Where a chunk begins and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub lower: Option<Vec<String>>,
    pub upper: Option<Vec<String>>,
    pub last: bool,
}

/// All baselines of one table, by number.
pub(super) type Baselines = BTreeMap<u32, (StoredBaseline, Description)>;

#[derive(Deserialize)]
struct Row {
    table_name: String,
    baseline: u32,
    kind: Option<Kind>,
    sinks: Option<Vec<String>>,
    identity: Option<Vec<String>>,
    snapshot: Option<String>,
    chunks: u32,
    last: bool,
    rows: u64,
}

/// The store of one source.
pub(super) struct Store<'a> {
    pub client: &'a Client,
    pub source: &'a str,
}

pub(super) fn failed(what: &str, error: tokio_postgres::Error) -> BaselineError {
    classify(QueryError::new(what, error))
}

/// The table may be missing, created by another version, or not granted.
pub(super) fn classify(source: QueryError) -> BaselineError {
    let missing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
    ];
    match source.sqlstate() {
        Some(sqlstate) if missing.contains(sqlstate) => BaselineError::Chunks { source },
        _ => BaselineError::Query(source),
    }
}

impl Store<'_> {
    /// All baselines, by table name.
    pub async fn baselines(&self) -> Result<BTreeMap<String, Baselines>, BaselineError> {
        let sql = include_str!("../sql/baselines.sql");
        let found: Vec<Row> =
            rows(self.client, "read cdc_audit.chunks", sql, &[&self.source]).await.map_err(classify)?;
        let mut tables: BTreeMap<String, Baselines> = BTreeMap::new();
        for row in found {
            let stored = StoredBaseline {
                sinks: row.sinks.unwrap_or_default().into_iter().map(Arc::from).collect(),
                chunks: row.chunks,
                last: row.last,
                by_key: row.kind == Some(Kind::Key),
            };
            let snapshot = row.snapshot.map(|text| text.parse()).transpose()?;
            let identity = row.identity.unwrap_or_default();
            let description = Description { kind: row.kind, identity, snapshot, rows: row.rows };
            tables.entry(row.table_name).or_default().insert(row.baseline, (stored, description));
        }
        Ok(tables)
    }

    /// Stores that a baseline is wanted, or updates one that exists: its description, or further sinks.
    pub async fn begin(&self, table: &str, begin: &Begin, description: &Description) -> Result<(), BaselineError> {
        let sql =
            "INSERT INTO cdc_audit.chunks AS c (source, table_name, baseline, chunk, kind, sinks, identity, snapshot)
                   VALUES ($1, $2, $3, 0, $4, $5, $6, $7)
                   ON CONFLICT (source, table_name, baseline, chunk) DO UPDATE
                   SET kind = excluded.kind, identity = excluded.identity, snapshot = excluded.snapshot,
                       sinks = (SELECT array_agg(DISTINCT name) FROM unnest(c.sinks || excluded.sinks) name)";
        let sinks: Vec<&str> = begin.sinks.iter().map(AsRef::as_ref).collect();
        let kind = description.kind.map(Kind::name);
        let snapshot = description.snapshot.as_ref().map(ToString::to_string);
        let baseline = number(begin.baseline);
        self.client
            .execute(sql, &[&self.source, &table, &baseline, &kind, &sinks, &description.identity, &snapshot])
            .await
            .map_err(|error| failed("store that a baseline begins", error))?;
        Ok(())
    }

    /// Stores that baselines of many tables are wanted, each with its limit; the tables are examined in their turn.
    /// They replace baselines that were requested before and not examined yet.
    pub async fn ask_for(&self, wanted: &[(Arc<str>, Begin, Vec<String>)]) -> Result<(), BaselineError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let sql = "WITH wanted AS (
                       SELECT * FROM jsonb_to_recordset($2)
                           AS w (table_name text, baseline int, sinks text[], identity text[])
                   ), replaced AS (
                       DELETE FROM cdc_audit.chunks c USING wanted w
                       WHERE c.source = $1 AND c.table_name = w.table_name AND c.chunk = 0 AND c.kind IS NULL
                         AND c.baseline < w.baseline
                   )
                   INSERT INTO cdc_audit.chunks (source, table_name, baseline, chunk, sinks, identity)
                   SELECT $1, w.table_name, w.baseline, 0, w.sinks, w.identity FROM wanted w";
        let row = |(table, begin, identity): &(Arc<str>, Begin, Vec<String>)| {
            let sinks: Vec<&str> = begin.sinks.iter().map(AsRef::as_ref).collect();
            serde_json::json!({
                "table_name": table.as_ref(), "baseline": number(begin.baseline), "sinks": sinks, "identity": identity,
            })
        };
        let wanted: serde_json::Value = wanted.iter().map(row).collect();
        let what = "store that baselines are wanted";
        self.client.execute(sql, &[&self.source, &wanted]).await.map_err(|error| failed(what, error))?;
        Ok(())
    }

    /// The tables of which a baseline was requested and not examined yet.
    pub async fn requested(&self) -> Result<HashSet<String>, BaselineError> {
        let sql = "SELECT DISTINCT table_name FROM cdc_audit.chunks WHERE source = $1 AND chunk = 0 AND kind IS NULL";
        let what = "read which baselines are asked for";
        let found = self.client.query(sql, &[&self.source]).await.map_err(|error| failed(what, error))?;
        Ok(found.iter().map(|row| row.get(0)).collect())
    }

    /// Forgets that a baseline was begun for sinks of these names: the sinks are new, and only have the names of
    /// earlier ones.
    pub async fn disown(&self, sinks: &[&str]) -> Result<(), BaselineError> {
        let sql = "WITH chunks AS (
                       UPDATE cdc_audit.chunks c
                       SET sinks = ARRAY(SELECT name FROM unnest(c.sinks) name WHERE name <> ALL ($2))
                       WHERE c.source = $1 AND c.chunk = 0 AND c.sinks && $2
                   ), captured AS (
                       UPDATE cdc_audit.captured c
                       SET streamed = ARRAY(SELECT name FROM unnest(c.streamed) name WHERE name <> ALL ($2))
                       WHERE c.source = $1 AND c.streamed && $2
                   )
                   UPDATE cdc_audit.captured_since c
                   SET sinks = ARRAY(SELECT name FROM unnest(c.sinks) name WHERE name <> ALL ($2))
                   WHERE c.source = $1 AND c.sinks && $2";
        let what = "forget the baselines of other sinks";
        self.client.execute(sql, &[&self.source, &sinks]).await.map_err(|error| failed(what, error))?;
        Ok(())
    }

    pub async fn bounds(&self, table: &str, baseline: u32, chunk: u32) -> Result<Option<Bounds>, BaselineError> {
        let sql = "SELECT lower, upper, coalesce(last, false) FROM cdc_audit.chunks
                   WHERE source = $1 AND table_name = $2 AND baseline = $3 AND chunk = $4";
        let what = "read the bounds of a chunk";
        let found = self
            .client
            .query_opt(sql, &[&self.source, &table, &number(baseline), &number(chunk)])
            .await
            .map_err(|error| failed(what, error))?;
        Ok(found.map(|row| Bounds { lower: row.get(0), upper: row.get(1), last: row.get(2) }))
    }

    /// Stores a chunk's bounds, if none are stored yet, and writes its watermark. Returns false, and writes no
    /// watermark, if other bounds are stored: an earlier attempt whose answer was lost has stored them, and reading the
    /// chunk again must use them.
    pub async fn mark(
        &self,
        mark: &ChunkMark,
        kind: Kind,
        bounds: &Bounds,
        rows: u64,
        nonce: &Nonce,
    ) -> Result<bool, BaselineError> {
        let sql = "WITH bounds AS (
                       INSERT INTO cdc_audit.chunks AS c (source, table_name, baseline, chunk, kind, lower, upper, last, rows)
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                       ON CONFLICT (source, table_name, baseline, chunk) DO UPDATE SET rows = c.rows
                       WHERE c.upper IS NOT DISTINCT FROM excluded.upper AND c.last = excluded.last
                       RETURNING 1
                   )
                   SELECT pg_logical_emit_message(true, $10, $11) FROM bounds";
        let (baseline, chunk) = (number(mark.baseline), number(mark.chunk));
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let written = self
            .client
            .query_opt(
                sql,
                &[
                    &self.source,
                    &mark.table.as_ref(),
                    &baseline,
                    &chunk,
                    &kind.name(),
                    &bounds.lower,
                    &bounds.upper,
                    &bounds.last,
                    &rows,
                    &WATERMARK_PREFIX,
                    &nonce.as_str(),
                ],
            )
            .await
            .map_err(|error| failed("write a watermark", error))?;
        Ok(written.is_some())
    }

    /// Removes the bounds of baselines that every sink has completely: they are raw keys and no longer needed. The fact
    /// that the last chunk is known is kept, so that no sink joins such a baseline.
    pub async fn tidy(&self, whole: &[(Arc<str>, u32)]) -> Result<(), BaselineError> {
        let sql = "WITH whole AS (
                       SELECT c.ctid AS place, c.last
                       FROM cdc_audit.chunks c
                       JOIN jsonb_to_recordset($2) AS w (table_name text, baseline int) USING (table_name, baseline)
                       WHERE c.source = $1 AND c.chunk > 0
                   ), kept AS (
                       UPDATE cdc_audit.chunks c SET lower = NULL, upper = NULL
                       FROM whole w WHERE w.place = c.ctid AND w.last
                   )
                   DELETE FROM cdc_audit.chunks c USING whole w WHERE w.place = c.ctid AND NOT w.last";
        let row = |(table, baseline): &(Arc<str>, u32)| serde_json::json!({ "table_name": table.as_ref(), "baseline": baseline });
        let whole: serde_json::Value = whole.iter().map(row).collect();
        let what = "remove bounds of chunks";
        self.client.execute(sql, &[&self.source, &whole]).await.map_err(|error| failed(what, error))?;
        Ok(())
    }
}

/// A count as PostgreSQL's `int`. No count reaches the numbers at which the two types differ.
pub(super) fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
