//! [`ReplicationError`]: why there is no stream, or why it ended.

use std::io;

use audit_connect::{ConnectError, Outcome, ServerError};
use audit_core::position::Lsn;
use tokio_postgres::error::SqlState;

use super::frame::FrameError;

#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("replication slot {slot} is in use{}", used_by(*pid, application.as_deref()))]
    SlotInUse { slot: String, pid: Option<u32>, application: Option<String> },
    #[error("the server refused {command}")]
    Refused { command: &'static str, source: ServerError },
    #[error("the server ended the stream")]
    Ended { source: Option<ServerError> },
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("lost the replication connection")]
    Lost { source: io::Error },
    #[error("a message of {length} bytes at {lsn} exceeds the limit of {limit} bytes for one message")]
    MessageTooLarge { lsn: Lsn, length: u64, limit: u64 },
    #[error("the stream cannot be read")]
    Frame { source: FrameError },
    #[error("unexpected answer to {command}: {what}")]
    Unexpected { command: &'static str, what: String },
    #[error("the receiver's thread ended by itself")]
    Thread,
}

impl ReplicationError {
    /// What has to happen next.
    pub fn outcome(&self) -> Outcome {
        match self {
            ReplicationError::Connect(error) => error.outcome(),
            ReplicationError::SlotInUse { .. } | ReplicationError::Lost { .. } | ReplicationError::ShuttingDown => {
                Outcome::Retry
            }
            ReplicationError::Refused { source, .. } => source.outcome(),
            ReplicationError::Ended { source } => source.as_ref().map_or(Outcome::Retry, ServerError::outcome),
            ReplicationError::MessageTooLarge { .. } => Outcome::Fix,
            ReplicationError::Frame { .. } | ReplicationError::Unexpected { .. } | ReplicationError::Thread => {
                Outcome::Bug
            }
        }
    }

    /// The server's SQLSTATE, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            ReplicationError::Connect(error) => error.sqlstate(),
            ReplicationError::Refused { source, .. } | ReplicationError::Ended { source: Some(source) } => {
                Some(&source.sqlstate)
            }
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ReplicationError::Connect(error) => error.hint(),
            ReplicationError::SlotInUse { .. } => Some(
                "one process reads a slot at a time: stop the other, or give this one a slot of its own".to_owned(),
            ),
            ReplicationError::MessageTooLarge { length, .. } => Some(format!(
                "raise the memory limit to at least {} MiB: 64 MiB and four times the message",
                memory_needed(*length).div_ceil(1 << 20)
            )),
            // The publication exists when a session begins, but did not exist at this point of the WAL.
            ReplicationError::Ended { source: Some(source) } if source.sqlstate == SqlState::UNDEFINED_OBJECT => Some(
                "these changes were made while there was no publication, and PostgreSQL cannot decode them: drop the slot \
                 (pg_drop_replication_slot), then `cdc-audit run --accept-gap` makes it anew, goes on, and records a gap in every sink"
                    .to_owned(),
            ),
            // character_not_in_repertoire, untranslatable_character: the server names no position, and cannot get past
            // the change.
            ReplicationError::Ended { source: Some(source) } if matches!(source.sqlstate.code(), "22021" | "22P05") => Some(
                "a change holds a text that has no form in UTF-8, and PostgreSQL cannot send it: drop the slot \
                 (pg_drop_replication_slot), then `cdc-audit run --accept-gap` makes it anew, goes on, and records a gap in every sink"
                    .to_owned(),
            ),
            ReplicationError::Refused { source, .. } | ReplicationError::Ended { source: Some(source) } => {
                server_hint(source)
            }
            _ => None,
        }
    }
}

/// The memory limit, in bytes, with which a message of this length can be received.
pub(crate) fn memory_needed(length: u64) -> u64 {
    (64 << 20) + length.saturating_mul(4)
}

fn server_hint(error: &ServerError) -> Option<String> {
    let hint = match error.sqlstate.code() {
        "42501" => "the role needs the attribute REPLICATION (ALTER ROLE … REPLICATION)",
        "42704" => "`cdc-audit setup` creates what is missing, `cdc-audit check` shows what that is",
        "55000" => "`cdc-audit check` shows whether wal_level or the state of the slot is the reason",
        "58P01" => "WAL that is still needed was removed; `cdc-audit check` names the stretch",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn used_by(pid: Option<u32>, application: Option<&str>) -> String {
    let pid = pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
    let application = application.map(|name| format!(" ({name})")).unwrap_or_default();
    pid + &application
}
