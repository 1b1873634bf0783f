//! Counts the versions of a timeline.
//!
//! A store counts for itself, quickly, and totals of disjoint parts can be added. So the positions are divided where a
//! store begins or ends, and each stretch is counted by every store that reaches it. If the stores agree, or only one of
//! them has anything there, that is the answer. If not, the versions are read and counted one by one.

use audit_core::position::{Position, Window};
use audit_core::totals::{Bounds, QUARTER, Totals};
use futures::TryStreamExt;
use serde_json::Value;

use super::{Tier, Timeline};
use crate::store::{Selection, StoreError};

impl Timeline {
    /// Counts the versions of these tables that lie within the bounds.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn totals(&self, source: &str, tables: &[String], bounds: &Bounds) -> Result<Totals, StoreError> {
        let mut all = Totals::default();
        for table in tables {
            let mut from = bounds.after.map(Position::next);
            for to in self.divisions() {
                let window = Window { from, to: Some(to) }.within(upper(bounds));
                if !window.is_empty() {
                    all.add(self.stretch(source, table, window, bounds).await?);
                }
                from = from.max(Some(to));
            }
        }
        Ok(all)
    }

    /// Where a store begins or ends, in order.
    fn divisions(&self) -> Vec<Position> {
        let began = |tier: &Tier| tier.head.as_ref().and_then(|head| head.began);
        let ends = self.tiers.iter().flat_map(|tier| [began(tier), Some(tier.end)]);
        let mut ends: Vec<Position> = ends.flatten().collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    async fn stretch(&self, source: &str, table: &str, window: Window, bounds: &Bounds) -> Result<Totals, StoreError> {
        let own = Bounds {
            after: window.from.and_then(Position::previous),
            up_to: window.to.and_then(Position::previous),
            ..*bounds
        };
        let mut found = Totals::default();
        for tier in self.tiers.iter().filter(|tier| Some(tier.end) >= window.to) {
            let totals = tier.store.totals(source, &[table.to_owned()], &own).await?;
            match (found.versions, totals.versions) {
                (_, 0) => {}
                (0, _) => found = totals,
                _ if found == totals => {}
                _ => return self.within(window).counted(source, table, bounds).await,
            }
        }
        Ok(found)
    }

    /// Counts versions one by one.
    async fn counted(&self, source: &str, table: &str, bounds: &Bounds) -> Result<Totals, StoreError> {
        let selection = Selection {
            source: source.to_owned(),
            table: table.to_owned(),
            since: bounds.since,
            until: bounds.until,
            unattributed: false,
            after: None,
        };
        let mut totals = Totals::default();
        let mut versions = self.versions(&selection).await?;
        while let Some(version) = versions.try_next().await? {
            let missing = version.missing();
            let context = version.context.as_deref().and_then(|json| serde_json::from_str::<Value>(json.get()).ok());
            totals.versions += 1;
            totals.without_actor += u64::from(missing.iter().any(|what| what == "actor"));
            totals.without_reason += u64::from(missing.iter().any(|what| what == "reason"));
            totals.undoing += u64::from(context.is_some_and(|context| context.get("undo_of").is_some()));
            *totals.by_event.entry(version.event).or_default() += 1;
            *totals.by_quarter.entry(version.committed_at.0.div_euclid(QUARTER)).or_default() += 1;
            totals.count_actor(version.actor_id.as_deref(), 1);
        }
        if totals.versions > 0 {
            totals.by_table.insert(table.to_owned(), totals.versions);
        }
        Ok(totals)
    }
}

fn upper(bounds: &Bounds) -> Window {
    Window { from: None, to: bounds.up_to.map(Position::next) }
}
