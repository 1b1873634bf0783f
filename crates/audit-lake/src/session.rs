//! The work of the sink from one `take` to the next error: it brings versions to tables, tables to commits, and commits
//! to the lake's checkpoint.

mod chunks;
mod held_back;
mod maker;
pub mod roll;
mod room;
mod route;
mod start;
mod sweep;
pub mod tenants;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::{Batch, Progress, Version};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::quarantine::Quarantine;
use audit_core::sink::{ChunkProgress, SinkError};
use futures::{StreamExt, TryStreamExt};

use crate::checkpoint::Checkpoints;
use crate::encode::{self, on_cpu};
use crate::error::LakeError;
use crate::file::Limits;
use crate::partition::Partitioning;
use crate::rows::{Shared, TooLarge};
use crate::session::chunks::Group;
use crate::session::held_back::HeldBack;
use crate::session::maker::Maker;
use crate::session::roll::{Compacting, Rolling};
use crate::session::sweep::Replaced;
use crate::session::tenants::Tenants;
use crate::table::fresh::Rolls;
use crate::table::{Append, Need, OpenTable, TableId};
use crate::tenants::Stores;

/// Number of tables that are opened or closed at a time.
const CONCURRENT: usize = 16;
/// Number of tables that a batch's versions are distributed to at a time. Between two such groups, tables that are open
/// can be closed to free memory.
const ACTIVE_MAX: usize = 256;
/// Longest time until the checkpoint follows the commits. With many tables a checkpoint for each commit would double
/// the number of requests.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Settings that a session gets from its sink.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: Arc<str>,
    pub files: encode::Settings,
    /// When a table's files are closed.
    pub limits: Limits,
    pub file_age: Duration,
    /// Files that are smaller than this are fresh.
    pub data: Limits,
    pub rolls: Rolls,
    /// How long the sink waits for a tenant's store that is missing.
    pub tenant_wait: Duration,
    /// Some readers list `data/`.
    pub listed: bool,
    /// Partitioning of new tables.
    pub partitioning: Partitioning,
    pub keep_before: bool,
    pub budget: usize,
}

/// A session of the sink, which owns the lake.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    stores: Stores,
    source: Arc<str>,
    checkpoints: Checkpoints,
    tables: HashMap<TableId, OpenTable>,
    /// Tables that are not in memory and have fresh files, and when those are due to be rolled.
    parked: HashMap<TableId, Instant>,
    /// Chunks that are taken in but not committed, by table.
    chunks: BTreeMap<Arc<str>, Group>,
    /// How far the baselines of tables are, according to home.
    baselines: HashMap<Arc<str>, ChunkProgress>,
    pub(crate) tenants: Tenants,
    /// Where the stream began.
    start: Progress,
    /// The stream's progress: everything up to here was taken in.
    seen: Progress,
    /// The last change of the stream before the next version.
    last: (Position, Lsn),
    stored_at: Instant,
    clock: u64,
    held: usize,
    rolling: Option<Rolling>,
    compacting: Option<Compacting>,
    /// Tables whose rolls fail.
    held_back: HashMap<TableId, HeldBack>,
    replaced: Replaced,
    reopen_not_before: Instant,
}

/// Why a write failed.
#[derive(Debug)]
pub enum WriteError {
    Lake(LakeError),
    /// A version that Parquet cannot hold.
    Refused(SinkError),
}

impl From<LakeError> for WriteError {
    fn from(error: LakeError) -> WriteError {
        WriteError::Lake(error)
    }
}

impl Session {
    fn maker(&self) -> Maker {
        Maker {
            stores: self.stores.clone(),
            source: self.source.clone(),
            owner: self.checkpoints.owner(),
            settings: self.settings.clone(),
        }
    }

    pub async fn begin(&mut self, start: Progress) -> Result<(), LakeError> {
        (self.start, self.seen) = (start, start);
        self.last = (start.position, start.change_lsn);
        if self.checkpoints.stored().is_none() {
            self.checkpoints.store(start).await?;
        }
        Ok(())
    }

    /// The progress of the stored checkpoint.
    pub fn durable(&self) -> Progress {
        self.checkpoints.stored().map_or(Progress::default(), |stored| stored.progress())
    }

    pub fn held(&self) -> usize {
        self.held
    }

    /// Finds out whether the whole lake was put back. ⚠ If only tables were, the lake's checkpoint is intact: after a new
    /// takeover the lake would continue as if nothing were missing. So the checkpoint goes back to what every table has.
    /// Then the slot sends again what is missing, or a gap is named until a person accepts it.
    pub async fn judged(&mut self, error: LakeError) -> LakeError {
        let Some(mut has) = error.table_went_back() else { return error };
        match self.checkpoints.is_still_there().await {
            Ok(()) => {}
            Err(LakeError::WentBack { .. }) => return error,
            Err(other) => return other,
        }
        for table in self.tables.values_mut() {
            match table.log.is_still_there().await {
                Ok(()) => {}
                Err(other) => match other.table_went_back() {
                    Some(also) => has = has.min(also),
                    None => return other,
                },
            }
        }
        match self.checkpoints.store(self.only_to(has)).await {
            Ok(()) => error,
            Err(other) => other,
        }
    }

    /// The progress of a lake of which a table has nothing after `has`. In an epoch of which the table has nothing, that is
    /// none at all.
    fn only_to(&self, has: Position) -> Progress {
        let epoch = self.durable().position.epoch;
        let flushed_lsn = if has.epoch == epoch { has.commit_lsn } else { Lsn::ZERO };
        Progress { position: Position::new(epoch, Lsn::ZERO, 0), change_lsn: Lsn::ZERO, flushed_lsn }
    }

    pub async fn write(&mut self, batches: &[&Batch], quarantine: &Quarantine) -> Result<(), WriteError> {
        self.finish_chunks().await?;
        for batch in batches {
            match &batch.chunk {
                Some(mark) => self.write_chunk(batch, mark, quarantine).await?,
                None => self.write_rows(batch, quarantine).await?,
            }
            self.seen = later(self.seen, batch.progress);
            self.last = self.last.max((self.seen.position, self.seen.change_lsn));
            self.make_room().await?;
        }
        self.store_checkpoint(false).await?;
        Ok(())
    }

    async fn write_rows(&mut self, batch: &Batch, quarantine: &Quarantine) -> Result<(), WriteError> {
        let route = self.route(batch, quarantine).await?;
        for (at, ids) in route.ids.chunks(ACTIVE_MAX).enumerate() {
            if at > 0 {
                self.make_room().await?;
            }
            self.open_tables(ids).await?;
            let mut active: Vec<OpenTable> = ids.iter().filter_map(|id| self.tables.remove(id)).collect();
            let written = self.append_rows(batch, &mut active, route.targets(at * ACTIVE_MAX), quarantine).await;
            self.deactivate(active);
            written?;
        }
        Ok(())
    }

    /// Appends a batch's versions to the active tables. `targets` has for each version the index of its table; an index
    /// may be out of the range of `active`, and its version is then skipped.
    ///
    /// ```text
    /// next version ──append──▶ taken in ──▶ next version
    ///                │ Need
    ///                ▼
    ///             satisfy: close the table, visit the partition ──▶ append the same version again
    ///                      encode, upload                       ──▶ next version
    /// ```
    ///
    /// Appending takes processor time and runs within [`on_cpu`]; `satisfy` waits for the store and runs outside of it.
    async fn append_rows(
        &mut self,
        batch: &Batch,
        active: &mut [OpenTable],
        targets: impl Iterator<Item = usize>,
        quarantine: &Quarantine,
    ) -> Result<(), WriteError> {
        let stored = self.durable().position;
        let (source, sink) = (self.source.clone(), self.settings.name.clone());
        let shared = Shared { source: &source, recorded_at: Micros::now() };
        let mut versions = batch.versions_unless(quarantine).zip(targets).peekable();
        let mut last = self.last;
        loop {
            let run = || -> Result<Option<(usize, Need, Position)>, WriteError> {
                while let Some((version, index)) = versions.peek() {
                    let position = version.position();
                    let lsn = version.lsn();
                    if let Some(table) = active.get_mut(*index)
                        && position > table.taken
                        && position > stored
                    {
                        let flushed_lsn = version.transaction().commit_lsn;
                        let before = Progress { position: last.0, change_lsn: last.1, flushed_lsn };
                        let append = Append { shared, before };
                        match table.append(version, append).map_err(|error| refused(&sink, version, &error))? {
                            None => {}
                            Some(Need::Encode) => {
                                table.encode()?;
                                if table.wants_upload() || table.is_full() {
                                    let index = *index;
                                    last = last.max((position, lsn));
                                    versions.next();
                                    return Ok(Some((index, Need::Encode, position)));
                                }
                            }
                            Some(need) => return Ok(Some((*index, need, position))),
                        }
                    }
                    last = last.max((position, lsn));
                    versions.next();
                }
                Ok(None)
            };
            let Some((index, need, position)) = on_cpu(run)? else { return Ok(()) };
            satisfy(&mut active[index], need, position).await?;
        }
    }

    async fn open_tables(&mut self, ids: &[TableId]) -> Result<(), LakeError> {
        let missing: Vec<TableId> = ids.iter().filter(|id| !self.tables.contains_key(*id)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let maker = self.maker();
        let known = |id: TableId| {
            let (baseline, has_fresh) = (self.baselines.get(&id.name).copied(), self.parked.contains_key(&id));
            (id, baseline, has_fresh)
        };
        let missing: Vec<_> = missing.into_iter().map(known).collect();
        let open = |(id, baseline, has_fresh)| maker.open(id, baseline, has_fresh);
        let opened: Vec<OpenTable> =
            futures::stream::iter(missing).map(open).buffer_unordered(CONCURRENT).try_collect().await?;
        opened.into_iter().for_each(|table| self.opened(table));
        Ok(())
    }

    fn opened(&mut self, mut table: OpenTable) {
        self.clock += 1;
        table.touched = self.clock;
        self.parked.remove(&table.id());
        self.put_back(table);
    }

    fn deactivate(&mut self, active: Vec<OpenTable>) {
        self.clock += 1;
        for mut table in active {
            table.touched = self.clock;
            self.put_back(table);
        }
    }

    fn put_back(&mut self, mut table: OpenTable) {
        let held = table.held_bytes();
        self.held = (self.held + held).saturating_sub(table.counted);
        table.counted = held;
        let id = table.id();
        self.replaced.take_over(&id, table.fresh.take_gone(), self.settings.rolls.grace);
        self.tables.insert(id, table);
    }

    /// Closes and commits the tables that are due, or all.
    pub async fn flush(&mut self, all: bool) -> Result<(), LakeError> {
        self.finish_chunks().await?;
        let now = Instant::now();
        let age = self.settings.file_age;
        let seen = self.seen.position;
        let due = |table: &OpenTable| all || table.due(age, seen).is_some_and(|due| due <= now);
        let ids: Vec<TableId> =
            self.tables.values().filter(|table| table.is_dirty() && due(table)).map(OpenTable::id).collect();
        let due: Vec<OpenTable> = ids.iter().filter_map(|id| self.tables.remove(id)).collect();
        let close = |mut table: OpenTable| async move {
            let closed = table.close(seen).await;
            (table, closed)
        };
        let closed: Vec<_> = futures::stream::iter(due).map(close).buffer_unordered(CONCURRENT).collect().await;
        let mut errors = Vec::new();
        for (table, closed) in closed {
            self.put_back(table);
            errors.extend(closed.err());
        }
        // Chunks are not committed if a table's commit failed: the answer to a commit of the same table may have been
        // lost.
        let chunks_due = |group: &Group| errors.is_empty() && (all || group.due(age) <= now);
        let names = self.chunks.iter().filter(|(_, group)| chunks_due(group)).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            errors.extend(self.close_chunks(&name).await.err());
        }
        // An error that ends the session is more important than errors that may disappear after a repeat.
        errors.sort_by_key(|error| error.is_retry());
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => self.store_checkpoint(all).await,
        }?;
        if all { Ok(()) } else { self.tend_fresh().await }
    }

    /// How far everything is committed.
    fn committed(&self) -> Progress {
        let open = self.tables.values().filter_map(|table| table.before_first);
        open.min_by_key(|progress| progress.position)
            .map_or(self.seen, |first| if first.position < self.seen.position { first } else { self.seen })
    }

    /// What the next checkpoint may say, if that is news. ⚠ The place where the stream began is none: a gap may lie
    /// before it, whose record comes first. A checkpoint that is past the gap before the record is committed would hide
    /// the gap from the next start.
    fn news(&self) -> Option<Progress> {
        let committed = self.committed();
        let begins = committed.position == self.start.position && committed.flushed_lsn <= self.start.flushed_lsn;
        (!begins && is_later(committed, self.durable())).then_some(committed)
    }

    async fn store_checkpoint(&mut self, all: bool) -> Result<(), LakeError> {
        let news = self.news().filter(|committed| all || self.checkpoint_due(*committed) <= Instant::now());
        if let Some(committed) = news {
            self.checkpoints.store(committed).await?;
            self.stored_at = Instant::now();
        }
        Ok(())
    }

    /// When the checkpoint may be stored: soon if commits moved it, rarely if only idle WAL did.
    fn checkpoint_due(&self, committed: Progress) -> Instant {
        let moved = committed.position > self.durable().position;
        self.stored_at + if moved { CHECKPOINT_EVERY.min(self.settings.file_age) } else { self.settings.file_age }
    }

    pub fn due(&self) -> Option<Instant> {
        let seen = self.seen.position;
        let tables = self.tables.values().filter_map(|table| table.due(self.settings.file_age, seen)).min();
        let chunks = self.chunks.values().map(|group| group.due(self.settings.file_age)).min();
        let checkpoint = self.news().map(|committed| self.checkpoint_due(committed));
        tables.into_iter().chain(chunks).chain(checkpoint).chain(self.fresh_due()).min()
    }
}

fn refused(sink: &str, version: &Version<'_>, error: &TooLarge) -> WriteError {
    let (table, column, position) = (&version.table().name, &error.column, version.position());
    let message =
        format!("the lake cannot take the value of {table}.{column} at {position}: it is too large for Parquet");
    WriteError::Refused(SinkError::refusing(sink, position, message, Some("ignore the column")))
}

/// Does what a table needs before more rows are added. `position` is that of the next version or of the last one.
async fn satisfy(table: &mut OpenTable, need: Need, position: Position) -> Result<(), LakeError> {
    match need {
        Need::Close => table.close(position).await,
        Need::Visit(partition) => table.visit(partition).await,
        Need::Encode => {
            table.upload().await?;
            if table.is_full() { table.close(position).await } else { Ok(()) }
        }
    }
}

fn is_later(a: Progress, b: Progress) -> bool {
    (a.position, a.flushed_lsn) > (b.position, b.flushed_lsn) && a.position >= b.position
}

pub(crate) fn later(a: Progress, b: Progress) -> Progress {
    if is_later(b, a) { b } else { a }
}
