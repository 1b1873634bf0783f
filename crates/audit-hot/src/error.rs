//! What an error of the hot database means for the sink, judged by SQLSTATE.

use audit_connect::{ConnectError, Outcome, ServerError, outcome_of};
use audit_core::sink::{Action, SinkError};

/// The error for a session that could not be opened.
pub(crate) fn not_connected(error: ConnectError) -> SinkError {
    let hint = error.hint();
    let failure = SinkError::new(action(error.outcome()), "the hot database gives no session").source(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The error for a failed action; `doing` names it, for example "writing versions".
pub(crate) fn failed(doing: &str, error: tokio_postgres::Error) -> SinkError {
    let failure = SinkError::new(action(outcome_of(&error)), format!("{doing} failed in the hot database"));
    let hint = match error.code() {
        Some(code) => hint(code.code()),
        None if error.is_closed() => Some(LOST),
        None => None,
    };
    let failure = match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    match error.as_db_error() {
        // The server's detail and context may quote rows.
        Some(server) => failure.source(ServerError::from(server)),
        None => failure.source(error),
    }
}

fn action(outcome: Outcome) -> Action {
    match outcome {
        Outcome::Retry => Action::Retry,
        Outcome::Fix | Outcome::Bug => Action::Stop,
    }
}

const LOST: &str = "the connection was lost: check that the hot database's server runs; versions wait meanwhile";

/// The hint for a SQLSTATE: what a person can do.
pub(crate) fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "3F000" | "42P01" | "42883" => "run `cdc-audit setup`: it makes what is missing",
        "42501" => "grant the daemon's role what `cdc-audit setup --dry-run` prints",
        "42703" | "42804" => "the tables were altered by hand: run `cdc-audit check`, and restore the column",
        "53100" => "free disk space on the hot database's server; versions wait meanwhile",
        "53200" => "the hot database's server is out of memory; versions wait meanwhile",
        "57P01" | "57P02" | "57P03" => LOST,
        "53300" => "raise max_connections of the hot database, or close other sessions",
        "25006" => {
            "the hot database is read-only: let the url name the primary (several hosts, and target_session_attrs=read-write)"
        }
        _ => return None,
    })
}

/// Whether the server may have refused a row because of its content: bad data, a constraint, a program limit, or an
/// exception from a trigger that was added by hand.
pub(crate) fn may_be_a_row(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(|code| code.code()).unwrap_or_default();
    ["22", "23", "44", "54", "P0"].iter().any(|class| code.starts_with(class))
}

/// Whether a table no longer exists.
pub(crate) fn is_gone(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE)
}
