//! Removes files that rolls have replaced, some time later. Tables need not be in memory for this: otherwise a lake of
//! thousands of tables would open each of them once more for every roll.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use object_store::path::Path;

use super::Session;
use crate::adopt;
use crate::error::LakeError;
use crate::layout::{DATA, table_folder};
use crate::partition::Partition;
use crate::table::fresh::{Gone, GoneFile};
use crate::table::{OpenTable, TableId};

/// Number of files that are removed in one go, before the stream continues.
const SWEEP_MAX: usize = 256;

/// Files that no log names any more, by the time at which they may be removed.
#[derive(Debug, Default)]
pub struct Replaced {
    due: BTreeMap<Instant, Vec<(TableId, GoneFile)>>,
}

impl Replaced {
    pub fn take_over(&mut self, id: &TableId, gone: Gone, grace: Duration) {
        if gone.all {
            self.due.values_mut().for_each(|files| files.retain(|(table, _)| table != id));
            self.due.retain(|_, files| !files.is_empty());
        }
        let now = Instant::now();
        for file in gone.files {
            let due = file.since.map_or(now, |since| since + grace);
            self.due.entry(due).or_default().push((id.clone(), file));
        }
    }

    /// When the first file may be removed.
    pub fn due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(due, _)| *due)
    }

    /// Takes out the files that are due, by table.
    fn take_due(&mut self, now: Instant) -> BTreeMap<TableId, Vec<GoneFile>> {
        let (mut taken, mut count) = (BTreeMap::<TableId, Vec<GoneFile>>::new(), 0);
        while count < SWEEP_MAX
            && let Some(first) = self.due.first_entry().filter(|first| *first.key() <= now)
        {
            for (id, file) in first.remove() {
                taken.entry(id).or_default().push(file);
                count += 1;
            }
        }
        taken
    }
}

impl Session {
    /// Removes files that were replaced long enough ago.
    pub(super) async fn sweep(&mut self) -> Result<(), LakeError> {
        for (id, files) in self.replaced.take_due(Instant::now()) {
            let Err(error) = self.sweep_table(&id, &files).await else {
                self.swept(&id);
                continue;
            };
            let until = self.hold_back(&id, error)?;
            self.replaced.due.entry(until).or_default().extend(files.into_iter().map(|file| (id.clone(), file)));
        }
        Ok(())
    }

    async fn sweep_table(&mut self, id: &TableId, files: &[GoneFile]) -> Result<(), LakeError> {
        let partitions: BTreeSet<Partition> = files.iter().map(|file| file.partition).collect();
        for partition in partitions {
            self.look_again(id, partition).await?;
        }
        if files.iter().any(|file| !file.fenced) {
            // ⚠ A commit of our own comes first: otherwise the daemon that put the file could still commit it.
            self.with_table(id, async |table| table.own().await).await?;
        }
        let store = self.stores.of(id.tenant.as_deref())?;
        let paths: Vec<Path> = files.iter().map(|file| file.path.clone()).collect();
        adopt::delete_from(&store, paths).await
    }

    /// Checks a partition again some time after a roll into it: a daemon that was fenced may have put a roll of the
    /// same files there since.
    async fn look_again(&mut self, id: &TableId, partition: Partition) -> Result<(), LakeError> {
        let store = self.stores.of(id.tenant.as_deref())?;
        let owner = self.checkpoints.owner();
        let seen = adopt::list_in(&store, &table_folder(&id.name), &partition.folder(DATA), &id.name, owner).await?;
        if !adopt::overlap(seen) {
            return Ok(());
        }
        self.with_table(id, async |table| table.look_again(partition).await).await
    }

    /// Does something with a table, which is opened if it is not in memory.
    async fn with_table(
        &mut self,
        id: &TableId,
        work: impl AsyncFnOnce(&mut OpenTable) -> Result<(), LakeError>,
    ) -> Result<(), LakeError> {
        self.open_tables(std::slice::from_ref(id)).await?;
        let Some(mut table) = self.tables.remove(id) else { return Ok(()) };
        let done = work(&mut table).await;
        self.put_back(table);
        done
    }
}
