//! What a server's error means for the caller, decided by SQLSTATE ([`outcome`]).
//!
//! The codes that need a person's action are listed. Anything else is tried again (up to a limit that the caller sets),
//! because a class that a later major version or an extension adds is more often a passing state than a wrong
//! configuration.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::SqlState;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The error may pass by itself: try again later.
    Retry,
    /// A person must act first: on the configuration, privileges, certificates or the state of the server.
    Fix,
    /// Neither can help, because the two programs do not understand each other.
    Bug,
}

/// Returns the outcome of an error that a server reported.
pub fn outcome(sqlstate: &SqlState) -> Outcome {
    let code = sqlstate.code();
    match code {
        // Slots, locks and tables that another session uses.
        "55006" | "55P03" => Outcome::Retry,
        // A standby refuses writes until it is promoted.
        "25006" => Outcome::Retry,
        // Dropped databases, removed WAL segments and damaged pages do not come back.
        "57P04" | "58P01" | "58P02" | "XX001" | "XX002" => Outcome::Fix,
        "08P01" | "42601" => Outcome::Bug,
        _ => match code.get(..2).unwrap_or_default() {
            // Feature not supported; data; constraints; authorization; no such database or schema; privileges, names
            // and types; program limits; prerequisite state (wal_level, an invalidated slot); raised by a trigger.
            "0A" | "22" | "23" | "28" | "3D" | "3F" | "42" | "44" | "54" | "55" | "P0" => Outcome::Fix,
            _ => Outcome::Retry,
        },
    }
}

/// Returns the outcome of an error of a session that was already open.
pub fn outcome_of(error: &tokio_postgres::Error) -> Outcome {
    if let Some(sqlstate) = error.code() {
        return outcome(sqlstate);
    }
    let broken = |io: &io::Error| !matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) if broken(io) => Outcome::Retry,
        None if error.is_closed() => Outcome::Retry,
        // Wrong types, columns, messages: the driver and the statement disagree.
        _ => Outcome::Bug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_pass_are_retried_and_the_rest_is_somebodys_to_fix() {
        let check = |code, expected| assert_eq!(outcome(&SqlState::from_code(code)), expected, "{code}");
        // Starting up, shutting down, out of connections, deadlock, serialization, slot in use, a standby.
        for code in ["57P03", "57P01", "57P02", "53300", "40P01", "40001", "55006", "25006", "08006", "58030", "ZZ999"]
        {
            check(code, Outcome::Retry);
        }
        // Password, role, database, privilege, no such slot, wal_level, missing WAL.
        for code in ["28P01", "28000", "3D000", "42501", "42704", "55000", "58P01", "23505", "22P02"] {
            check(code, Outcome::Fix);
        }
        check("08P01", Outcome::Bug);
    }
}
