//! Searches a timeline: each store is asked for as many versions as are wanted, and the answers are merged.

use std::collections::HashMap;

use audit_core::position::{Micros, Position};
use audit_core::search::{Commit, Matches, Moment, Wanted};
use audit_core::stored::Record;

use super::merge::better;
use super::{Tier, Timeline};
use crate::store::StoreError;

impl Timeline {
    /// The newest versions of the wanted tables that match, newest first, at most `limit`.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn search(&self, wanted: &Wanted, matches: Matches<'_>, limit: usize) -> Result<Vec<Record>, StoreError> {
        if let [alone] = self.tiers.as_slice() {
            return alone.store.search(wanted, matches, limit).await;
        }
        let (mut wanted, mut records) = (wanted.clone(), Vec::new());
        while records.len() < limit {
            let page = self.newest_of_all(&wanted, matches, limit - records.len()).await?;
            let Some(last) = page.last().map(Moment::of) else { break };
            wanted.before = Some(last);
            for record in page {
                if !self.is_repeated(&wanted.source, &record).await? {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    /// What the stores have, each version once; snapshot rows may be repeated.
    async fn newest_of_all(
        &self,
        wanted: &Wanted,
        matches: Matches<'_>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut all: Vec<Record> = Vec::new();
        for tier in &self.tiers {
            all.extend(tier.store.search(wanted, matches, limit).await?);
        }
        // The sort is stable: of two records of one version, that of the store that is asked first comes first.
        all.sort_by_key(|record| std::cmp::Reverse(Moment::of(record)));
        let mut records: Vec<Record> = Vec::new();
        for record in all {
            match records.last() {
                Some(last) if last.position == record.position => {
                    let kept = better(records.pop(), Some(record));
                    records.extend(kept);
                }
                _ => records.push(record),
            }
        }
        records.truncate(limit);
        Ok(records)
    }

    /// Whether another store has the same snapshot row at an earlier position.
    async fn is_repeated(&self, source: &str, record: &Record) -> Result<bool, StoreError> {
        let (true, Some(key)) = (record.event == "snapshot", &record.key) else { return Ok(false) };
        let same = Wanted {
            source: source.to_owned(),
            tables: vec![record.table_name.clone()],
            keys: vec![key.clone()],
            events: vec!["snapshot".to_owned()],
            ..Wanted::default()
        };
        let is_same = |other: &Record| other.baseline == record.baseline && other.position < record.position;
        for Tier { store, .. } in &self.tiers {
            if !store.search(&same, &is_same, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of versions that transactions have, in all tables; their commit times find them.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn commit_sizes(
        &self,
        source: &str,
        commits: &[(Commit, Micros)],
    ) -> Result<HashMap<Commit, u64>, StoreError> {
        let mut each: HashMap<(Commit, String), u64> = HashMap::new();
        for tier in &self.tiers {
            for (of, size) in tier.store.commit_sizes(source, commits).await? {
                // A store that has a table's versions has all of a transaction, unless its capture began or stopped in it.
                let known = each.entry(of).or_default();
                *known = size.max(*known);
            }
        }
        let mut sizes = HashMap::new();
        for ((commit, _), size) in each {
            *sizes.entry(commit).or_default() += size;
        }
        Ok(sizes)
    }

    /// The position before which every store has everything that it will have; `None` before a store's first write.
    pub fn common_end(&self) -> Option<Position> {
        let ends: Option<Vec<Position>> = self.tiers.iter().map(|tier| tier.head.as_ref().map(|_| tier.end)).collect();
        ends?.into_iter().min()
    }
}
