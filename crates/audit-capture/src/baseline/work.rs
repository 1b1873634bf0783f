//! One table's baseline, chunk by chunk: [`Work`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use audit_core::baseline::plan::{Begin, Plan, Step};
use audit_core::baseline::seen::Seen;
use audit_core::baseline::{Command, Nonce, Outcome, RawChunk, Watch};
use audit_core::batch::ChunkMark;
use audit_core::shape::TableName;
use audit_core::sink::ChunkProgress;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, info};

use super::config::BaselineConfig;
use super::describe::{Described, describe, part_of};
use super::error::BaselineError;
use super::read::{self, Read, Wanted, read};
use super::report::Progress;
use super::session::{Control, Reader};
use super::settle::snapshot;
use super::store::{Bounds, Description, Kind, Store};

/// A chunk may outgrow the size that it had when it was first read, but only by this factor.
const GROWTH_MAX: usize = 4;

/// Pauses before something is tried again; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What all tables share.
pub(super) struct Shared {
    pub source: String,
    pub publication: String,
    pub config: BaselineConfig,
    pub control: Control,
    /// The largest row that fits into memory, in bytes of text.
    pub row_max: u64,
    /// One permit, for rows that fill much of that size.
    pub large: Arc<Semaphore>,
    pub commands: mpsc::Sender<Command>,
    pub progress: Arc<Progress>,
}

impl Shared {
    pub async fn send(&self, command: Command) -> Result<(), BaselineError> {
        self.commands.send(command).await.map_err(|_| BaselineError::StreamEnded)
    }
}

/// A table and all that is known about its baselines.
pub(super) struct Work {
    pub table: Arc<str>,
    pub name: TableName,
    pub oid: u32,
    pub plan: Plan,
    pub descriptions: BTreeMap<u32, Description>,
    /// Number of errors since the last chunk.
    pub failures: u32,
    /// Where the last chunk ended: baseline, chunk, bound.
    end: Option<(u32, u32, Option<Vec<String>>)>,
    /// Number of rows to read at once, adapted to the size of the rows so far.
    rows_max: u32,
    /// The largest value of `rows_max`.
    rows_limit: u32,
}

/// Why work on a table ends, other than because of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    /// Every transaction below this number has to end first.
    Wait(u64),
    /// The table no longer exists.
    Gone,
}

/// The result of one attempt at a chunk.
enum Attempt {
    Delivered,
    Again,
    Describe,
    Restart,
    Gone,
}

impl Work {
    pub fn new(
        table: Arc<str>,
        name: TableName,
        oid: u32,
        plan: Plan,
        descriptions: BTreeMap<u32, Description>,
        rows_limit: u32,
    ) -> Work {
        Work { table, name, oid, plan, descriptions, failures: 0, end: None, rows_max: rows_limit, rows_limit }
    }

    /// Reads chunks until every sink has, or will have, all of them.
    pub async fn run(&mut self, shared: &Shared, reader: &mut Reader) -> Result<Ended, BaselineError> {
        let ended = self.read_chunks(shared, reader).await?;
        if matches!(ended, Ended::Done | Ended::Gone) {
            shared.send(Command::Forget { table: self.table.clone() }).await?;
        }
        Ok(ended)
    }

    async fn read_chunks(&mut self, shared: &Shared, reader: &mut Reader) -> Result<Ended, BaselineError> {
        let mut described: Option<Described> = None;
        let mut pause = PAUSE_MIN;
        loop {
            let part = self.part();
            let Some(table) = described.as_ref().filter(|found| found.rows.part.as_deref() == part) else {
                let client = shared.control.get().await?;
                described = describe(&client, &shared.publication, self.oid, part).await?;
                if described.as_ref().is_none_or(|found| found.table.name != self.name) {
                    return Ok(Ended::Gone);
                }
                continue;
            };
            if self.plan.is_done() {
                return Ok(Ended::Done);
            }
            if self.begin_what_is_due(shared, table).await? {
                let tables: Vec<_> = self.followed().into_iter().collect();
                shared.send(Command::Follow { tables }).await?;
                continue;
            }
            let Some(step) = self.plan.next() else { return Ok(Ended::Done) };
            if let Some(xmax) = self.xmax(step.baseline)
                && snapshot(shared.control.get().await?.as_ref()).await?.xmin() < xmax
            {
                return Ok(Ended::Wait(xmax));
            }
            match self.attempt(shared, reader, table, &step).await? {
                Attempt::Delivered => {
                    pause = PAUSE_MIN;
                    continue;
                }
                Attempt::Gone => return Ok(Ended::Gone),
                Attempt::Restart => {
                    self.descriptions.remove(&step.baseline);
                    described = None;
                }
                Attempt::Describe => described = None,
                Attempt::Again => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The partition to which the next chunk is limited.
    pub fn part(&self) -> Option<&str> {
        let step = self.plan.next().filter(|_| self.plan.to_begin().is_none())?;
        part_of(&self.descriptions.get(&step.baseline)?.identity)
    }

    /// Begins baselines that are not begun, described, or usable any more. Returns whether there was one.
    pub async fn begin_what_is_due(&mut self, shared: &Shared, table: &Described) -> Result<bool, BaselineError> {
        if let Some(mut begin) = self.plan.to_begin() {
            let fits = |baseline| self.descriptions.get(baseline).is_some_and(|stored| table.fits(stored));
            if begin.join && !fits(&begin.baseline) {
                begin = Begin { baseline: self.plan.anew().baseline, join: false, ..begin };
            }
            self.begin(shared, table, begin).await?;
            return Ok(true);
        }
        let Some(step) = self.plan.next() else { return Ok(false) };
        match self.descriptions.get(&step.baseline) {
            Some(stored) if table.fits(stored) => return Ok(false),
            // It was requested, and the table has not been examined yet.
            Some(Description { kind: None, .. }) => {
                let begin = Begin { baseline: step.baseline, sinks: step.sinks, join: false };
                self.begin(shared, table, begin).await?;
            }
            _ => {
                info!(table = %self.table, baseline = step.baseline, "the bounds of this baseline no longer serve, the table is read anew");
                let begin = self.plan.instead_of(step.baseline);
                self.begin(shared, table, begin).await?;
            }
        }
        Ok(true)
    }

    /// Begins a baseline, or lets sinks join one.
    async fn begin(&mut self, shared: &Shared, table: &Described, begin: Begin) -> Result<(), BaselineError> {
        let client = shared.control.get().await?;
        let joined = self.descriptions.get(&begin.baseline).filter(|_| begin.join).cloned();
        let description = match joined {
            Some(description) => description,
            None => Description {
                kind: Some(table.kind()),
                identity: table.rows.identity.clone(),
                snapshot: match table.kind() {
                    Kind::Ctid => Some(snapshot(&client).await?),
                    Kind::Key => None,
                },
                rows: 0,
            },
        };
        Store { client: &client, source: &shared.source }.begin(&self.table, &begin, &description).await?;
        let sinks: Vec<&str> = begin.sinks.iter().map(AsRef::as_ref).collect();
        info!(table = %self.table, baseline = begin.baseline, ?sinks, joined = begin.join, "baseline begins");
        self.plan.begun(&begin, table.kind() == Kind::Key);
        self.descriptions.insert(begin.baseline, description);
        if !begin.join {
            shared.progress.begun(&self.table, begin.baseline);
        }
        Ok(())
    }

    /// The table and the transaction number from which rows that the stream creates have to be counted, if the table
    /// has no key.
    pub fn followed(&self) -> Option<(Arc<str>, u32)> {
        let xmax = self.xmax(self.plan.next()?.baseline)?;
        Some((self.table.clone(), xmax as u32))
    }

    /// For a baseline by ctid: rows of transactions from this number on are in the stream.
    pub fn xmax(&self, baseline: u32) -> Option<u64> {
        let description = self.descriptions.get(&baseline).filter(|stored| stored.kind == Some(Kind::Ctid))?;
        description.snapshot.as_ref().map(|snapshot| snapshot.xmax())
    }

    async fn attempt(
        &mut self,
        shared: &Shared,
        reader: &mut Reader,
        table: &Described,
        step: &Step,
    ) -> Result<Attempt, BaselineError> {
        let Some(lower) = self.lower(shared, step).await? else { return Ok(Attempt::Restart) };
        let stored = match step.stored {
            true => match self.bounds(shared, step.baseline, step.chunk).await? {
                Some(bounds) => Some(bounds),
                None => return Ok(Attempt::Restart),
            },
            false => None,
        };
        let seen = self.watch(shared, table).await?;
        let chunk_bytes = usize::try_from(shared.config.chunk_bytes.get()).unwrap_or(usize::MAX);
        let empty = Vec::new();
        let wanted = Wanted {
            publication: &shared.publication,
            source: &shared.source,
            table: &self.table,
            step,
            described: table,
            seen: &seen,
            lower: lower.as_deref(),
            stored: stored.as_ref(),
            rows_max: self.rows_max,
            bytes_max: chunk_bytes,
            bytes_limit: chunk_bytes.saturating_mul(GROWTH_MAX),
            row_max: shared.row_max,
            large: &shared.large,
            identity: self.descriptions.get(&step.baseline).map_or(&empty, |stored| &stored.identity),
            xmax: self.xmax(step.baseline),
        };
        match self.read(shared, reader, &wanted).await {
            Ok(Read::Chunk(chunk)) => self.hand_over(shared, table, step, chunk).await,
            Ok(Read::NotYet) => Ok(Attempt::Again),
            Ok(Read::Changed) => Ok(Attempt::Describe),
            Ok(Read::Worn) => Ok(Attempt::Restart),
            Ok(Read::Gone) => Ok(Attempt::Gone),
            Err(error) => {
                self.unwatch(shared).await?;
                Err(error)
            }
        }
    }

    /// Reads once the reader sees what the stream had delivered; the watch continues meanwhile.
    async fn read(&self, shared: &Shared, reader: &mut Reader, wanted: &Wanted<'_>) -> Result<Read, BaselineError> {
        let mut pause = PAUSE_MIN;
        loop {
            match read(reader, &shared.control, wanted).await? {
                Read::NotYet => shared.progress.waited(),
                read => return Ok(read),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Starts a watch of the table: this is the low watermark.
    async fn watch(&self, shared: &Shared, table: &Described) -> Result<Seen, BaselineError> {
        let (reply, seen) = oneshot::channel();
        let watch = Watch { table: self.table.clone(), digest: table.digest.clone(), key: table.key() };
        shared.send(Command::Watch { watch, reply }).await?;
        seen.await.map_err(|_| BaselineError::StreamEnded)
    }

    async fn unwatch(&self, shared: &Shared) -> Result<(), BaselineError> {
        let (reply, gone) = oneshot::channel();
        shared.send(Command::Unwatch { table: self.table.clone(), reply }).await?;
        gone.await.map_err(|_| BaselineError::StreamEnded)
    }

    /// Gives the stage a chunk, writes its watermark, and waits until it has passed.
    async fn hand_over(
        &mut self,
        shared: &Shared,
        table: &Described,
        step: &Step,
        chunk: read::Chunk,
    ) -> Result<Attempt, BaselineError> {
        fail::fail_point!("baseline::after_read");
        let read::Chunk { rows, snapshot, bounds, large } = chunk;
        let (count, bytes) = (rows.len(), rows.text_bytes());
        self.adapt(shared, count, bytes);
        let mark = ChunkMark {
            table: self.table.clone(),
            baseline: step.baseline,
            chunk: step.chunk,
            last: bounds.last,
            sinks: step.sinks.iter().cloned().collect(),
        };
        let nonce = Nonce::new(rand::random());
        let (taken, was_taken) = oneshot::channel();
        let (outcome, mut ended) = oneshot::channel();
        let raw = RawChunk {
            mark: mark.clone(),
            relation: table.relation.clone(),
            catalog: table.table.catalog.clone(),
            snapshot,
            rows,
            large,
        };
        let ready = Command::Ready { nonce: nonce.clone(), chunk: Box::new(raw), taken, outcome };
        shared.send(ready).await?;
        if was_taken.await.is_ok() {
            match self.write_watermark(shared, table, &mark, &bounds, count, &nonce).await {
                Ok(true) => {}
                Ok(false) => {
                    self.unwatch(shared).await?;
                    return self.go_by_stored_bounds(shared, step).await;
                }
                Err(error) => {
                    // The session broke, perhaps after the commit. Once the stage no longer knows the chunk, the
                    // outcome that it has sent is final.
                    self.unwatch(shared).await?;
                    return match ended.try_recv() {
                        Ok(Outcome::Delivered { rows }) => Ok(self.delivered(shared, step, &bounds, rows)),
                        _ => Err(error),
                    };
                }
            }
            fail::fail_point!("baseline::after_bounds_stored");
        }
        match ended.await {
            Ok(Outcome::Delivered { rows }) => {
                fail::fail_point!("baseline::after_watermark");
                Ok(self.delivered(shared, step, &bounds, rows))
            }
            Ok(Outcome::Reread(why)) => {
                debug!(table = %self.table, chunk = step.chunk, reason = why.name(), "chunk is read again");
                shared.progress.reread(why);
                Ok(Attempt::Again)
            }
            Ok(Outcome::Refused { why }) => {
                Err(BaselineError::RowRefused { relation: table.rows.name.clone(), chunk: step.chunk, why })
            }
            Err(_) => Err(BaselineError::StreamEnded),
        }
    }

    async fn write_watermark(
        &mut self,
        shared: &Shared,
        table: &Described,
        mark: &ChunkMark,
        bounds: &Bounds,
        rows: usize,
        nonce: &Nonce,
    ) -> Result<bool, BaselineError> {
        let client = shared.control.get().await?;
        let store = Store { client: &client, source: &shared.source };
        let written = store.mark(mark, table.kind(), bounds, rows as u64, nonce).await?;
        if written {
            self.plan.stored(mark.baseline, mark.chunk, bounds.last);
        }
        Ok(written)
    }

    async fn go_by_stored_bounds(&mut self, shared: &Shared, step: &Step) -> Result<Attempt, BaselineError> {
        if let Some(bounds) = self.bounds(shared, step.baseline, step.chunk).await? {
            self.plan.stored(step.baseline, step.chunk, bounds.last);
        }
        Ok(Attempt::Again)
    }

    fn delivered(&mut self, shared: &Shared, step: &Step, bounds: &Bounds, rows: u64) -> Attempt {
        debug!(table = %self.table, baseline = step.baseline, chunk = step.chunk, rows, "chunk delivered");
        // This also holds if the watermark's session broke and the result of the statement is not known: the watermark
        // has passed, so the bounds are stored.
        self.plan.stored(step.baseline, step.chunk, bounds.last);
        let progress = ChunkProgress { baseline: step.baseline, chunk: step.chunk, done: bounds.last };
        self.plan.delivered(&step.sinks, progress);
        self.failures = 0;
        self.end = Some((step.baseline, step.chunk, bounds.upper.clone()));
        shared.progress.delivered(&self.table, step.baseline, step.chunk, rows);
        Attempt::Delivered
    }

    /// Sets the number of rows so that the next chunk reaches the wanted size in bytes.
    fn adapt(&mut self, shared: &Shared, rows: usize, bytes: usize) {
        if rows == 0 {
            return;
        }
        let fit = shared.config.chunk_bytes.get() / (bytes / rows).max(1) as u64;
        self.rows_max = u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, self.rows_limit);
    }

    /// Where the chunk begins: the inner `None` means the first chunk, the outer one that the place is no longer known.
    async fn lower(&self, shared: &Shared, step: &Step) -> Result<Option<Option<Vec<String>>>, BaselineError> {
        let Some(before) = step.chunk.checked_sub(1).filter(|chunk| *chunk > 0) else { return Ok(Some(None)) };
        if let Some((baseline, chunk, end)) = &self.end
            && (*baseline, *chunk) == (step.baseline, before)
        {
            return Ok(end.clone().map(Some));
        }
        let bounds = self.bounds(shared, step.baseline, before).await?;
        Ok(bounds.and_then(|bounds| bounds.upper).map(Some))
    }

    async fn bounds(&self, shared: &Shared, baseline: u32, chunk: u32) -> Result<Option<Bounds>, BaselineError> {
        let client = shared.control.get().await?;
        Store { client: &client, source: &shared.source }.bounds(&self.table, baseline, chunk).await
    }
}
