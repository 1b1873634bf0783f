//! What the daemon knows about itself: written where things happen, at most once for each batch, and read by `status`,
//! metrics and health checks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_config::Chain;
use audit_core::batch::{self, Progress};
use audit_core::position::{Lsn, Micros};
use audit_core::sink::{Action, SinkError};
use serde::{Deserialize, Serialize};

/// The state of one sink, as others may read it.
#[derive(Debug, Default)]
pub struct SinkGauge {
    state: Mutex<SinkState>,
}

#[derive(Clone, Debug, Default)]
struct SinkState {
    progress: Progress,
    held_bytes: usize,
    troubles: Vec<String>,
    versions: u64,
    errors: u64,
    last_error: Option<Failure>,
    failing: bool,
    /// It failed in a way that made the stream begin again: what failed then has still to succeed.
    begun_again: bool,
    progressed_at: Micros,
}

/// An error that was handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(message: String, hint: Option<String>) -> Failure {
        Failure { at: Micros::now().to_string(), message, hint }
    }
}

/// A panic elsewhere must not silence the status: the state behind a poisoned lock is still the last one known.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SinkGauge {
    pub(crate) fn stands(&self, progress: Progress, held_bytes: usize, troubles: Vec<String>) {
        let mut state = lock(&self.state);
        if state.progress != progress {
            state.progressed_at = Micros::now();
            state.begun_again = false;
        }
        state.progress = progress;
        state.held_bytes = held_bytes;
        state.troubles = troubles;
    }

    pub(crate) fn wrote(&self, versions: usize) {
        lock(&self.state).versions += versions as u64;
    }

    pub(crate) fn failed(&self, error: &SinkError) {
        let mut state = lock(&self.state);
        state.errors += 1;
        state.failing = true;
        state.begun_again |= error.action == Action::Restart;
        state.last_error = Some(Failure::new(Chain(error).to_string(), error.hint.clone()));
    }

    /// Whether anything was durable in this process.
    pub(crate) fn has_stored(&self) -> bool {
        lock(&self.state).progress != Progress::default()
    }

    pub(crate) fn is_failing(&self) -> bool {
        lock(&self.state).failing
    }

    /// What failed has succeeded. A sink that holds versions back for a while has still to show that it can store them.
    pub(crate) fn recovered(&self) {
        let mut state = lock(&self.state);
        state.failing = state.begun_again;
    }
}

/// Everything that is shared while the daemon runs.
#[derive(Debug, Default)]
pub struct Shared {
    pub changes: AtomicU64,
    pub versions: AtomicU64,
    pub transactions: AtomicU64,
    pub gaps: AtomicU64,
    /// Microseconds in which the stream waited for memory.
    pub waiting_micros: AtomicU64,
    pub memory_used: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    source: String,
    slot: String,
    epoch: u16,
    /// The end of the server's WAL as last reported.
    wal_end: Lsn,
    acknowledged: Lsn,
    received: Lsn,
    /// Commit time of the last transaction that was received.
    committed_at: Option<Micros>,
    progressed_at: Micros,
    memory_limit: u64,
    /// Whether COMMITs of the source wait for this daemon.
    synchronous: bool,
    last_error: Option<Failure>,
    tables: BTreeMap<Arc<str>, TableCount>,
}

/// What the daemon is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Phase {
    #[default]
    Starting,
    /// Another process holds the slot.
    Waiting {
        holder: String,
    },
    Streaming,
    /// A key service or the key store does not provide the key that values have to be encrypted with.
    WaitingForKey {
        class: String,
    },
    /// Something failed and will be tried again.
    Retrying,
    Stopping,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCount {
    pub versions: u64,
    pub bytes: u64,
    /// Versions without the actor that the table requires.
    #[serde(default)]
    pub without_actor: u64,
    /// Versions without the reason that the table requires.
    #[serde(default)]
    pub without_reason: u64,
    /// Columns of a strict table that are not recorded, because no rule decides about them; as of the latest versions.
    #[serde(default)]
    pub withheld: u64,
    /// Number of columns that are protected only because of an earlier name, plus one if the table itself has another
    /// name now; as of the latest versions.
    #[serde(default)]
    pub lost_protection: u64,
}

/// One answer to `cdc-audit status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    pub source: String,
    pub slot: String,
    #[serde(flatten)]
    pub phase: Phase,
    pub epoch: u16,
    pub wal_end: Lsn,
    pub received: Lsn,
    pub acknowledged: Lsn,
    pub lag_bytes: u64,
    /// Age of the oldest unacknowledged change, in seconds; 0 if nothing waits.
    pub lag_seconds: f64,
    pub changes: u64,
    pub versions: u64,
    pub transactions: u64,
    pub versions_without_actor: u64,
    #[serde(default)]
    pub versions_without_reason: u64,
    pub gaps: u64,
    /// Whether the server treats the daemon as a synchronous standby: COMMITs of the source then wait for the slowest
    /// sink.
    #[serde(default)]
    pub synchronous_standby: bool,
    pub memory_used_bytes: u64,
    pub memory_limit_bytes: u64,
    pub waited_for_memory_seconds: f64,
    pub sinks: Vec<SinkReport>,
    /// The sink whose checkpoint is the smallest, if there are several sinks.
    pub held_back_by: Option<String>,
    pub tables: BTreeMap<String, TableCount>,
    pub baseline: Vec<BaselineReport>,
    /// What the rules select and the publication does not send.
    #[serde(default)]
    pub uncaptured: UncapturedReport,
    pub last_error: Option<Failure>,
    /// When something last moved, in seconds since 1970.
    pub last_progress: f64,
}

/// What the rules select and the publication does not send, as the daemon saw it at its last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncapturedReport {
    /// Tables that are not published.
    pub tables: Vec<String>,
    /// Those of them that were captured before.
    pub left: Vec<String>,
    /// Kinds of changes that are not published.
    pub operations: Vec<String>,
    /// Whether partitions are published under their own names.
    pub partitions_by_name: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkReport {
    pub name: String,
    pub position: String,
    pub flushed_lsn: Lsn,
    pub lag_bytes: u64,
    /// Age of what was received and is not durable here yet, in seconds.
    pub lag_seconds: f64,
    pub versions: u64,
    pub held_bytes: u64,
    pub errors: u64,
    pub failing: bool,
    pub last_error: Option<Failure>,
    /// What fails in one part of the sink, such as one table, while everything else continues.
    #[serde(default)]
    pub troubles: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BaselineReport {
    pub table: String,
    pub rows: u64,
    pub rows_estimated: u64,
    pub done: bool,
    pub failure: Option<String>,
}

impl Shared {
    pub fn configure(&self, source: &str, slot: &str, memory_limit: u64) {
        let mut state = lock(&self.state);
        state.source = source.to_string();
        state.slot = slot.to_string();
        state.memory_limit = memory_limit;
        state.progressed_at = Micros::now();
    }

    pub fn phase(&self, phase: Phase) {
        lock(&self.state).phase = phase;
    }

    pub fn epoch(&self, epoch: u16) {
        lock(&self.state).epoch = epoch;
    }

    pub(crate) fn synchronous(&self, synchronous: bool) {
        lock(&self.state).synchronous = synchronous;
    }

    pub fn failed(&self, failure: Failure) {
        let mut state = lock(&self.state);
        state.phase = Phase::Retrying;
        state.last_error = Some(failure);
    }

    /// Everything waits for a key of this class; with `None`, it no longer waits.
    pub(crate) fn wait_for_key(&self, class: Option<String>) {
        let mut state = lock(&self.state);
        match class {
            Some(class) => state.phase = Phase::WaitingForKey { class },
            None if matches!(state.phase, Phase::WaitingForKey { .. }) => state.phase = Phase::Streaming,
            None => {}
        }
    }

    /// The server reported that its WAL ends at `wal_end`.
    pub fn heard(&self, wal_end: Lsn) {
        let mut state = lock(&self.state);
        state.wal_end = state.wal_end.max(wal_end);
    }

    pub(crate) fn received(&self, progress: Progress, committed_at: Option<Micros>) {
        let mut state = lock(&self.state);
        state.received = progress.flushed_lsn;
        state.wal_end = state.wal_end.max(progress.flushed_lsn);
        state.committed_at = committed_at.or(state.committed_at);
        state.progressed_at = Micros::now();
    }

    pub(crate) fn acknowledged(&self, lsn: Lsn) {
        let mut state = lock(&self.state);
        state.acknowledged = lsn;
        state.progressed_at = Micros::now();
    }

    pub(crate) fn count_table(&self, table: &Arc<str>, count: batch::TableCount) {
        let mut state = lock(&self.state);
        let sum = state.tables.entry(table.clone()).or_default();
        sum.versions += count.versions;
        sum.bytes += count.bytes;
        sum.without_actor += count.without_actor;
        sum.without_reason += count.without_reason;
        sum.withheld = count.withheld;
        sum.lost_protection = count.lost_protection;
    }

    pub fn report<'a>(
        &self,
        sinks: impl Iterator<Item = (&'a str, &'a SinkGauge)>,
        baseline: Vec<BaselineReport>,
        uncaptured: UncapturedReport,
    ) -> StatusReport {
        let state = lock(&self.state);
        let sinks: Vec<SinkReport> = sinks.map(|(name, gauge)| sink_report(name, gauge, &state)).collect();
        let behind = sinks.iter().min_by_key(|sink| sink.flushed_lsn).filter(|_| sinks.len() > 1);
        let behind = behind.filter(|least| sinks.iter().any(|sink| sink.flushed_lsn > least.flushed_lsn));
        let lag_bytes = state.wal_end.since(state.acknowledged);
        let waiting = state.received > state.acknowledged;
        StatusReport {
            source: state.source.clone(),
            slot: state.slot.clone(),
            phase: state.phase.clone(),
            epoch: state.epoch,
            wal_end: state.wal_end,
            received: state.received,
            acknowledged: state.acknowledged,
            lag_bytes,
            lag_seconds: state.committed_at.filter(|_| waiting).map_or(0.0, seconds_since),
            changes: self.changes.load(Ordering::Relaxed),
            versions: self.versions.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
            versions_without_actor: state.tables.values().map(|count| count.without_actor).sum(),
            versions_without_reason: state.tables.values().map(|count| count.without_reason).sum(),
            gaps: self.gaps.load(Ordering::Relaxed),
            synchronous_standby: state.synchronous,
            memory_used_bytes: self.memory_used.load(Ordering::Relaxed),
            memory_limit_bytes: state.memory_limit,
            waited_for_memory_seconds: self.waiting_micros.load(Ordering::Relaxed) as f64 / 1e6,
            held_back_by: behind.map(|sink| sink.name.clone()),
            sinks,
            tables: state.tables.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            baseline,
            uncaptured,
            last_error: state.last_error.clone(),
            last_progress: state.progressed_at.0 as f64 / 1e6,
        }
    }
}

fn seconds_since(at: Micros) -> f64 {
    Micros::now().0.saturating_sub(at.0).max(0) as f64 / 1e6
}

fn sink_report(name: &str, gauge: &SinkGauge, daemon: &State) -> SinkReport {
    let state = lock(&gauge.state);
    let waiting = daemon.received > state.progress.flushed_lsn;
    SinkReport {
        name: name.to_string(),
        position: state.progress.position.to_string(),
        flushed_lsn: state.progress.flushed_lsn,
        lag_bytes: daemon.wal_end.since(state.progress.flushed_lsn),
        lag_seconds: daemon.committed_at.filter(|_| waiting).map_or(0.0, seconds_since),
        versions: state.versions,
        held_bytes: state.held_bytes as u64,
        errors: state.errors,
        failing: state.failing,
        last_error: state.last_error.clone(),
        troubles: state.troubles.clone(),
    }
}
