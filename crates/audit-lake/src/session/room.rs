//! What a session keeps in memory.

use std::collections::HashSet;
use std::time::Instant;

use super::Session;
use crate::error::LakeError;
use crate::table::{OpenTable, TableId};

/// Number of tables that are kept in memory although they have nothing to commit.
const IDLE_TABLES_MAX: usize = 500;

impl Session {
    /// Frees memory. Tables that were written least recently are closed first; a single table that is left ends its row
    /// group instead, if encoded data can leave memory before the file is complete.
    pub(super) async fn make_room(&mut self) -> Result<(), LakeError> {
        // Tables that could free nothing.
        let mut spent = HashSet::new();
        while self.held > self.room() {
            let Some((id, before, closes)) = self.least_recently_written(&spent) else { break };
            if closes { self.close_table(&id).await } else { self.shrink(&id).await }?;
            if self.tables.get(&id).is_some_and(|table| table.counted >= before) {
                spent.insert(id);
            }
        }
        self.forget_idle();
        Ok(())
    }

    /// The table that was written least recently, the bytes that it holds, and whether to close it. It is not closed if
    /// it cannot be closed now, or if it is the only one that holds anything and can free a part of that instead.
    fn least_recently_written(&self, spent: &HashSet<TableId>) -> Option<(TableId, usize, bool)> {
        let full = || self.tables.values().filter(|table| table.counted > 0);
        let oldest = full().filter(|table| !spent.contains(&table.id())).min_by_key(|table| table.touched)?;
        let alone = full().count() == 1 && self.stores.home().stages();
        Some((oldest.id(), oldest.counted, !alone && !oldest.waits(self.seen.position)))
    }

    async fn shrink(&mut self, id: &TableId) -> Result<(), LakeError> {
        let Some(mut table) = self.tables.remove(id) else { return Ok(()) };
        let shrunk = table.shrink().await;
        self.put_back(table);
        shrunk
    }

    async fn close_table(&mut self, id: &TableId) -> Result<(), LakeError> {
        if self.tables.get(id).is_some_and(OpenTable::has_chunks) {
            self.close_chunks(&id.name).await?;
        }
        let Some(mut table) = self.tables.remove(id) else { return Ok(()) };
        let closed = table.close(self.seen.position).await;
        self.put_back(table);
        closed
    }

    /// Drops tables from memory that were not written to for a long time. For those with fresh files the session
    /// remembers when these are due; tables that are due now are dropped last, because they would be opened again at
    /// once.
    pub(super) fn forget_idle(&mut self) {
        let rolling = self.rolling.as_ref().map(|rolling| &rolling.table);
        let idle = self.tables.values().filter(|table| table.is_idle());
        let surplus = idle.clone().count().saturating_sub(IDLE_TABLES_MAX);
        if surplus == 0 {
            return;
        }
        let now = Instant::now();
        let is_due = |table: &OpenTable| table.fresh_due(&self.settings.rolls).is_some_and(|due| due <= now);
        let idle = idle.map(|table| (is_due(table), table.touched, table.id()));
        let mut idle: Vec<(bool, u64, TableId)> = idle.filter(|(.., id)| Some(id) != rolling).collect();
        idle.sort_unstable();
        idle.truncate(surplus);
        for (.., id) in idle {
            let Some(table) = self.tables.remove(&id) else { continue };
            if let Some(due) = table.fresh_due(&self.settings.rolls) {
                self.parked.insert(id, due);
            }
        }
    }
}
