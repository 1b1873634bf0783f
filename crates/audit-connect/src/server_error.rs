//! An error that the server reported, reduced to the parts that may be shown: [`ServerError`].

use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::outcome::{Outcome, outcome};

/// SQLSTATE and message of a server's `ErrorResponse` (PostgreSQL's manual, section "Error and Notice Message Fields").
///
/// Detail, hint and context are left out, because they quote rows (`Key (email)=(…) already exists.`). A message is
/// shown only if its SQLSTATE is of a class in [`QUOTES_NAMES`], and only if it is the server's own: functions and
/// extensions may put values into their messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {})", sqlstate.code())]
pub struct ServerError {
    pub sqlstate: SqlState,
    pub message: String,
}

/// SQLSTATE classes whose messages name objects, roles, limits and states: connections, transactions, features,
/// privileges, syntax, resources. Left out are classes that quote the value at fault (22, 23), errors of functions
/// (38, 39, P0) and internal errors (XX).
const QUOTES_NAMES: [&str; 22] = [
    "08", "0A", "0B", "0L", "0P", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "54", "55",
    "57", "58", "F0",
];

/// The server's source file that reports the errors of PL/pgSQL's `RAISE`, which may have any SQLSTATE.
const RAISE: &str = "pl_exec.c";

impl ServerError {
    /// Reads the error from a protocol message. Fields that are missing or malformed are left empty, because a second
    /// error must not hide the one to report.
    pub fn from_fields(mut fields: ErrorFields<'_>) -> ServerError {
        let (mut code, mut message, mut raised) = (String::new(), String::new(), false);
        while let Ok(Some(field)) = fields.next() {
            let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => code = text(),
                b'M' => message = text(),
                b'F' => raised = text() == RAISE,
                _ => {}
            }
        }
        ServerError::new(SqlState::from_code(&code), message, raised)
    }

    pub fn outcome(&self) -> Outcome {
        outcome(&self.sqlstate)
    }

    /// Keeps message and hint whatever the class. Use it only for statements that cannot contain a value of a row, such
    /// as those of `setup`.
    pub fn whole(error: &DbError) -> ServerError {
        let hint = error.hint().map_or(String::new(), |hint| format!("; {hint}"));
        ServerError { sqlstate: error.code().clone(), message: format!("{}{hint}", error.message()) }
    }

    fn new(sqlstate: SqlState, message: String, raised: bool) -> ServerError {
        let shown = !raised && QUOTES_NAMES.iter().any(|class| sqlstate.code().starts_with(class));
        let message = if shown { message } else { "an error whose text may quote a value".to_owned() };
        ServerError { sqlstate, message }
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> ServerError {
        let raised = error.file() == Some(RAISE);
        ServerError::new(error.code().clone(), error.message().to_owned(), raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function may raise any code, and extensions put what they could not read into internal errors.
    #[test]
    fn only_messages_that_name_objects_are_shown() {
        let told =
            |code: &str, raised| ServerError::new(SqlState::from_code(code), "hush".to_owned(), raised).to_string();
        for code in ["42P01", "28P01", "3D000", "53300", "55006", "57P01", "58P01", "0A000", "40001", "25006"] {
            assert_eq!(told(code, false), format!("hush (SQLSTATE {code})"));
            assert!(!told(code, true).contains("hush"), "{code}");
        }
        for code in ["22P02", "23505", "23514", "P0001", "XX000", "38000", "45000", "22000", "ZZ001"] {
            assert!(!told(code, false).contains("hush"), "{code}");
        }
    }
}
