//! The trail of one row in all stores: how [`audit_core::trail`] reads a timeline.

use std::collections::BTreeMap;

use audit_core::position::{Position, Window};
use audit_core::stored::Record;
use audit_core::trail::{Stretch, Trail, Turn};

use super::merge::better;
use super::seen::identity;
use crate::store::{Snapshot, StoreError, StoreTrail};

/// The versions of a table in each store, in the order in which they are asked.
#[derive(Default)]
pub(super) struct Trails(pub Vec<StoreTrail>);

impl Trail for Trails {
    type Error = StoreError;

    async fn changes(&mut self, key: &str) -> Result<Vec<Turn>, StoreError> {
        let mut turns = Vec::new();
        for trail in &mut self.0 {
            turns.extend(trail.changes(key).await?);
        }
        turns.sort_by_key(|turn| turn.position);
        turns.dedup_by_key(|turn| turn.position);
        Ok(turns)
    }

    async fn last_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, StoreError> {
        let mut last: Option<Turn> = None;
        for trail in &mut self.0 {
            let turns = last.into_iter().chain(trail.last_turn(key, window).await?);
            last = turns.max_by_key(|turn| turn.position);
        }
        Ok(last)
    }

    async fn first_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, StoreError> {
        let mut first: Option<Turn> = None;
        for trail in &mut self.0 {
            let turns = first.into_iter().chain(trail.first_turn(key, window).await?);
            first = turns.min_by_key(|turn| turn.position);
        }
        Ok(first)
    }

    async fn newest(&mut self, stretches: &[Stretch], limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut newest = self.newest_of_each(stretches, limit).await?;
        if self.0.len() > 1 && newest.values().any(|record| record.event == "snapshot") {
            let first = self.first_snapshots(stretches).await?;
            // As many as may be left out are asked for in addition, because a limit counts what is shown.
            newest = self.newest_of_each(stretches, limit.saturating_add(first.repeated)).await?;
            newest.retain(|position, record| !first.has_before(record, *position));
        }
        let surplus = newest.len().saturating_sub(limit);
        Ok(newest.into_values().skip(surplus).collect())
    }

    async fn truncations(&mut self, window: Window) -> Result<Vec<Record>, StoreError> {
        let mut found = BTreeMap::new();
        for trail in &mut self.0 {
            let truncations = trail.truncations(window).await?;
            found.extend(truncations.into_iter().map(|record| (record.position, record)));
        }
        Ok(found.into_values().collect())
    }
}

impl Trails {
    /// The newest versions of all stores by position: at least `limit` if there are so many.
    async fn newest_of_each(
        &mut self,
        stretches: &[Stretch],
        limit: usize,
    ) -> Result<BTreeMap<Position, Record>, StoreError> {
        let mut newest: BTreeMap<Position, Record> = BTreeMap::new();
        for trail in &mut self.0 {
            for record in trail.newest(stretches, limit).await? {
                let position = record.position;
                let known = newest.remove(&position);
                newest.extend(better(known, Some(record)).map(|record| (position, record)));
            }
        }
        Ok(newest)
    }

    async fn first_snapshots(&mut self, stretches: &[Stretch]) -> Result<FirstSnapshots, StoreError> {
        let mut first = FirstSnapshots::default();
        for trail in &mut self.0 {
            for (position, snapshot) in trail.snapshots(stretches).await? {
                let known = first.positions.entry(snapshot).or_insert(position);
                first.repeated += usize::from(*known != position);
                *known = position.min(*known);
            }
        }
        Ok(first)
    }
}

/// Where the snapshot rows of a row are for the first time.
#[derive(Default)]
struct FirstSnapshots {
    positions: BTreeMap<Snapshot, Position>,
    /// Number of snapshot rows that are no first ones.
    repeated: usize,
}

impl FirstSnapshots {
    /// Whether the record is a snapshot row that a store has at an earlier position.
    fn has_before(&self, record: &Record, position: Position) -> bool {
        let first = identity(record).and_then(|snapshot| self.positions.get(&snapshot));
        first.is_some_and(|first| *first < position)
    }
}
