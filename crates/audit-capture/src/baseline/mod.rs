//! Baselines, the reading side: the rows that existed before capture began become versions with event `snapshot`.
//!
//! [`audit_core::baseline`] explains what a chunk is, why a row that changes meanwhile is right, and what the stage
//! does. Here a [`Runner`] reads chunks over sessions of its own while changes stream:
//!
//! - There is one mechanism for the first start and for tables and sinks that come later:
//!   [`audit_core::baseline::plan`] compares what each sink has with what was begun.
//! - There is no long transaction on the source: each chunk is read in one of its own, which ends before the chunk is
//!   handed over.
//! - Nothing is remembered here, so the program may be killed at any time. Bounds are stored in `cdc_audit.chunks`, in
//!   the source, before a chunk can be in any sink; sinks store with the data which chunks they have. What one of them
//!   lacks is read again within the same bounds.
//! - The runner cannot outrun the sinks: it reads a table's next chunk when the last one is queued for them under the
//!   memory limit.
//! - It never stops capture. What fails is tried again, and shown in [`Report`] until it succeeds.
//!
//! A runner belongs to one stream. If a sink loses what it held in memory, or the stream begins again for another
//! reason, drop the runner and prepare a new one with what the sinks have stored by then.

mod captured;
mod config;
mod describe;
mod error;
mod files;
mod key;
mod listed;
mod read;
mod report;
mod request;
mod run;
mod session;
mod settle;
mod store;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_connect::PgEndpoint;
use audit_core::baseline::Command;
use audit_core::rules::{FormerNames, Rules};
use audit_core::sink::ChunkProgress;
use tokio::sync::{Notify, mpsc};

pub use config::BaselineConfig;
pub use error::BaselineError;
pub use listed::Uncaptured;
pub use report::{Failure, Phase, Progress, Report, TableReport};
pub use request::{Requested, request};
pub use run::Runner;

/// Everything that a [`Runner`] needs.
pub struct Baseline {
    pub endpoint: PgEndpoint,
    /// The source's configured name.
    pub source: String,
    pub publication: String,
    pub rules: Rules,
    /// What tables were called before; the stage's own.
    pub names: FormerNames,
    pub config: BaselineConfig,
    /// The largest row that may be read, in bytes of text.
    pub row_max: u64,
    /// Every sink, with its stored progress.
    pub sinks: Vec<SinkProgress>,
    /// The channel to the stage, which passes each command to [`audit_core::baseline::Watches::command`]. A capacity of
    /// 2 is enough to prepare.
    pub commands: mpsc::Sender<Command>,
    /// Where progress is shown.
    pub progress: Arc<Progress>,
    /// Notified when a table may be new or a failure repaired, so that the runner does not wait for its next look at
    /// the source.
    pub hint: Arc<Notify>,
    /// Whether every table is read again, whatever the sinks have. This is stored before anything is read, so it does
    /// not have to be requested again after a kill.
    pub anew: bool,
    /// Whether the stream does not continue what the sinks have. If so, incomplete baselines of tables without a key
    /// begin again.
    pub lost_wal: bool,
}

/// One sink, as it was when it was taken over.
#[derive(Clone, Debug)]
pub struct SinkProgress {
    pub name: Arc<str>,
    /// Whether it had no checkpoint yet: then baselines that were begun for a sink of this name were begun for another
    /// sink.
    pub is_new: bool,
    /// The progress of each table, by its name.
    pub baselines: BTreeMap<String, ChunkProgress>,
}
