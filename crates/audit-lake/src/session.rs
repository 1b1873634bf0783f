//! What the sink does from one `take` to the next error: versions to tables, tables to commits, commits to the lake's checkpoint.

mod maker;
pub mod roll;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::{Batch, ChunkMark, Progress, Version};
use audit_core::position::{Lsn, Micros, Position};
use audit_core::sink::{Identity, Stored};
use audit_core::table::Table;
use futures::{StreamExt, TryStreamExt};

use crate::checkpoint::Checkpoints;
use crate::encode::{self, on_cpu};
use crate::error::{LakeError, fault};
use crate::file::Limits;
use crate::partition::Partitioning;
use crate::rows::{Shared, TooLarge};
use crate::session::maker::Maker;
use crate::session::roll::{Compacting, Rolling};
use crate::store::Store;
use crate::table::fresh::Rolls;
use crate::table::{Append, Need, OpenTable};

/// Tables opened, or closed, at a time.
const CONCURRENT: usize = 16;
/// Tables kept in memory with nothing to commit.
const IDLE_TABLES_MAX: usize = 500;
/// The checkpoint follows the commits after this, at most: with many tables it would otherwise be as many requests again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// Settings that a session gets from its sink.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: Arc<str>,
    pub files: encode::Settings,
    /// When a table's files are closed.
    pub limits: Limits,
    pub file_age: Duration,
    /// What is smaller is fresh.
    pub data: Limits,
    pub rolls: Rolls,
    /// Some readers list `data/`.
    pub listed: bool,
    /// Of tables that begin.
    pub partitioning: Partitioning,
    pub keep_before: bool,
    pub budget: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    store: Store,
    source: Arc<str>,
    checkpoints: Checkpoints,
    tables: HashMap<Arc<str>, OpenTable>,
    /// How far the stream is: all of it up to here was taken in.
    seen: Progress,
    /// The last change of the stream before the next version.
    last: (Position, Lsn),
    stored_at: Instant,
    clock: u64,
    held: usize,
    rolling: Option<Rolling>,
    compacting: Option<Compacting>,
    /// After one that failed.
    roll_not_before: Instant,
}

/// Why a write did not go through.
#[derive(Debug)]
pub enum WriteError {
    Lake(LakeError),
    Refused { position: Position, table: String, column: String },
}

impl From<LakeError> for WriteError {
    fn from(error: LakeError) -> WriteError {
        WriteError::Lake(error)
    }
}

impl Session {
    /// Takes the lake over and says what it has.
    pub async fn take(
        store: Store,
        settings: Settings,
        compacting: Option<Compacting>,
        identity: &Identity,
    ) -> Result<(Session, Stored), LakeError> {
        let checkpoints = Checkpoints::take(&store, identity).await?;
        fault!("lake::after_take");
        store.sweep().await?;
        let source: Arc<str> = identity.source.as_str().into();
        let mut session = Session {
            settings,
            store,
            source,
            seen: Progress::default(),
            last: Default::default(),
            stored_at: Instant::now(),
            tables: HashMap::new(),
            clock: 0,
            held: 0,
            rolling: None,
            compacting,
            roll_not_before: Instant::now(),
            checkpoints,
        };
        let stored = session.stored().await?;
        Ok((session, stored))
    }

    /// Reads the shapes and baselines of all tables, and adopts whole chunks that were left behind.
    async fn stored(&mut self) -> Result<Stored, LakeError> {
        let mut stored = Stored { checkpoint: self.checkpoints.stored().cloned(), ..Stored::default() };
        let maker = self.maker();
        let folders = maker.table_folders().await?;
        let position = self.durable().position;
        let look = |folder| maker.look_at(folder, position);
        let opened = futures::stream::iter(folders).map(look).buffer_unordered(CONCURRENT);
        let mut opened = std::pin::pin!(opened);
        while let Some(found) = opened.try_next().await? {
            let Some(table) = found else { continue };
            if table.chunks.baseline > 0 {
                stored.baselines.insert(table.log.table.to_string(), table.chunks);
            }
            stored.shapes.extend(table.log.state.iter().flat_map(|state| state.shapes.clone()));
            if !table.fresh.is_empty() {
                self.tables.insert(table.log.table.clone(), table);
            }
        }
        // A lake with tables and without a checkpoint was robbed of it: its tables may be ahead of where a stream would begin.
        if stored.checkpoint.is_none() && !stored.shapes.is_empty() {
            let path = self.store.show(&crate::layout::CHECKPOINTS.into());
            return Err(LakeError::altered(path, "the lake has tables, and no checkpoint"));
        }
        Ok(stored)
    }

    fn maker(&self) -> Maker {
        Maker {
            store: self.store.clone(),
            source: self.source.clone(),
            owner: self.checkpoints.owner(),
            settings: self.settings.clone(),
        }
    }

    pub async fn begin(&mut self, start: Progress) -> Result<(), LakeError> {
        self.seen = start;
        self.last = (start.position, start.change_lsn);
        if self.checkpoints.stored().is_none() {
            self.checkpoints.store(start).await?;
        }
        Ok(())
    }

    /// What the stored checkpoint says.
    pub fn durable(&self) -> Progress {
        self.checkpoints.stored().map_or(Progress::default(), |stored| stored.progress())
    }

    pub fn held(&self) -> usize {
        self.held
    }

    pub async fn write(&mut self, batches: &[&Batch], quarantined: &HashSet<Position>) -> Result<(), WriteError> {
        for batch in batches {
            match &batch.chunk {
                Some(mark) => self.write_chunk(batch, mark, quarantined).await?,
                None => self.write_rows(batch, quarantined).await?,
            }
            self.seen = later(self.seen, batch.progress);
            self.last = self.last.max((self.seen.position, self.seen.change_lsn));
            self.make_room().await?;
        }
        self.store_checkpoint(false).await?;
        Ok(())
    }

    async fn write_rows(&mut self, batch: &Batch, quarantined: &HashSet<Position>) -> Result<(), WriteError> {
        let (mut active, indices) = self.activate(batch).await?;
        if active.is_empty() {
            return Ok(());
        }
        let written = self.append_rows(batch, &mut active, &indices, quarantined).await;
        self.deactivate(active);
        written
    }

    async fn append_rows(
        &mut self,
        batch: &Batch,
        active: &mut [OpenTable],
        indices: &[Option<usize>],
        quarantined: &HashSet<Position>,
    ) -> Result<(), WriteError> {
        let stored = self.durable().position;
        let source = self.source.clone();
        let shared = Shared { source: &source, recorded_at: Micros::now() };
        let mut versions = batch.versions().peekable();
        let mut at: Option<(&Arc<Table>, Option<usize>)> = None;
        loop {
            let run = || -> Result<Option<(usize, Need, Position)>, WriteError> {
                while let Some(version) = versions.peek() {
                    let position = version.position();
                    let index = match at {
                        Some((table, index)) if Arc::ptr_eq(table, version.table()) => index,
                        _ => index_of(batch, version, indices),
                    };
                    at = Some((version.table(), index));
                    let Some((index, table)) = index.and_then(|index| Some((index, active.get_mut(index)?))) else {
                        self.last = self.last.max((position, version.lsn()));
                        versions.next();
                        continue;
                    };
                    if position > table.taken && position > stored {
                        let flushed_lsn = version.transaction().commit_lsn;
                        let before = Progress { position: self.last.0, change_lsn: self.last.1, flushed_lsn };
                        let quarantined = !quarantined.is_empty() && quarantined.contains(&position);
                        let append = Append { shared, before, quarantined };
                        match table.append(version, append).map_err(|error| refused(version, error))? {
                            None => {}
                            Some(Need::Encode) => {
                                table.encode()?;
                                if table.wants_upload() || table.is_full() {
                                    self.last = self.last.max((position, version.lsn()));
                                    versions.next();
                                    return Ok(Some((index, Need::Encode, position)));
                                }
                            }
                            Some(need) => return Ok(Some((index, need, position))),
                        }
                    }
                    self.last = self.last.max((position, version.lsn()));
                    versions.next();
                }
                Ok(None)
            };
            let Some((index, need, position)) = on_cpu(run)? else { return Ok(()) };
            satisfy(&mut active[index], need, position).await?;
        }
    }

    async fn write_chunk(
        &mut self,
        batch: &Batch,
        mark: &ChunkMark,
        quarantined: &HashSet<Position>,
    ) -> Result<(), WriteError> {
        if !mark.sinks.iter().any(|sink| **sink == *self.settings.name) {
            return Ok(());
        }
        self.open_tables(std::slice::from_ref(&mark.table)).await?;
        let Some(mut table) = self.tables.remove(&mark.table) else { return Ok(()) };
        let written = self.append_chunk(batch, mark, &mut table, quarantined).await;
        self.deactivate(vec![table]);
        written
    }

    async fn append_chunk(
        &mut self,
        batch: &Batch,
        mark: &ChunkMark,
        table: &mut OpenTable,
        quarantined: &HashSet<Position>,
    ) -> Result<(), WriteError> {
        let has = (table.chunks.baseline, table.chunks.chunk);
        if (mark.baseline, mark.chunk) <= has {
            return Ok(());
        }
        let seen = self.seen.position;
        while let Some(need) = table.before_chunk(mark, batch) {
            satisfy(table, need, seen).await?;
        }
        table.begin_baseline(mark.baseline).await?;
        let source = self.source.clone();
        let shared = Shared { source: &source, recorded_at: Micros::now() };
        let mut versions = batch.versions().peekable();
        loop {
            let run = || -> Result<Option<Need>, WriteError> {
                for version in versions.by_ref() {
                    let quarantined = !quarantined.is_empty() && quarantined.contains(&version.position());
                    let append = Append { shared, before: Progress::default(), quarantined };
                    let need =
                        table.append_snapshot(&version, mark, append).map_err(|error| refused(&version, error))?;
                    if need == Some(Need::Encode) {
                        table.encode()?;
                        if table.wants_upload() {
                            return Ok(need);
                        }
                    }
                }
                Ok(None)
            };
            if on_cpu(run)?.is_none() {
                break;
            }
            table.upload().await?;
        }
        table.chunk_taken(mark);
        if table.is_full() {
            table.close(seen).await?;
        }
        Ok(())
    }

    /// Takes the tables of a batch out, opening those that are not open; for each of the batch's tables its index among them, unless its
    /// versions go elsewhere.
    async fn activate(&mut self, batch: &Batch) -> Result<(Vec<OpenTable>, Vec<Option<usize>>), LakeError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let mut indices = Vec::new();
        for table in batch.tables() {
            if !table.goes_to(&self.settings.name) {
                indices.push(None);
                continue;
            }
            let at = names.iter().position(|name| **name == *table.name).unwrap_or_else(|| {
                names.push(table.name.clone());
                names.len() - 1
            });
            indices.push(Some(at));
        }
        self.open_tables(&names).await?;
        let active = names.iter().filter_map(|name| self.tables.remove(name)).collect();
        Ok((active, indices))
    }

    async fn open_tables(&mut self, names: &[Arc<str>]) -> Result<(), LakeError> {
        let missing: Vec<Arc<str>> = names.iter().filter(|name| !self.tables.contains_key(*name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let maker = self.maker();
        let opened = futures::stream::iter(missing).map(|name| maker.open(name)).buffer_unordered(CONCURRENT);
        for table in opened.try_collect::<Vec<OpenTable>>().await? {
            self.tables.insert(table.log.table.clone(), table);
        }
        Ok(())
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
        self.tables.insert(table.log.table.clone(), table);
    }

    /// Gives memory back: tables written least recently are closed first; the one that is left ends its row group,
    /// where what is encoded can leave memory before the file is whole.
    async fn make_room(&mut self) -> Result<(), LakeError> {
        while self.held > self.room() {
            let full = self.tables.values().filter(|table| table.counted > 0);
            let Some(name) = full.min_by_key(|table| table.touched).map(|table| table.log.table.clone()) else { break };
            let alone = self.tables.values().filter(|table| table.counted > 0).count() == 1;
            let alone = alone && self.store.stages();
            let Some(mut table) = self.tables.remove(&name) else { break };
            let before = table.counted;
            let closed = if alone { table.shrink().await } else { table.close(self.seen.position).await };
            self.put_back(table);
            closed?;
            if self.tables.get(&name).is_some_and(|table| table.counted >= before) {
                break;
            }
        }
        self.forget_idle();
        Ok(())
    }

    fn forget_idle(&mut self) {
        let idle = |table: &OpenTable| !table.is_dirty() && table.fresh.is_empty();
        let mut idle: Vec<(u64, Arc<str>)> = self
            .tables
            .values()
            .filter(|table| idle(table))
            .map(|table| (table.touched, table.log.table.clone()))
            .collect();
        if idle.len() <= IDLE_TABLES_MAX {
            return;
        }
        idle.sort_unstable();
        for (_, name) in &idle[..idle.len() - IDLE_TABLES_MAX] {
            self.tables.remove(name);
        }
    }

    /// Closes and commits the tables that are due, or all.
    pub async fn flush(&mut self, all: bool) -> Result<(), LakeError> {
        let now = Instant::now();
        let age = self.settings.file_age;
        let due = |table: &OpenTable| {
            table.is_dirty() && (all || table.is_closing() || table.since.is_none_or(|since| since + age <= now))
        };
        let names: Vec<Arc<str>> =
            self.tables.values().filter(|table| due(table)).map(|table| table.log.table.clone()).collect();
        let due: Vec<OpenTable> = names.iter().filter_map(|name| self.tables.remove(name)).collect();
        let seen = self.seen.position;
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
        // An error that ends the session outweighs those that a repeat may heal.
        errors.sort_by_key(|error| error.is_retry());
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => self.store_checkpoint(all).await,
        }?;
        self.tend_fresh().await
    }

    /// How far everything is committed.
    fn committed(&self) -> Progress {
        let open = self.tables.values().filter_map(|table| table.before_first);
        open.min_by_key(|progress| progress.position)
            .map_or(self.seen, |first| if first.position < self.seen.position { first } else { self.seen })
    }

    async fn store_checkpoint(&mut self, all: bool) -> Result<(), LakeError> {
        let committed = self.committed();
        if is_later(committed, self.durable()) && (all || self.checkpoint_due(committed) <= Instant::now()) {
            self.checkpoints.store(committed).await?;
            self.stored_at = Instant::now();
        }
        Ok(())
    }

    /// When the checkpoint may be stored: soon where commits moved it, rarely where only idle WAL did.
    fn checkpoint_due(&self, committed: Progress) -> Instant {
        let moved = committed.position > self.durable().position;
        self.stored_at + if moved { CHECKPOINT_EVERY.min(self.settings.file_age) } else { self.settings.file_age }
    }

    pub fn due(&self) -> Option<Instant> {
        let dirty = self.tables.values().filter(|table| table.is_dirty());
        let tables = dirty.filter_map(|table| Some(table.since? + self.settings.file_age)).min();
        let committed = self.committed();
        let checkpoint = is_later(committed, self.durable()).then(|| self.checkpoint_due(committed));
        tables.into_iter().chain(checkpoint).chain(self.fresh_due()).min()
    }
}

fn refused(version: &Version<'_>, error: TooLarge) -> WriteError {
    WriteError::Refused { position: version.position(), table: version.table().name.to_string(), column: error.column }
}

fn index_of(batch: &Batch, version: &Version<'_>, indices: &[Option<usize>]) -> Option<usize> {
    let at = batch.tables().iter().position(|table| Arc::ptr_eq(table, version.table()))?;
    indices.get(at).copied().flatten()
}

/// Does what a table needs before more rows come in. `position` is that of the next version, or the last.
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

fn later(a: Progress, b: Progress) -> Progress {
    if is_later(b, a) { b } else { a }
}
