//! What versions are read from, and where rows are put back: [`Question`].

use audit_connect::PgEndpoint;
use audit_core::position::Position;
use audit_core::stored::Record;
use audit_history::Timeline;
use audit_history::transaction::{Which, find};
use tokio_postgres::Client;

use crate::error::{CliError, code};

/// The trail, and the operator's session in the source.
pub struct Question {
    pub command: &'static str,
    pub source: String,
    pub store: Timeline,
    pub client: Client,
    pub login: PgEndpoint,
    /// What names this one undo, in the context of its versions.
    pub request_id: String,
    /// What names the server, as long as no other one takes its place.
    pub incarnation: String,
}

impl Question {
    /// All versions of a row, oldest first.
    pub async fn history(&self, table: &str, key: &str) -> Result<Vec<Record>, CliError> {
        let mut records = self.store.history(&self.source, table, key, u32::MAX).await?;
        records.reverse();
        Ok(records)
    }

    /// ⚠ What happened in a gap is not known, so that values from before it may have been changed since.
    pub async fn refuse_gap(&self, tables: impl Iterator<Item = &String>, after: Position) -> Result<(), CliError> {
        for table in tables {
            let marks = self.store.marks(&self.source, table).await?;
            if let Some(mark) = marks.iter().find(|mark| mark.position > after) {
                return Err(CliError::new(format!("changes were lost after this version, at {}", mark.position))
                    .hint("compare the rows with the trail, and correct them by hand".to_owned())
                    .code(code::CONFLICT));
            }
        }
        Ok(())
    }

    /// Whether it is the server of this question, and not another one that took its place.
    pub async fn is_same(&self, client: &Client) -> bool {
        incarnation(client).await.is_ok_and(|now| now == self.incarnation)
    }

    /// All versions of the transactions that are asked for, in order.
    pub async fn transaction(&self, which: Which) -> Result<Vec<Record>, CliError> {
        let tables = self.store.tables(&self.source).await?;
        let mut found = Vec::new();
        for transaction in find(&self.store, &self.source, tables.clone(), which).await? {
            let mut versions = transaction.versions(&self.store, &self.source, tables.clone());
            while let Some(records) = versions.next().await? {
                found.extend(records.into_iter().filter(|record| record.event != "snapshot"));
            }
        }
        Ok(found)
    }

    /// The error for a transaction of which the trail has nothing.
    pub fn has_no_version(&self) -> CliError {
        let head = self.store.head().map_or(Position::default(), |head| head.end());
        CliError::new("the trail has no version of this transaction")
            .hint(format!(
                "it has what was committed before {head}; if the transaction is newer, ask again in a moment"
            ))
            .code(code::NOT_FOUND)
    }
}

/// The server and the timeline of its WAL, which a promotion changes.
pub async fn incarnation(client: &Client) -> Result<String, CliError> {
    let asked = "SELECT concat_ws(' ', (SELECT system_identifier FROM pg_control_system()), \
        left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))";
    Ok(client.query_one(asked, &[]).await?.get(0))
}
