//! Why the daemon cannot continue: [`RunError`].

use audit_capture::QueryError;
use audit_capture::baseline::BaselineError;
use audit_capture::encoding;
use audit_capture::replication::ReplicationError;
use audit_config::Chain;
use audit_connect::{ConnectError, Outcome};
use audit_core::position::Lsn;

use crate::continuity::Gap;
use crate::driver::DriverError;
use crate::sink_task::SinkEnd;

/// The daemon cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the stream cannot be followed")]
    Driver(#[source] DriverError),
    #[error("sink {} failed", .0.sink)]
    Sink(#[source] SinkFailure),
    #[error("{what}")]
    Encoding { what: String },
    #[error("publication \"{publication}\" does not exist: nothing can be captured")]
    NoPublication { publication: String },
    #[error("replication slot \"{slot}\" does not exist")]
    NoSlot { slot: String },
    #[error("replication slot \"{slot}\" {what}")]
    ForeignSlot { slot: String, what: &'static str },
    #[error(
        "the source's address leads to two servers: the stream comes from another one than that which shows slot \"{slot}\""
    )]
    TwoServers { slot: String },
    #[error("replication slot \"{slot}\" is lost ({why}): WAL from {from} to {to} was not captured")]
    LostSlot { slot: String, why: String, from: Lsn, to: Lsn },
    #[error("replication slot \"{slot}\" does not continue what the sinks have: WAL was lost")]
    Gap {
        slot: String,
        #[source]
        stretches: Stretches,
    },
    #[error("a new baseline cannot be begun")]
    Baseline(#[source] BaselineError),
    #[error("a task ended by itself: {0}")]
    Panic(String),
    #[error("the stream has to begin again from what is durable")]
    Restart,
}

/// The error as the sink describes it.
#[derive(Debug, thiserror::Error)]
#[error("{}", Chain(&.0.error))]
pub struct SinkFailure(pub SinkEnd);

impl std::ops::Deref for SinkFailure {
    type Target = SinkEnd;
    fn deref(&self) -> &SinkEnd {
        &self.0
    }
}

/// The lost stretches, one for each sink.
#[derive(Debug, thiserror::Error)]
pub struct Stretches(pub Vec<Gap>);

impl std::fmt::Display for Stretches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, gap) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{gap}")?;
        }
        Ok(())
    }
}

pub(crate) fn sql(what: &str, error: tokio_postgres::Error) -> RunError {
    RunError::Query(QueryError::new(what, error))
}

impl RunError {
    /// Whether the stream shows another history than the one that the sinks have.
    pub fn is_discontinuity(&self) -> bool {
        matches!(self, RunError::Driver(DriverError::Stage(error)) if error.is_discontinuity())
    }

    /// What has to happen next: whether another session may succeed.
    pub fn outcome(&self) -> Outcome {
        match self {
            RunError::Connect(error) => error.outcome(),
            RunError::Replication(error) => error.outcome(),
            RunError::Query(error) => error.outcome(),
            RunError::Baseline(error) => error.outcome(),
            RunError::Driver(DriverError::Catalog(error)) => error.outcome(),
            RunError::Driver(DriverError::Replication(error)) => error.outcome(),
            RunError::Driver(DriverError::Stage(_)) => Outcome::Fix,
            RunError::Restart | RunError::TwoServers { .. } => Outcome::Retry,
            RunError::Driver(DriverError::Frame(_)) | RunError::Panic(_) => Outcome::Bug,
            RunError::Sink(_)
            | RunError::Encoding { .. }
            | RunError::NoPublication { .. }
            | RunError::NoSlot { .. }
            | RunError::ForeignSlot { .. }
            | RunError::LostSlot { .. }
            | RunError::Gap { .. } => Outcome::Fix,
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            RunError::Connect(error) => error.hint(),
            RunError::Replication(error) => error.hint(),
            RunError::Query(error) => error.hint().map(str::to_string),
            RunError::Baseline(error) => error.hint(),
            RunError::Driver(DriverError::Stage(error)) => Some(error.hint()),
            RunError::Driver(DriverError::Catalog(error)) => error.hint().map(str::to_string),
            RunError::Driver(DriverError::Replication(error)) => error.hint(),
            RunError::Restart => None,
            RunError::Driver(DriverError::Frame(_)) | RunError::Panic(_) => Some("please report this as a bug".to_string()),
            RunError::Sink(end) => end.error.hint.clone(),
            RunError::Encoding { .. } => Some(encoding::FIX.to_string()),
            RunError::NoPublication { .. } => Some(
                "run `cdc-audit setup` to create it, and soon: what is changed before cannot be captured".to_string(),
            ),
            RunError::NoSlot { .. } => Some(
                "run `cdc-audit setup` to create it. If it was there before, the changes since are lost: \
                 `cdc-audit run --accept-gap` creates it anew, goes on, and records a gap in every sink"
                    .to_string(),
            ),
            RunError::TwoServers { .. } => Some(
                "during a failover that passes by itself; else let the `url` of [source] name one server".to_string(),
            ),
            RunError::ForeignSlot { .. } => Some("name another slot in [source], and run `cdc-audit setup`".to_string()),
            RunError::LostSlot { why, .. } => {
                let first = match why.as_str() {
                    "wal_removed" => "raise max_slot_wal_keep_size",
                    "idle_timeout" => "set idle_replication_slot_timeout to 0",
                    "wal_level_insufficient" => "set wal_level to logical",
                    _ => "look into the server's log",
                };
                Some(format!(
                    "{first}; then `cdc-audit run --accept-gap` makes the slot anew, goes on, and records a gap in every sink"
                ))
            }
            RunError::Gap { .. } => Some(
                "undo what was done to the slot, the server or a checkpoint, if that is possible; else `cdc-audit run --accept-gap` \
                 goes on and records the gap in every sink; with --new-baseline it also reads every table anew"
                    .to_string(),
            ),
        }
    }
}
