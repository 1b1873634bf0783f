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
//!
//! # Why each sink has each snapshot row once
//!
//! Rows that existed before capture are read in chunks (the method of DBLog) and enter the stream at a watermark: a
//! transactional logical message with a secret nonce, written after the chunk was read.
//!
//! - **Never after its own later change.** The stage that reads the stream records which rows of a watched table
//!   change. The table is watched before the chunk's snapshot; transactions delivered before it must be finished in
//!   that snapshot, or the chunk is read again (a commit can be in the stream before it is visible to a reader). At
//!   the watermark, rows whose key was recorded are left out: the stream has them. Every change that the snapshot
//!   does not see commits after it, and so comes either before the watermark, recorded, or after it.
//! - **Once in each sink, also after a kill between two sinks.** A chunk is one batch. A sink stores it whole, with
//!   the chunk's number, in one commit, in order for each table. After a kill each sink says which chunk it has; a
//!   chunk that one of them lacks is read again within the same bounds, at a new watermark, and marked for the
//!   sinks that lack it. The others skip it by its number. The bounds lie in `cdc_audit.chunks` in the source,
//!   written by the statement that writes the watermark: no sink can have a chunk whose bounds are not known. Where
//!   stored bounds no longer serve (the key changed, the table was made anew), the sinks that lack chunks begin
//!   again under a new number. A snapshot row is identified by source, table, baseline and key, not by its
//!   position.
//! - **Only where the stream cannot have the rows.** `cdc_audit.captured` has a record for each table: the object
//!   (its oid) and the entries of the catalog by which it is published. Another object, or no entry in common,
//!   means a baseline under a new number. For a table without a record the catalog decides, compared with a point
//!   in the past at which everything was accounted for (`cdc_audit.captured_since`, `baseline/listed.rs`). The
//!   system columns of its catalog row show which transaction made it, those of its type's row whether it has had
//!   another name since, its file whether it was rewritten. A table for which this is not proved is read: a row
//!   that is recorded twice is a nuisance, a missing row is a hole. Lost WAL invalidates that point before the
//!   stream continues.
//! - **Of an attached partition its own rows alone are read**: a partition whose columns are inherited since it was
//!   made was made as one, and all its rows came by the stream. Such a baseline names the partition in its
//!   description, as part of what its bounds depend on.
//! - **No look-up waits for a lock** on the way of a change: published tables, partitions and shapes are read from
//!   the catalogs alone, because the more convenient views and functions (`pg_publication_tables`,
//!   `pg_partition_tree`) lock each table. A query that has to wait for a lock waits five seconds at most, and only
//!   for its own table.
//! - **Bounds are raw keys**: they go from `cdc_audit.chunks` into settings of the reading transaction, on the
//!   server, and no statement shows them.
//! - **A row's size is checked before it is fetched.** The server is asked for it if the table has anything in its
//!   TOAST table. A row that does not fit into memory is refused and named, and large rows are fetched one at a
//!   time.
//! - **Without a key** rows are read by place. Rows that were written by a transaction since the baseline began are
//!   recognised by `xmin` and skipped: the stream has them. Older ones that the stream gave to this process are
//!   counted by their values and left out once each. What remains: a row that an earlier process was given before
//!   the baseline began has both its `created` and a `snapshot`, because nothing distinguishes it from an equal
//!   row. The kill tests allow exactly that, and only for such tables.

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
