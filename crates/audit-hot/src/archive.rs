//! Takes old months out of the hot tables, by the functions that `setup` made for it: [`Archive`].
//!
//! A month of a table of versions is a partition. It is *proved* when a lake was found to have each of its versions,
//! *detached* when readers no longer see it in the hot tables, and *dropped* after a time of grace. Until then it can be
//! *returned*. Each step is one transaction, so a process that is killed leaves a partition in one of these states.

use std::time::Duration;

use audit_connect::{PgEndpoint, connect};
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::read::{Archived, Partition, ReadError, Time, failed, list};

/// A session whose role may execute the functions.
pub struct Archive {
    client: Client,
}

/// Number of attempts to take a lock, and the pause after each. Every attempt gives up after a tenth of a second, so
/// that readers and writers hardly notice it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(400);

impl Archive {
    /// Opens a session.
    ///
    /// # Errors
    /// Fails if the database cannot be reached, or if `setup` has not made the functions.
    pub async fn connect(endpoint: &PgEndpoint) -> Result<Archive, ReadError> {
        let client = connect(endpoint, "cdc-audit archive").await.map_err(ReadError::Connect)?;
        let archive = Archive { client };
        let made = "SELECT to_regclass('cdc_audit.archive') IS NOT NULL";
        let made = archive.client.query_one(made, &[]).await.map_err(failed("looking for cdc_audit.archive"))?;
        if !made.get::<_, bool>(0) {
            return Err(ReadError::Layout {
                what: "the hot database has no table cdc_audit.archive".to_owned(),
                hint: Some("run `cdc-audit setup` of this version: it adds the table and its functions".to_owned()),
            });
        }
        Ok(archive)
    }

    /// The months that are in the hot tables, oldest first.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn partitions(&self) -> Result<Vec<Partition>, ReadError> {
        let rows = self.client.query(include_str!("archive/partitions.sql"), &[]).await;
        let rows = rows.map_err(failed("reading which months there are"))?;
        Ok(rows.iter().map(partition).collect())
    }

    /// What was proved, oldest first, of one source.
    ///
    /// # Errors
    /// Fails if the database cannot be read.
    pub async fn list(&self, source: &str) -> Result<Vec<Archived>, ReadError> {
        list(&self.client, source).await
    }

    /// Notes that a lake has each of the partition's versions, of which there are this many, and returns the number of
    /// the note.
    ///
    /// # Errors
    /// Fails if the month is not over, or if the partition holds another number of versions by now.
    pub async fn prove(
        &self,
        source: &str,
        partition: &str,
        versions: u64,
        proof: &Value,
        user: &str,
    ) -> Result<i64, ReadError> {
        let versions = i64::try_from(versions).unwrap_or(i64::MAX);
        let statement = "SELECT cdc_audit.archive_prove($1, $2, $3, $4, $5)";
        let values: [&(dyn ToSql + Sync); 5] = [&source, &partition, &versions, proof, &user];
        let row = self
            .client
            .query_one(statement, &values)
            .await
            .map_err(|error| refused("noting what was proved", error))?;
        Ok(row.get(0))
    }

    /// Takes a partition that was proved out of its table.
    ///
    /// # Errors
    /// Fails if readers and writers leave no moment for it, or if it was not proved.
    pub async fn detach(&self, id: i64) -> Result<(), ReadError> {
        self.patiently("detaching a partition", "SELECT cdc_audit.archive_detach($1)", id).await
    }

    /// Puts a detached partition back.
    ///
    /// # Errors
    /// Fails if readers and writers leave no moment for it, or if it is not detached.
    pub async fn attach(&self, id: i64) -> Result<(), ReadError> {
        self.patiently("attaching a partition again", "SELECT cdc_audit.archive_attach($1)", id).await
    }

    /// Drops a detached partition.
    ///
    /// # Errors
    /// Fails before the end of the time of grace, or if the partition does not hold what was proved.
    pub async fn drop(&self, id: i64) -> Result<(), ReadError> {
        self.patiently("dropping a partition", "SELECT cdc_audit.archive_drop($1)", id).await
    }

    /// Executes a function that gives up when it does not get its locks at once.
    async fn patiently(&self, doing: &'static str, statement: &str, id: i64) -> Result<(), ReadError> {
        let mut tries = 1;
        loop {
            match self.client.execute(statement, &[&id]).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < TRIES => tries += 1,
                Err(error) => return Err(refused(doing, error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Names what our own functions refuse; their messages hold no values of rows.
fn refused(doing: &'static str, error: tokio_postgres::Error) -> ReadError {
    match error.as_db_error() {
        Some(server) if server.code() == &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => ReadError::Layout {
            what: format!("{doing} is refused: {}", server.message()),
            hint: server.hint().map(str::to_owned),
        },
        Some(server) if server.code() == &SqlState::LOCK_NOT_AVAILABLE => ReadError::Layout {
            what: format!("{doing}: the table was locked each time that it was tried"),
            hint: Some("run it again when no long report reads the hot tables".to_owned()),
        },
        _ => failed(doing)(error),
    }
}

fn partition(row: &Row) -> Partition {
    let count = |column: usize| row.get::<_, i64>(column).try_into().unwrap_or_default();
    let time = |column: usize| row.get::<_, Time>(column).0;
    Partition {
        name: row.get(0),
        versions_table: row.get(1),
        table: row.get(2),
        from: time(3),
        to: time(4),
        bytes: count(5),
        estimate: count(6),
    }
}
