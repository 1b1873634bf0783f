//! Queries to a PostgreSQL server over an ordinary session: [`rows`], and their error: [`QueryError`].
//!
//! Results are JSON objects, one for each row, and are read by name. So one statement serves five major versions: a
//! column that an older one does not have is an absent key, not an error.

use audit_connect::{Outcome, ServerError, outcome_of};
use serde::de::DeserializeOwned;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// A statement that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct QueryError {
    /// What the statement was for, as in "read the state of the replication slot".
    pub what: String,
    outcome: Outcome,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Server(ServerError),
    #[error("the session with the server was lost")]
    Lost(#[source] tokio_postgres::Error),
    #[error("the server's answer is not understood")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl QueryError {
    pub fn new(what: impl Into<String>, error: tokio_postgres::Error) -> QueryError {
        let outcome = outcome_of(&error);
        let source = match error.as_db_error() {
            Some(refused) => Cause::Server(ServerError::from(refused)),
            None if outcome == Outcome::Retry => Cause::Lost(error),
            None => Cause::Answer(Box::new(error)),
        };
        QueryError { what: what.into(), outcome, source }
    }

    /// The error of a statement that cannot contain any value of a row, so the server's message is shown as it is.
    pub fn of_statement(what: impl Into<String>, error: tokio_postgres::Error) -> QueryError {
        let whole = error.as_db_error().map(ServerError::whole);
        let plain = QueryError::new(what, error);
        QueryError { source: whole.map_or(plain.source, Cause::Server), ..plain }
    }

    fn answer(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QueryError {
        QueryError { what: what.to_owned(), outcome: Outcome::Bug, source: Cause::Answer(error.into()) }
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The server's SQLSTATE, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match &self.source {
            Cause::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }

    /// Whether the requested object does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        self.sqlstate() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.sqlstate()?.code() {
            // The `setup` of an earlier release did not create it.
            "42P01" | "42703" | "3F000" if self.what.contains("cdc_audit.") => {
                "run `cdc-audit setup`: it makes what is missing in schema cdc_audit"
            }
            "42501" => {
                "run `cdc-audit setup --as URL` with a role that owns the tables; `--dry-run` prints every statement"
            }
            "55P03" => "a long transaction uses the table: try again when it has ended",
            "53400" => "raise max_replication_slots, or drop a slot that nobody needs, and restart the server",
            "55000" => "`cdc-audit check` names the settings that capture needs",
            "55006" => "stop the daemon that uses it, then try again",
            "25006" => "the server is read-only: connect to the primary",
            _ => return None,
        })
    }
}

/// The rows of a statement that returns JSON objects in its only column.
pub(crate) async fn rows<T: DeserializeOwned>(
    client: &Client,
    what: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<T>, QueryError> {
    let rows = client.query(sql, parameters).await.map_err(|error| QueryError::new(what, error))?;
    let read = |row: &tokio_postgres::Row| {
        let json: serde_json::Value = row.try_get(0).map_err(|error| QueryError::new(what, error))?;
        // Messages of serde_json quote what they cannot parse. Here that is text from the catalog, never a row.
        serde_json::from_value(json).map_err(|error| QueryError::answer(what, error))
    };
    rows.iter().map(read).collect()
}

/// The only row of such a statement.
pub(crate) async fn row<T: DeserializeOwned>(
    client: &Client,
    what: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<T, QueryError> {
    let found = rows(client, what, sql, parameters).await?.pop();
    found.ok_or_else(|| QueryError::answer(what, "no row where one must be"))
}

/// The server's major version: 15 for 15.18.
///
/// # Errors
/// Returns a [`QueryError`] if the server cannot answer the query.
pub async fn major(client: &Client) -> Result<u32, QueryError> {
    let sql = "SELECT pg_catalog.to_jsonb(pg_catalog.current_setting('server_version_num')::int / 10000)";
    row(client, "ask for the server's version", sql, &[]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After an upgrade a table of ours may lack a column, or may not exist.
    #[test]
    fn what_setup_would_make_is_said() {
        let error = |what: &str, sqlstate: SqlState| QueryError {
            what: what.to_owned(),
            outcome: Outcome::Fix,
            source: Cause::Server(ServerError { sqlstate, message: String::new() }),
        };
        let hint = error("read cdc_audit.quarantine", SqlState::UNDEFINED_COLUMN).hint();
        assert!(hint.is_some_and(|hint| hint.contains("cdc-audit setup")), "{hint:?}");
        assert_eq!(error("read the catalog", SqlState::UNDEFINED_COLUMN).hint(), None);
    }
}
