//! Why nothing was written: [`Error`].

use std::fmt;

use audit_connect::ServerError;
use tokio_postgres::error::DbError;

/// Something that would be wrong, or cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub what: String,
    pub details: Vec<String>,
    pub hint: Option<String>,
}

/// Maximum number of details that are shown.
const DETAILS: usize = 10;

impl Refusal {
    pub fn new(what: impl Into<String>) -> Refusal {
        Refusal { what: what.into(), details: Vec::new(), hint: None }
    }

    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Refusal {
        let mut details: Vec<String> = details.into_iter().collect();
        if let Some(more) = details.len().checked_sub(DETAILS).filter(|more| *more > 0) {
            details.truncate(DETAILS);
            details.push(format!("and {more} more"));
        }
        self.details = details;
        self
    }

    pub fn hint(self, hint: impl Into<String>) -> Refusal {
        Refusal { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}

/// A value that is not what it was after the version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Conflict {
    pub table: String,
    pub key: String,
    /// The column, or nothing if it is about the whole row.
    pub column: Option<String>,
    /// The value after the version.
    pub then: Option<String>,
    pub undone_to: Option<String>,
    pub now: Option<String>,
    /// What is wrong, in words.
    pub what: &'static str,
}

impl Conflict {
    /// A conflict about a whole row.
    pub fn of_row(table: &str, key: &str, what: &'static str) -> Conflict {
        Conflict {
            table: table.to_owned(),
            key: key.to_owned(),
            column: None,
            then: None,
            undone_to: None,
            now: None,
            what,
        }
    }

    /// The same about a column.
    pub fn on(self, column: &str) -> Conflict {
        Conflict { column: Some(column.to_owned()), ..self }
    }
}

/// Rows that belong to one that goes, or that gets another key.
#[derive(Debug)]
pub struct Dependents {
    /// Their table, as the trail calls it.
    pub table: String,
    /// The same as SQL.
    pub sql: String,
    /// The columns by which they belong to it, with their values.
    pub columns: Vec<(String, String)>,
    pub refusal: Refusal,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{}", .0.refusal)]
    Dependents(Dependents),
    #[error("rows are no longer what they were after the version; nothing was written")]
    Conflict(Vec<Conflict>),
    #[error("the server refused: {0}")]
    Server(ServerError),
    #[error("the connection to the source was lost before anything was committed")]
    Driver(#[source] tokio_postgres::Error),
    #[error("the connection to the source was lost during the commit")]
    Unknown {
        /// The transaction's whole id, which `pg_xact_status` takes.
        xid: String,
    },
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        match error.as_db_error() {
            Some(refused) => Error::Server(ServerError::from(refused)),
            None => Error::Driver(error),
        }
    }
}

/// Describes what the server said about a row, without values: its detail would quote the row.
pub fn refused(doing: &str, error: &DbError) -> Refusal {
    let code = error.code().code();
    let table = match (error.schema(), error.table()) {
        (Some(schema), Some(table)) => format!(" of {schema}.{table}"),
        _ => String::new(),
    };
    let what = match (error.constraint(), error.column()) {
        (Some(constraint), _) => format!("constraint {constraint}{table} is violated (SQLSTATE {code})"),
        (None, Some(column)) => format!("column {column}{table} does not take the value (SQLSTATE {code})"),
        (None, None) => ServerError::from(error).to_string(),
    };
    let hint = match code {
        "55P03" => Some("another session holds the row or the table; try again when it has ended"),
        "57014" => Some("it took too long; undo less at once"),
        "42501" => Some("grant your login SELECT and UPDATE, and for whole rows INSERT and DELETE, on the table"),
        _ => None,
    };
    let refusal = Refusal::new(format!("{doing}: {what}; nothing was written"));
    hint.into_iter().fold(refusal, Refusal::hint)
}
