//! What versions are read from, and where rows are put back: [`Question`].

use audit_connect::PgEndpoint;
use audit_core::position::Position;
use audit_core::stored::Record;
use audit_history::Timeline;
use tokio_postgres::Client;

use crate::error::{CliError, code};

/// The trail, and the operator's session in the source.
pub struct Question {
    pub command: &'static str,
    pub source: String,
    pub store: Timeline,
    pub client: Client,
    pub login: PgEndpoint,
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
