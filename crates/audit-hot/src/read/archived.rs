//! The months of the hot tables, and those that left them.

use audit_core::position::Micros;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::row::Time;
use super::{HotReader, ReadError, failed};
use crate::error;
use crate::quote::ident;

/// A month that is in the hot tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The name of the partition in schema `cdc_audit`.
    pub name: String,
    /// The table of versions that it belongs to.
    pub versions_table: String,
    /// The captured table whose versions it holds, if partitions hold one each.
    pub table: Option<String>,
    pub from: Micros,
    /// The end, which is not part of it.
    pub to: Micros,
    /// Size on disk, with indexes.
    pub bytes: u64,
    /// About how many versions it holds, as the server last counted.
    pub estimate: u64,
}

/// How far a partition is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Proved,
    Detached,
    Returned,
    Dropped,
}

/// A partition that was proved, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Archived {
    pub id: i64,
    pub source: String,
    pub versions_table: String,
    pub partition: String,
    #[serde(serialize_with = "text")]
    pub from: Micros,
    /// The end, which is not part of it.
    #[serde(serialize_with = "text")]
    pub to: Micros,
    pub state: State,
    pub versions: u64,
    /// What was compared, and with what result.
    pub proof: Value,
    /// The end of the time of grace, once it is detached.
    #[serde(serialize_with = "text_if_any")]
    pub keep_until: Option<Micros>,
    pub db_user: String,
    pub os_user: String,
}

fn text<S: Serializer>(time: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn text_if_any<S: Serializer>(time: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

impl HotReader {
    /// Counts the versions of each source and captured table in a stretch of time of one table of versions.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn counts(&self, partition: &Partition) -> Result<Vec<(String, String, u64)>, ReadError> {
        let statement = format!(
            "SELECT source, table_name, count(*) FROM cdc_audit.{} WHERE committed_at >= $1 AND committed_at < $2 \
             AND ($3::text IS NULL OR table_name = $3) GROUP BY 1, 2 ORDER BY 1, 2",
            ident(&partition.versions_table)
        );
        let values: [&(dyn ToSql + Sync); 3] = [&Time(partition.from), &Time(partition.to), &partition.table];
        let rows = self.client.query(&statement, &values).await.map_err(failed("counting the versions of a month"))?;
        let count = |row: &Row| row.get::<_, i64>(2).try_into().unwrap_or_default();
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), count(row))).collect())
    }
}

/// What left the hot tables, of one source, oldest first. A database of an earlier release has nothing of the kind.
pub(crate) async fn list(client: &Client, source: &str) -> Result<Vec<Archived>, ReadError> {
    let statement = "SELECT id, source, versions_table, partition, from_time, to_time, state, versions, proof, keep_until, \
        db_user, os_user FROM cdc_audit.archive WHERE source = $1 ORDER BY id";
    match client.query(statement, &[&source]).await {
        Ok(rows) => rows.iter().map(archived).collect(),
        Err(error) if error::is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(failed("reading which months left the hot tables")(error)),
    }
}

fn archived(row: &Row) -> Result<Archived, ReadError> {
    let state = match row.get::<_, &str>(6) {
        "proved" => State::Proved,
        "detached" => State::Detached,
        "returned" => State::Returned,
        "dropped" => State::Dropped,
        other => {
            let what = format!("cdc_audit.archive has a row in state {other}");
            return Err(ReadError::Layout {
                what,
                hint: Some("use the version that wrote it, or a later one".to_owned()),
            });
        }
    };
    Ok(Archived {
        id: row.get(0),
        source: row.get(1),
        versions_table: row.get(2),
        partition: row.get(3),
        from: row.get::<_, Time>(4).0,
        to: row.get::<_, Time>(5).0,
        state,
        versions: row.get::<_, i64>(7).try_into().unwrap_or_default(),
        proof: row.get(8),
        keep_until: row.get::<_, Option<Time>>(9).map(|time| time.0),
        db_user: row.get(10),
        os_user: row.get(11),
    })
}
