//! Work of a session next to the stream, which continues: rolls, one at a time, whose commits come between those of the
//! stream; and compactions, which make their own commits.

use std::time::{Duration, Instant};

use audit_core::position::Micros;
use futures::StreamExt;
use tokio::task::JoinHandle;

use super::{CONCURRENT, Session};
use crate::compact::Compactor;
use crate::error::LakeError;
use crate::merge::{Merged, merge};
use crate::table::{OpenTable, TableId};

/// How soon the end of a roll is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Opening tables for their rolls may take one part in this many of the stream's time.
const REOPEN_SHARE: u32 = 5;

/// A running roll.
#[derive(Debug)]
pub struct Rolling {
    pub(super) table: TableId,
    task: JoinHandle<Result<Option<Merged>, LakeError>>,
}

impl Drop for Rolling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Scheduled compactions. The lake records the last run, because sessions begin and end more often than runs.
#[derive(Debug)]
pub struct Compacting {
    compactor: Compactor,
    every: Duration,
    next: Instant,
    task: Option<JoinHandle<Result<(), LakeError>>>,
}

impl Compacting {
    /// The next run is due `every` after the end of the last one, whichever daemon made it.
    pub async fn new(compactor: Compactor, every: Duration) -> Result<Compacting, LakeError> {
        let since = compactor.last_run().await?.map(|last| Micros::now().0.saturating_sub(last.0));
        // A clock that was set back must not postpone a run for ever.
        let since = since.map_or(every, |since| Duration::from_micros(since.max(0) as u64));
        Ok(Compacting { compactor, every, next: Instant::now() + every.saturating_sub(since), task: None })
    }

    pub fn is_running(&self) -> bool {
        self.task.is_some()
    }

    /// When there will next be something to do.
    fn due(&self) -> Instant {
        if self.is_running() { Instant::now() + Duration::from_secs(1) } else { self.next }
    }

    /// Starts a run that is due, and handles the end of a run.
    async fn tend(&mut self) {
        if let Some(task) = self.task.take_if(|task| task.is_finished()) {
            let done = task.await.map_err(LakeError::Task).flatten();
            if let Err(error) = done {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                tracing::warn!(%error, cause, "could not compact the lake; trying again the next time");
            }
            self.next = Instant::now() + self.every;
        }
        if self.task.is_none() && self.next <= Instant::now() {
            let compactor = self.compactor.clone();
            self.task = Some(tokio::spawn(async move { compactor.all().await }));
        }
    }
}

impl Drop for Compacting {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Session {
    /// Bytes that tables may hold: less while a roll or a compaction sorts and encodes at the same time.
    pub(super) fn room(&self) -> usize {
        let compacting = self.compacting.as_ref().is_some_and(Compacting::is_running);
        self.settings.budget / (1 + usize::from(self.rolling.is_some()) + usize::from(compacting))
    }

    /// Commits a finished roll, starts the next one, and removes files that were replaced long enough ago. A failure
    /// concerns only one table: the stream and other tables' rolls continue.
    pub(super) async fn tend_fresh(&mut self) -> Result<(), LakeError> {
        self.finish_roll().await?;
        self.start_roll().await?;
        self.sweep().await?;
        if let Some(compacting) = &mut self.compacting {
            compacting.tend().await;
        }
        self.forget_idle();
        Ok(())
    }

    /// When [`Session::tend_fresh`] will next have something to do.
    pub(super) fn fresh_due(&self) -> Option<Instant> {
        let rolls = match &self.rolling {
            Some(_) => Some(Instant::now() + LOOK_EVERY),
            None => {
                let open = self.tables.values().filter_map(|table| self.roll_due(table)).min();
                let parked = self.parked.iter().map(|(id, due)| self.not_before(id, *due)).min();
                open.into_iter().chain(parked.map(|due| due.max(self.reopen_not_before))).min()
            }
        };
        let compacting = self.compacting.as_ref().map(Compacting::due);
        rolls.into_iter().chain(self.replaced.due()).chain(compacting).min()
    }

    fn roll_due(&self, table: &OpenTable) -> Option<Instant> {
        Some(self.not_before(&table.id(), table.fresh_due(&self.settings.rolls)?))
    }

    /// Rolls the table with the oldest files that are due.
    async fn start_roll(&mut self) -> Result<(), LakeError> {
        if self.rolling.is_some() {
            return Ok(());
        }
        if self.next_to_roll().is_none() {
            self.reopen().await?;
        }
        let Some(id) = self.next_to_roll() else { return Ok(()) };
        match self.roll(&id).await {
            Ok(()) => Ok(()),
            Err(error) => self.hold_back(&id, error).map(|_| ()),
        }
    }

    fn next_to_roll(&self) -> Option<TableId> {
        let due = self.tables.values().filter_map(|table| Some((self.roll_due(table)?, table)));
        let due = due.filter(|(due, _)| *due <= Instant::now());
        due.min_by_key(|(due, _)| *due).map(|(_, table)| table.id())
    }

    /// Opens tables that are not in memory and whose files are due: only some at a time, and only during a part of the
    /// time.
    async fn reopen(&mut self) -> Result<(), LakeError> {
        let begun = Instant::now();
        if begun < self.reopen_not_before {
            return Ok(());
        }
        let due = self.parked.iter().map(|(id, due)| (self.not_before(id, *due), id));
        let mut due: Vec<(Instant, &TableId)> = due.filter(|(due, _)| *due <= begun).collect();
        due.sort_unstable();
        let maker = self.maker();
        let open = |id: TableId| {
            let (maker, baseline) = (&maker, self.baselines.get(&id.name).copied());
            async move { (maker.open(id.clone(), baseline, true).await, id) }
        };
        let ids: Vec<TableId> = due.into_iter().take(CONCURRENT).map(|(_, id)| id.clone()).collect();
        let opened: Vec<_> = futures::stream::iter(ids).map(open).buffer_unordered(CONCURRENT).collect().await;
        for (opened, id) in opened {
            match opened {
                Ok(table) => self.opened(table),
                Err(error) => _ = self.hold_back(&id, error)?,
            }
        }
        self.reopen_not_before = Instant::now() + begun.elapsed() * (REOPEN_SHARE - 1);
        Ok(())
    }

    async fn roll(&mut self, id: &TableId) -> Result<(), LakeError> {
        let Some(mut table) = self.tables.remove(id) else { return Ok(()) };
        let settled = if table.is_unsettled() { table.load_fresh().await } else { Ok(()) };
        let files = table.next_roll(&self.settings.rolls, Instant::now());
        let mut context = table.context().clone();
        self.put_back(table);
        settled?;
        let Some(files) = files else {
            self.held_back.remove(id);
            return Ok(());
        };
        // A roll takes a third of the sink's memory, in two equal parts, for the rows that are sorted and for a row group;
        // half of the memory is left to the stream.
        let part = self.settings.budget / 6;
        context.settings.row_group_bytes = context.settings.row_group_bytes.min(part.max(1 << 20));
        let task = tokio::spawn(async move { merge(&context, &files, part, None).await });
        self.rolling = Some(Rolling { table: id.clone(), task });
        Ok(())
    }

    async fn finish_roll(&mut self) -> Result<(), LakeError> {
        let Some(mut rolling) = self.rolling.take_if(|rolling| rolling.task.is_finished()) else { return Ok(()) };
        let merged = (&mut rolling.task).await.map_err(LakeError::Task).flatten();
        let Some(mut table) = self.tables.remove(&rolling.table) else { return Ok(()) };
        let done = match merged {
            Ok(Some(merged)) => table.replace(merged).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if done.is_err() {
            table.roll_broke_off();
        }
        self.put_back(table);
        match done {
            Ok(()) => {
                self.held_back.remove(&rolling.table);
                Ok(())
            }
            Err(error) => self.hold_back(&rolling.table, error).map(|_| ()),
        }
    }
}
