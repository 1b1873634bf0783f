//! Why a table cannot be read: [`BaselineError`].

use audit_connect::{ConnectError, Outcome};
use audit_core::baseline::rows::CopyError;
use audit_core::position::ParseError;
use tokio_postgres::error::SqlState;

use crate::query::QueryError;
use crate::replication::memory_needed;

/// A baseline cannot continue. It never stops capture: what may pass by itself is tried again, and what a person must
/// act on is shown until that is done.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the daemon's role may not read {relation}")]
    Denied { relation: String, source: QueryError },
    #[error("row-level security would hide rows of {relation} from the daemon's role")]
    RowSecurity { relation: String, source: QueryError },
    #[error("chunk {chunk} of {relation} has a row of {bytes} bytes, and the memory limit allows {limit} for one row")]
    RowTooLarge { relation: String, chunk: u32, bytes: u64, limit: u64 },
    #[error("chunk {chunk} of {relation} has a row that cannot be recorded: {why}")]
    RowRefused { relation: String, chunk: u32, why: String },
    #[error("table {table} is not published, so nothing of it is captured")]
    NotPublished { table: String },
    #[error("the rules want no baseline of table {table}")]
    NotWanted { table: String },
    #[error("the rows of {relation} cannot be understood")]
    Copy { relation: String, source: CopyError },
    #[error("the tables of schema cdc_audit do not hold what this program keeps there")]
    Chunks { source: QueryError },
    #[error("the server's snapshot is not understood")]
    Snapshot(#[from] ParseError),
    /// The stage no longer accepts chunks, because the stream has ended.
    #[error("the stream has ended")]
    StreamEnded,
}

impl BaselineError {
    /// The error for a failed statement that reads `relation`, which is quoted as in SQL.
    pub(super) fn reading(relation: &str, error: tokio_postgres::Error) -> BaselineError {
        let refused = error.as_db_error().filter(|error| *error.code() == SqlState::INSUFFICIENT_PRIVILEGE);
        // One SQLSTATE stands for two causes; the name of the function tells them apart in every language of the
        // server.
        let by_policy = refused.is_some_and(|error| error.routine() == Some("check_enable_rls"));
        let denied = refused.is_some();
        let relation = relation.to_owned();
        let source = QueryError::new(format!("read {relation}"), error);
        match (by_policy, denied) {
            (true, _) => BaselineError::RowSecurity { relation, source },
            (false, true) => BaselineError::Denied { relation, source },
            (false, false) => BaselineError::Query(source),
        }
    }

    pub fn outcome(&self) -> Outcome {
        match self {
            BaselineError::Connect(error) => error.outcome(),
            BaselineError::Query(error) => error.outcome(),
            BaselineError::Chunks { source } => source.outcome(),
            BaselineError::Denied { .. }
            | BaselineError::RowSecurity { .. }
            | BaselineError::RowTooLarge { .. }
            | BaselineError::RowRefused { .. }
            | BaselineError::NotPublished { .. }
            | BaselineError::NotWanted { .. } => Outcome::Fix,
            BaselineError::Copy { .. } | BaselineError::Snapshot(_) => Outcome::Bug,
            BaselineError::StreamEnded => Outcome::Retry,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            BaselineError::Connect(error) => return error.hint(),
            BaselineError::Query(error) => return error.hint().map(str::to_owned),
            BaselineError::Denied { relation, .. } => {
                format!("GRANT SELECT ON {relation} to the role in source.url, or set baseline = false for the table")
            }
            BaselineError::RowSecurity { .. } => {
                "ALTER ROLE … BYPASSRLS for the role in source.url, or set baseline = false for the table".to_owned()
            }
            BaselineError::RowTooLarge { bytes, .. } => format!(
                "raise pipeline.memory_limit to at least {} MiB (64 MiB and four times the row), or set baseline = false for the table",
                memory_needed(*bytes).div_ceil(1 << 20)
            ),
            BaselineError::NotPublished { .. } => {
                "give its schema too, as in public.orders; `cdc-audit check` names the tables that are not published, \
                 `cdc-audit setup` publishes them"
                    .to_owned()
            }
            BaselineError::NotWanted { .. } => {
                "take `capture = false` or `baseline = false` out of the rules in [[tables]] that match it".to_owned()
            }
            BaselineError::RowRefused { .. } => {
                "correct the value in the table, or the rule for its column, and the chunk is read again by itself; or set \
                 baseline = false for the table"
                    .to_owned()
            }
            BaselineError::Chunks { .. } => {
                "run `cdc-audit setup`, which creates them and grants them to the daemon".to_owned()
            }
            BaselineError::Copy { .. } | BaselineError::Snapshot(_) => {
                "please report this as a bug, with the server's version".to_owned()
            }
            BaselineError::StreamEnded => return None,
        })
    }
}
