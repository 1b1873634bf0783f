//! Tables whose rolls fail: each waits on its own, and neither the stream nor other tables wait for it.

use std::time::{Duration, Instant};

use super::Session;
use super::tenants::few;
use crate::error::LakeError;
use crate::table::{OpenTable, TableId};

/// Pauses before a failed roll is tried again: after the first failure, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(30);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Why a table waits, and until when.
#[derive(Debug)]
pub struct HeldBack {
    until: Instant,
    pause: Duration,
    error: String,
}

impl Session {
    /// Notes that a roll of the table, or something that belongs to one, failed. Returns when it is tried again. Until
    /// then readers of the log miss nothing.
    ///
    /// # Errors
    /// Returns the same error if it means that this daemon does not own the lake any more, or has to read it again.
    pub(super) fn hold_back(&mut self, id: &TableId, error: LakeError) -> Result<Instant, LakeError> {
        if error.is_lost_race() {
            return Err(error);
        }
        // ⚠ If home went back, more than one table is affected, because what was lost had been acknowledged.
        if error.table_went_back().is_some() && id.tenant.is_none() {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(|source| source.to_string());
        let pause = match self.held_back.get(id) {
            Some(held) => (held.pause * 2).min(RETRY_AFTER_MAX),
            None => RETRY_AFTER,
        };
        let (table, tenant, retry_in_s) = (&id.name, id.tenant.as_deref(), pause.as_secs());
        tracing::warn!(%table, tenant, %error, cause, retry_in_s, "could not roll fresh files; trying again");
        let until = Instant::now() + pause;
        let error = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        self.held_back.insert(id.clone(), HeldBack { until, pause, error });
        Ok(until)
    }

    /// Called after replaced files of the table were removed: the table has no problem any more if no roll will come
    /// that could show it.
    pub(super) fn swept(&mut self, id: &TableId) {
        let rolls = |table: &OpenTable| table.fresh_due(&self.settings.rolls).is_some();
        if !self.parked.contains_key(id) && !self.tables.get(id).is_some_and(rolls) {
            self.held_back.remove(id);
        }
    }

    /// When a table may be rolled that is due at `due`.
    pub(super) fn not_before(&self, id: &TableId, due: Instant) -> Instant {
        self.held_back.get(id).map_or(due, |held| held.until.max(due))
    }

    /// Messages about what is held back, and why.
    pub fn troubles(&self) -> Vec<String> {
        let of = |id: &TableId| id.tenant.as_ref().map_or_else(String::new, |tenant| format!(" of tenant {tenant:?}"));
        let shown = |(id, held): (&TableId, &HeldBack)| {
            format!("fresh files of {}{} cannot be rolled: {}", id.name, of(id), held.error)
        };
        let mut troubles =
            few(self.held_back.iter().map(shown).collect(), "tables have fresh files that cannot be rolled");
        troubles.extend(self.sent_home());
        troubles
    }
}
