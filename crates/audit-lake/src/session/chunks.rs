//! Chunks of baselines. The tables that have rows of a chunk commit it together: see [`crate::table::chunks`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::{Batch, ChunkMark, Progress};
use audit_core::position::{Micros, Position};
use audit_core::quarantine::Quarantine;
use audit_core::sink::ChunkProgress;
use futures::StreamExt;

use super::route::Route;
use super::{CONCURRENT, Session, WriteError, refused};
use crate::encode::{LARGE, on_cpu};
use crate::error::LakeError;
use crate::file::ChunkNote;
use crate::rows::Shared;
use crate::table::{Append, Need, OpenTable, TableId};

/// Chunks of one table that are taken in but not committed.
#[derive(Debug)]
pub struct Group {
    note: ChunkNote,
    since: Instant,
    /// Tables with rows of these chunks.
    members: Vec<TableId>,
    /// The chunks are being committed, so no more can join.
    closing: bool,
    /// Home has committed them.
    decided: bool,
}

impl Group {
    pub fn due(&self, age: Duration) -> Instant {
        self.since + age
    }

    async fn commit(&mut self, home: &mut OpenTable, others: &mut Vec<OpenTable>) -> Result<(), LakeError> {
        let (note, progress, spread) = (self.note, self.note.progress(), !others.is_empty());
        if !self.decided {
            each(others, Step::Put(note)).await?;
            home.put_chunks(note, spread).await?;
            let by = if spread { home.context().owner } else { 0 };
            let decided = home.commit_chunks(progress, by).await;
            if matches!(decided, Err(LakeError::Overtaken { .. })) {
                home.withdraw_chunks().await?;
                each(others, Step::Withdraw).await?;
            }
            decided?;
            self.decided = true;
        }
        if spread {
            each(others, Step::Commit(progress)).await?;
            home.commit_chunks(progress, 0).await?;
        }
        Ok(())
    }
}

/// A step that tenants' tables take with chunks.
#[derive(Clone, Copy)]
enum Step {
    Put(ChunkNote),
    Commit(ChunkProgress),
    Withdraw,
}

impl Step {
    async fn take(self, mut table: OpenTable) -> (OpenTable, Result<(), LakeError>) {
        let taken = match self {
            Step::Put(note) => table.put_chunks(note, true).await,
            Step::Commit(progress) => table.commit_chunks(progress, 0).await,
            Step::Withdraw => table.withdraw_chunks().await,
        };
        (table, taken)
    }
}

/// Takes a step with several tables at a time, and with all of them even if one fails.
async fn each(tables: &mut Vec<OpenTable>, step: Step) -> Result<(), LakeError> {
    let under_way = futures::stream::iter(std::mem::take(tables)).map(|table| step.take(table));
    let mut errors = Vec::new();
    for (table, taken) in under_way.buffer_unordered(CONCURRENT).collect::<Vec<_>>().await {
        tables.push(table);
        errors.extend(taken.err());
    }
    errors.sort_by_key(LakeError::is_retry);
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Finishes commits of the stream that an error interrupted, because the chunks' commits build on the state of the
/// tables' logs.
async fn finish(home: &mut OpenTable, others: &mut [OpenTable], seen: Position) -> Result<(), LakeError> {
    for table in others.iter_mut().chain([home]).filter(|table| table.is_closing()) {
        table.close(seen).await?;
    }
    Ok(())
}

impl Session {
    pub(super) async fn write_chunk(
        &mut self,
        batch: &Batch,
        mark: &ChunkMark,
        quarantine: &Quarantine,
    ) -> Result<(), WriteError> {
        if !mark.sinks.iter().any(|sink| **sink == *self.settings.name) {
            return Ok(());
        }
        let home = TableId::at_home(&mark.table);
        self.open_tables(std::slice::from_ref(&home)).await?;
        if (mark.baseline, mark.chunk) <= self.chunk_taken(&home) {
            return Ok(());
        }
        let route = self.route(batch, quarantine).await?;
        self.open_tables(&route.ids).await?;
        let large = batch.versions().any(|version| version.is_larger_than(LARGE));
        if !self.takes_chunk(batch, mark, &route, large) {
            self.close_chunks(&mark.table).await?;
            self.open_tables(std::slice::from_ref(&home)).await?;
            self.takes_chunk(batch, mark, &route, large);
        }
        if let Some(table) = self.tables.get_mut(&home) {
            if table.is_closing() {
                table.close(self.seen.position).await?;
            }
            table.begin_baseline(mark.baseline).await?;
        }
        let mut active: Vec<OpenTable> = route.ids.iter().filter_map(|id| self.tables.remove(id)).collect();
        let appended = self.append_chunk(batch, &mut active, &route, large, quarantine).await;
        let full = active.iter().any(OpenTable::is_full);
        self.deactivate(active);
        appended?;
        self.join(mark, route.ids);
        if full { self.close_chunks(&mark.table).await.map_err(WriteError::Lake) } else { Ok(()) }
    }

    /// The last chunk that was taken in.
    fn chunk_taken(&self, home: &TableId) -> (u32, u32) {
        let group = self.chunks.get(&home.name).map(|group| group.note.progress());
        let stored = || self.tables.get(home).map_or(ChunkProgress::default(), |table| table.log.txn().baseline);
        let taken = group.unwrap_or_else(stored);
        (taken.baseline, taken.chunk)
    }

    /// Whether a chunk can join those that were taken in. Home takes part even if it has no rows of the chunk, so that
    /// it knows the table's shape.
    fn takes_chunk(&mut self, batch: &Batch, mark: &ChunkMark, route: &Route, large: bool) -> bool {
        let mut fits = self.chunks.get(&mark.table).is_none_or(|group| group.note.baseline == mark.baseline);
        let Some(first) = batch.versions().next() else { return fits };
        let home = TableId::at_home(&mark.table);
        for id in route.ids.iter().chain([&home]) {
            fits &= self.tables.get_mut(id).is_none_or(|table| table.takes_chunk(&first, large));
        }
        fits
    }

    async fn append_chunk(
        &mut self,
        batch: &Batch,
        active: &mut [OpenTable],
        route: &Route,
        large: bool,
        quarantine: &Quarantine,
    ) -> Result<(), WriteError> {
        let (source, sink) = (self.source.clone(), self.settings.name.clone());
        let shared = Shared { source: &source, recorded_at: Micros::now() };
        let mut versions = batch.versions_unless(quarantine).zip(route.targets(0));
        loop {
            let run = || -> Result<Option<usize>, WriteError> {
                for (version, index) in versions.by_ref() {
                    let Some(table) = active.get_mut(index) else { continue };
                    let append = Append { shared, before: Progress::default() };
                    let need = table.append_snapshot(&version, large, append);
                    if need.map_err(|error| refused(&sink, &version, &error))? == Some(Need::Encode) {
                        table.encode()?;
                        if table.wants_upload() {
                            return Ok(Some(index));
                        }
                    }
                }
                Ok(None)
            };
            let Some(index) = on_cpu(run)? else { return Ok(()) };
            active[index].upload().await?;
        }
    }

    /// Adds a chunk that was taken in completely.
    fn join(&mut self, mark: &ChunkMark, ids: Vec<TableId>) {
        let note = ChunkNote { baseline: mark.baseline, first: mark.chunk, last: mark.chunk, done: mark.last };
        let begun = || Group { note, since: Instant::now(), members: Vec::new(), closing: false, decided: false };
        let group = self.chunks.entry(mark.table.clone()).or_insert_with(begun);
        (group.note.last, group.note.done) = (mark.chunk, mark.last);
        for id in ids {
            if !group.members.contains(&id) {
                group.members.push(id);
            }
        }
    }

    /// Continues commits of chunks that an error interrupted.
    pub(super) async fn finish_chunks(&mut self) -> Result<(), LakeError> {
        let closing = self.chunks.iter().filter(|(_, group)| group.closing).map(|(name, _)| name.clone());
        for name in closing.collect::<Vec<_>>() {
            self.close_chunks(&name).await?;
        }
        Ok(())
    }

    /// Commits the chunks of a table that were taken in. Call it again after an error that can be retried.
    pub(super) async fn close_chunks(&mut self, name: &Arc<str>) -> Result<(), LakeError> {
        let home = TableId::at_home(name);
        self.open_tables(std::slice::from_ref(&home)).await?;
        let Some(mut at_home) = self.tables.remove(&home) else { return Ok(()) };
        let Some(mut group) = self.chunks.remove(name) else {
            self.put_back(at_home);
            return Ok(());
        };
        group.closing = true;
        let others = group.members.iter().filter(|id| **id != home);
        let mut others: Vec<OpenTable> = others.filter_map(|id| self.tables.remove(id)).collect();
        let done = match finish(&mut at_home, &mut others, self.seen.position).await {
            Ok(()) => group.commit(&mut at_home, &mut others).await,
            error => error,
        };
        if done.is_ok() {
            self.baselines.insert(name.clone(), group.note.progress());
        } else {
            self.chunks.insert(name.clone(), group);
        }
        for table in others.into_iter().chain([at_home]) {
            self.put_back(table);
        }
        done
    }
}
