//! What a session keeps in memory.

use super::Session;
use crate::error::LakeError;
use crate::table::{OpenTable, TableId};

/// Tables kept in memory with nothing to commit.
const IDLE_TABLES_MAX: usize = 500;

impl Session {
    /// Gives memory back: tables written least recently are closed first; the one that is left ends its row group,
    /// where what is encoded can leave memory before the file is whole.
    pub(super) async fn make_room(&mut self) -> Result<(), LakeError> {
        while self.held > self.room() {
            let Some((id, before, alone)) = self.least_recently_written() else { break };
            if alone { self.shrink(&id).await } else { self.close_table(&id).await }?;
            if self.tables.get(&id).is_some_and(|table| table.counted >= before) {
                break;
            }
        }
        self.forget_idle();
        Ok(())
    }

    /// With what it holds, and whether it is the only one that holds something and can give up part of that.
    fn least_recently_written(&self) -> Option<(TableId, usize, bool)> {
        let full = || self.tables.values().filter(|table| table.counted > 0);
        let oldest = full().min_by_key(|table| table.touched)?;
        Some((oldest.id(), oldest.counted, full().count() == 1 && self.stores.home().stages()))
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

    /// Lets go of tables that were not written to for long. Of those with fresh files it is remembered when these are due.
    pub(super) fn forget_idle(&mut self) {
        let rolling = self.rolling.as_ref().map(|rolling| &rolling.table);
        let idle = self.tables.values().filter(|table| table.is_idle()).map(|table| (table.touched, table.id()));
        let mut idle: Vec<(u64, TableId)> = idle.filter(|(_, id)| Some(id) != rolling).collect();
        if idle.len() <= IDLE_TABLES_MAX {
            return;
        }
        idle.sort_unstable();
        idle.truncate(idle.len() - IDLE_TABLES_MAX);
        for (_, id) in idle {
            let Some(table) = self.tables.remove(&id) else { continue };
            if let Some(due) = table.fresh_due(&self.settings.rolls) {
                self.parked.insert(id, due);
            }
        }
    }
}
