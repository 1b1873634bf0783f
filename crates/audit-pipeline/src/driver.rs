//! The loop that feeds the stages: chunks of the stream come in, batches go out to the sinks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use audit_capture::QueryError;
use audit_capture::catalog;
use audit_capture::clock;
use audit_capture::context_keys;
use audit_capture::replication::{Chunk, Frame, FrameError, Receiver, ReplicationError};
use audit_cipher::Wanted;
use audit_config::Chain;
use audit_core::baseline::{Command, Passed};
use audit_core::batch::{Batch, Progress};
use audit_core::position::{Lsn, Micros};
use audit_keys::Keyring;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tracing::warn;

use crate::config::PipelineConfig;
use crate::fanout::Fanout;
use crate::stage::{Stage, StageError};
use crate::status::Shared;

/// A batch is handed on when it has this size in bytes, or when the stream has nothing more to give.
const BATCH_BYTES: usize = 1 << 20;

/// If a key takes longer than this, what came before it is handed on first.
const AT_ONCE: Duration = Duration::from_millis(200);

/// The shortest time between two readings of the keys that contexts are signed with.
const KEYS_READ_EVERY: Duration = Duration::from_secs(1);

/// Commits that wait for one another are written in another order than that of their times, but the difference is far
/// less than this.
const CLOCK_BACK_MAX_MICROS: i64 = 60_000_000;

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("the stream holds something that is no replication message")]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Catalog(#[from] QueryError),
    #[error(transparent)]
    Replication(#[from] ReplicationError),
}

pub struct Driver {
    pub stage: Stage,
    pub fanout: Fanout,
    /// The session for reading the catalog.
    pub client: tokio_postgres::Client,
    pub publication: String,
    /// The commands of baselines to the stage.
    pub commands: mpsc::Receiver<Command>,
    /// Notified when a table appears, or appears in a new shape: it may need a baseline.
    pub hint: Arc<Notify>,
    /// Set to true once the stream has shown that it continues what every sink has.
    pub continues: watch::Sender<bool>,
    pub shared: Arc<Shared>,
    pub config: PipelineConfig,
    /// Stop once everything before this position has been seen.
    pub until: Option<Lsn>,
    /// The progress that the sinks were last told.
    pub told: Progress,
    pub told_at: Instant,
    /// The latest commit time so far.
    pub clock: Micros,
    /// Fetches the keys that the stage needs.
    pub keyring: Option<Arc<Keyring>>,
    /// The permit of a large message in the current chunk. It is passed on with the batch that holds the message.
    pub large: Option<OwnedSemaphorePermit>,
    /// When the keys that contexts are signed with were last read.
    pub keys_read_at: Instant,
}

impl Driver {
    /// Follows the stream until it ends or `stop` becomes true. Everything seen until then has gone to the sinks,
    /// unless the stream turned out not to continue what they have. The queues to the sinks close at the end. The
    /// receiver is returned, because it still has to tell the server what becomes durable.
    pub async fn run(
        mut self,
        mut receiver: Receiver,
        stop: watch::Receiver<bool>,
    ) -> (Receiver, Result<(), DriverError>) {
        let followed = self.follow(&mut receiver, stop).await;
        if matches!(&followed, Err(DriverError::Stage(error)) if error.is_discontinuity()) {
            // The current batch may belong to a history that no sink has.
            return (receiver, followed);
        }
        // At the end even a position without changes is handed on.
        self.idle_is_due_now();
        self.hand_on().await;
        (receiver, followed)
    }

    async fn follow(&mut self, receiver: &mut Receiver, mut stop: watch::Receiver<bool>) -> Result<(), DriverError> {
        // An accepted gap is recorded even if no change follows.
        self.hand_on().await;
        self.tell_whether_it_continues();
        loop {
            let chunk = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                Some(command) = self.commands.recv() => {
                    self.stage.command(command);
                    continue;
                }
                chunk = receiver.recv() => chunk?,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let Some(()) = self.chunk(chunk, &mut stop).await? else { return Ok(()) };
            self.tell_whether_it_continues();
            if self.until.is_some_and(|until| self.stage.progress().flushed_lsn >= until) {
                return Ok(());
            }
            if receiver.is_idle() {
                self.hand_on().await;
            }
        }
    }

    fn tell_whether_it_continues(&self) {
        let continues = self.stage.continues();
        self.continues.send_if_modified(|known| std::mem::replace(known, continues) != continues);
    }

    /// Processes a chunk of the stream. `None` if someone stopped the daemon while it waited for a key.
    async fn chunk(&mut self, mut chunk: Chunk, stop: &mut watch::Receiver<bool>) -> Result<Option<()>, DriverError> {
        self.large = chunk.take_permit();
        let followed = self.frames(&chunk, stop).await;
        self.large = None;
        followed
    }

    async fn frames(&mut self, chunk: &Chunk, stop: &mut watch::Receiver<bool>) -> Result<Option<()>, DriverError> {
        for frame in chunk.frames() {
            match frame? {
                Frame::XLogData { wal_start, data, .. } => {
                    loop {
                        match self.stage.message(data, wal_start) {
                            Ok(None) => break,
                            Ok(Some(relation)) => {
                                let found = tokio::select! {
                                    biased;
                                    _ = stop.wait_for(|stop| *stop) => return Ok(None),
                                    found = catalog::of_relation(&self.client, &self.publication, &relation) => found?,
                                };
                                self.stage.describe(&relation, Some(&found))?;
                                self.hint.notify_one();
                            }
                            Err(error) => match self.obtain(error, Vec::new(), stop).await? {
                                Some(()) => {}
                                None => return Ok(None),
                            },
                        }
                    }
                    if self.stage.wants_context_keys() && self.context_keys(stop).await?.is_none() {
                        return Ok(None);
                    }
                    if let Some(passed) = self.stage.take_passed()
                        && self.passed(passed, stop).await?.is_none()
                    {
                        return Ok(None);
                    }
                    if self.stage.batch_bytes() >= BATCH_BYTES {
                        self.hand_on().await;
                    }
                }
                Frame::KeepAlive { wal_end, .. } => {
                    self.stage.idle(wal_end)?;
                    self.shared.heard(wal_end);
                }
            }
        }
        Ok(Some(()))
    }

    /// Hands a baseline's chunk to the sinks. A chunk with a row that cannot be recorded is returned to its runner: its
    /// table waits, the stream does not.
    async fn passed(
        &mut self,
        mut passed: Passed,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<()>, DriverError> {
        // What came before the watermark is handed on before the chunk.
        self.hand_on().await;
        let batch = loop {
            match self.stage.chunk(&passed) {
                Ok(batch) => break batch,
                Err(error) => {
                    let Some(wanted) = error.wanted() else {
                        passed.refused(Chain(&error).to_string());
                        return Ok(Some(()));
                    };
                    let ahead = self.stage.wanted_ahead(&passed, &wanted);
                    if self.obtain(error, ahead, stop).await?.is_none() {
                        return Ok(None);
                    }
                }
            }
        };
        let large = passed.take_large();
        self.count_and_note(&batch);
        // Readers leave out what is not known to be in a finished transaction, and the watermark's ends after the chunk.
        self.idle_is_due_now();
        self.fanout.send(batch, large).await;
        passed.delivered();
        Ok(Some(()))
    }

    /// Reads the keys that contexts are signed with, at most once in [`KEYS_READ_EVERY`], because anyone can write a
    /// message under a key that does not exist. One reading decides about all messages that were written before it.
    /// `None` if someone stopped the daemon first.
    async fn context_keys(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Option<()>, DriverError> {
        let due = self.keys_read_at + KEYS_READ_EVERY;
        if due > Instant::now() {
            self.hand_on().await;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
        self.stage.context_keys(context_keys::read(&self.client).await?);
        self.keys_read_at = Instant::now();
        while let Err(error) = self.stage.unread_context() {
            if self.obtain(error, Vec::new(), stop).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Waits for the key that the stage needs, and for those that it will need next; any other failure is returned.
    /// Meanwhile what came before goes to the sinks. `None` if someone stopped the daemon first.
    async fn obtain(
        &mut self,
        error: StageError,
        mut wanted: Vec<Wanted>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<()>, DriverError> {
        let (Some(first), Some(keyring)) = (error.wanted(), self.keyring.clone()) else { return Err(error.into()) };
        if wanted.is_empty() {
            wanted.push(first);
        }
        let mut obtained = std::pin::pin!(keyring.obtain(&wanted));
        // Most keys arrive at once, and then the batch does not have to end.
        if tokio::time::timeout(AT_ONCE, &mut obtained).await.is_ok() {
            return Ok(Some(()));
        }
        self.hand_on().await;
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(None),
            () = obtained => Ok(Some(())),
        }
    }

    /// Hands the current batch to the sinks, or a position without changes if enough WAL or time has passed without a
    /// batch.
    async fn hand_on(&mut self) {
        if self.stage.batch_is_empty() && !self.idle_is_due() {
            return;
        }
        let batch = self.stage.take_batch();
        self.hand(batch).await;
    }

    async fn hand(&mut self, batch: Batch) {
        self.count_and_note(&batch);
        self.fanout.send(batch, self.large.take()).await;
    }

    fn count_and_note(&mut self, batch: &Batch) {
        self.count(batch);
        self.told = batch.progress;
        self.told_at = Instant::now();
    }

    /// Positions without changes are stored rarely, limited by bytes and by time: otherwise a hot table in the source
    /// would produce WAL about its own WAL.
    fn idle_is_due(&self) -> bool {
        let passed = self.stage.progress().flushed_lsn.since(self.told.flushed_lsn);
        passed > 0 && (passed >= self.config.idle_bytes.get() || self.told_at.elapsed() >= self.config.idle_after.get())
    }

    /// Has the next position without changes stored as soon as the stream pauses.
    fn idle_is_due_now(&mut self) {
        self.told_at = self.told_at.checked_sub(self.config.idle_after.get()).unwrap_or(self.told_at);
    }

    /// Order comes from the WAL, so a source's clock that goes back does no harm, but queries by commit time can miss
    /// rows, so we warn.
    fn watch_clock(&mut self, committed_at: Micros) {
        let back = self.clock.0.saturating_sub(committed_at.0);
        if back > CLOCK_BACK_MAX_MICROS {
            let seconds = back / 1_000_000;
            warn!(hint = clock::FIX, %committed_at, "the source's clock went back by {seconds} s: committed_at is not in the order of commits");
            self.clock = committed_at;
        }
        self.clock = self.clock.max(committed_at);
    }

    fn count(&mut self, batch: &Batch) {
        let counts = self.stage.take_counts();
        self.shared.changes.fetch_add(counts.changes, Ordering::Relaxed);
        self.shared.versions.fetch_add(counts.versions, Ordering::Relaxed);
        self.shared.transactions.fetch_add(counts.transactions, Ordering::Relaxed);
        let committed_at = batch.versions().next_back().map(|version| version.transaction().committed_at);
        self.shared.received(batch.progress, committed_at);
        if let Some(at) = committed_at {
            self.watch_clock(at);
        }
        for (table, count) in batch.table_counts() {
            self.shared.count_table(table, count);
        }
    }
}
