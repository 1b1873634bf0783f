//! What a session does beside the stream, which goes on meanwhile: rolls, one at a time, whose commits come between those of the stream; and
//! compactions, which commit for themselves.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Session;
use crate::compact::Compactor;
use crate::error::LakeError;
use crate::merge::{Merged, merge};
use crate::table::TableId;

/// How soon a roll's end is seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How soon one that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// A roll that is under way.
#[derive(Debug)]
pub struct Rolling {
    pub(super) table: TableId,
    task: JoinHandle<Result<Option<Merged>, LakeError>>,
    /// Its file, until it is committed.
    merged: Option<Merged>,
}

impl Drop for Rolling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Compactions on a schedule.
#[derive(Debug)]
pub struct Compacting {
    compactor: Compactor,
    every: Duration,
    next: Instant,
    task: Option<JoinHandle<Result<(), LakeError>>>,
}

impl Compacting {
    pub fn new(compactor: Compactor, every: Duration) -> Compacting {
        Compacting { compactor, every, next: Instant::now() + every, task: None }
    }

    pub fn is_running(&self) -> bool {
        self.task.is_some()
    }

    /// When it will next have something to do.
    fn due(&self) -> Instant {
        if self.is_running() { Instant::now() + Duration::from_secs(1) } else { self.next }
    }

    /// Begins a run that is due, and hears of one that has ended.
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
    /// What tables may hold: less while something else sorts and encodes beside them.
    pub(super) fn room(&self) -> usize {
        let compacting = self.compacting.as_ref().is_some_and(Compacting::is_running);
        self.settings.budget / (1 + usize::from(self.rolling.is_some()) + usize::from(compacting))
    }

    /// Commits a roll that is through, begins the next, and removes what was replaced long enough ago.
    pub(super) async fn tend_fresh(&mut self) -> Result<(), LakeError> {
        self.finish_roll().await?;
        self.start_roll().await?;
        let (now, rolls) = (Instant::now(), self.settings.rolls);
        for table in self.tables.values_mut() {
            table.sweep_replaced(&rolls, now).await?;
        }
        if let Some(compacting) = &mut self.compacting {
            compacting.tend().await;
        }
        self.forget_idle();
        Ok(())
    }

    /// When [`Session::tend_fresh`] will next have something to do.
    pub(super) fn fresh_due(&self) -> Option<Instant> {
        let due = self.tables.values().filter_map(|table| table.fresh_due(&self.settings.rolls));
        let due = due.chain(self.parked.values().copied()).min();
        let rolling = match &self.rolling {
            Some(_) => Some(Instant::now() + LOOK_EVERY),
            None => due.map(|due| due.max(self.roll_not_before)),
        };
        rolling.into_iter().chain(self.compacting.as_ref().map(Compacting::due)).min()
    }

    /// The table with the oldest files that are due.
    async fn start_roll(&mut self) -> Result<(), LakeError> {
        let (now, rolls) = (Instant::now(), self.settings.rolls);
        if self.rolling.is_some() || now < self.roll_not_before {
            return Ok(());
        }
        let waiting = self.parked.iter().filter(|(_, due)| **due <= now).min_by_key(|(_, due)| **due);
        if let Some(id) = waiting.map(|(id, _)| id.clone()) {
            self.open_tables(&[id]).await?;
        }
        let due = |due: &Option<Instant>| due.is_some_and(|due| due <= now);
        let tables = self.tables.values_mut().filter(|table| due(&table.fresh_due(&rolls)));
        let Some(table) = tables.min_by_key(|table| table.fresh_due(&rolls)) else { return Ok(()) };
        if table.is_unsettled() {
            table.settle_rolls().await?;
        }
        let Some(files) = table.next_roll(&rolls, now) else { return Ok(()) };
        // A third of what the sink may hold, beside the half that is left to the stream: rows that are sorted, and a row group.
        let part = self.settings.budget / 6;
        let mut context = table.context().clone();
        context.settings.row_group_bytes = context.settings.row_group_bytes.min(part.max(1 << 20));
        let task = tokio::spawn(async move { merge(&context, &files, part, None).await });
        self.rolling = Some(Rolling { table: table.id(), task, merged: None });
        Ok(())
    }

    async fn finish_roll(&mut self) -> Result<(), LakeError> {
        let Some(mut rolling) = self.rolling.take_if(|rolling| rolling.merged.is_some() || rolling.task.is_finished())
        else {
            return Ok(());
        };
        let Some(table) = self.tables.get_mut(&rolling.table) else { return Ok(()) };
        let merged = match rolling.merged.take() {
            Some(merged) => Ok(Some(merged)),
            None => (&mut rolling.task).await.map_err(LakeError::Task).flatten(),
        };
        match merged {
            Ok(None) => Ok(()),
            Ok(Some(merged)) => {
                let done = table.replace(merged.clone()).await;
                if done.is_err() {
                    rolling.merged = Some(merged);
                    self.rolling = Some(rolling);
                }
                done
            }
            // The stream does not wait for it: readers of the log miss nothing.
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|source| source.to_string());
                tracing::warn!(table = %rolling.table.name, tenant = rolling.table.tenant.as_deref(), %error, cause, "could not roll fresh files; trying again");
                table.roll_broke_off();
                self.roll_not_before = Instant::now() + RETRY_AFTER;
                Ok(())
            }
        }
    }
}
