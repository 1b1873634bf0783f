//! Baselines, the reading side: the rows that existed before capture began become versions with event `snapshot`.
//!
//! What a chunk is, why a row that changes meanwhile is right, and what the stage does is told in [`audit_core::baseline`]. Here a
//! [`Runner`] reads chunks over sessions of its own while changes stream:
//!
//! - One mechanism for the first start, for tables and for sinks that come later: [`audit_core::baseline::plan`] compares what each sink
//!   has with what was begun.
//! - No long transaction on the source: each chunk is read in one of its own, which ends before the chunk is handed over.
//! - Nothing is remembered here. Kill the program anywhere: bounds lie in `cdc_audit.chunks`, in the source, from before a chunk can be in
//!   any sink; sinks store the chunks that they have with the data. What one of them lacks is read again within the same bounds.
//! - The runner cannot outrun the sinks: it reads a table's next chunk when the last one is queued for them under the memory limit.
//! - It never stops capture. What fails is tried again, and shown in [`Report`] until then.
//!
//! A runner belongs to one stream. Where a sink loses what it held in memory, or the stream begins again for another reason, drop it and
//! prepare a new one with what the sinks have stored by then.

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

/// Everything a [`Runner`] is given.
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
    /// Every sink, with what it has stored.
    pub sinks: Vec<SinkProgress>,
    /// To the stage, which gives each to [`audit_core::baseline::Watches::command`]. Room for 2 is enough to prepare.
    pub commands: mpsc::Sender<Command>,
    /// Where progress is shown.
    pub progress: Arc<Progress>,
    /// Told that a table may be new, or a failure mended, so that it need not wait for the next look.
    pub hint: Arc<Notify>,
    /// Every table is read anew, whatever the sinks have. Stored before anything is read: not to be asked for again after a kill.
    pub anew: bool,
    /// The stream does not continue what the sinks have: baselines of tables without a key that are not complete begin anew.
    pub lost_wal: bool,
}

/// One sink, as it stood when it was taken over.
#[derive(Clone, Debug)]
pub struct SinkProgress {
    pub name: Arc<str>,
    /// It had no checkpoint yet: what was begun for a sink of this name was begun for another.
    pub is_new: bool,
    /// By table name.
    pub baselines: BTreeMap<String, ChunkProgress>,
}
