//! An error as the server reported it, reduced to what may be shown: [`ServerError`].

use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::outcome::{Outcome, outcome};

/// SQLSTATE and message of a server's ErrorResponse (protocol, "Error and Notice Message Fields").
///
/// Detail, hint and context are left out, for they quote rows (`Key (email)=(…) already exists.`); so are the messages
/// of the SQLSTATE classes whose texts quote values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {})", sqlstate.code())]
pub struct ServerError {
    pub sqlstate: SqlState,
    pub message: String,
}

impl ServerError {
    /// From a protocol message. Fields that are missing or malformed are left empty: there is an error to report, and
    /// no second one shall hide it.
    pub fn from_fields(mut fields: ErrorFields<'_>) -> ServerError {
        let (mut code, mut message) = (String::new(), String::new());
        while let Ok(Some(field)) = fields.next() {
            let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => code = text(),
                b'M' => message = text(),
                _ => {}
            }
        }
        ServerError::new(SqlState::from_code(&code), message)
    }

    pub fn outcome(&self) -> Outcome {
        outcome(&self.sqlstate)
    }

    fn new(sqlstate: SqlState, message: String) -> ServerError {
        // Class 22 quotes the value it could not read, P0 is whatever a trigger chose to say.
        let quotes_values = sqlstate.code().starts_with("22") || sqlstate.code().starts_with("P0");
        let message = if quotes_values { "an error whose text may quote a value".to_owned() } else { message };
        ServerError { sqlstate, message }
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> ServerError {
        ServerError::new(error.code().clone(), error.message().to_owned())
    }
}
