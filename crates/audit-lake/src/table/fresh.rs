//! Fresh files: which of them the log names, when they are rolled, and which files were replaced.
//!
//! A roll makes one file of `data/` from fresh files, then makes one commit that names the new file and removes the
//! others. Readers that list see the versions after the put, readers of the log after the commit of each fresh file; no
//! reader sees them twice. A roll that is interrupted between the put and the commit is settled before any other roll:
//! its file is committed if it has all that the log has in its range, and removed otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use audit_core::position::Micros;
use deltalake_core::kernel::Add;
use object_store::path::Path;

use super::OpenTable;
use crate::adopt::{self, Seen};
use crate::commit::{Change, Txn};
use crate::error::{LakeError, fault};
use crate::file::Limits;
use crate::layout::{DATA, FRESH};
use crate::merge::{LogFile, Merged};
use crate::partition::Partition;

/// When fresh files are rolled, and how long replaced files stay.
#[derive(Clone, Copy, Debug)]
pub struct Rolls {
    pub age: Duration,
    pub grace: Duration,
    pub full: Limits,
}

/// The fresh files of a table.
#[derive(Debug, Default)]
pub struct Fresh {
    /// By partition, in order of their first versions.
    files: BTreeMap<Partition, Vec<FreshFile>>,
    /// Files that the log does not name any more, until the session takes them over.
    gone: Gone,
    /// When a roll was interrupted that is not settled yet.
    unsettled: Option<Instant>,
}

#[derive(Debug)]
struct FreshFile {
    file: LogFile,
    since: Instant,
}

/// Files that the log does not name any more, or never did.
#[derive(Debug, Default)]
pub struct Gone {
    pub files: Vec<GoneFile>,
    /// These are all such files of the table: what was known before is out of date.
    pub all: bool,
}

#[derive(Clone, Debug)]
pub struct GoneFile {
    pub path: Path,
    pub partition: Partition,
    /// When it was replaced. `None` means so long ago that no reader can need it, or that it was never in the log.
    pub since: Option<Instant>,
    /// The log has had a commit of ours since the file was put: no other daemon can commit it any more.
    pub fenced: bool,
}

impl Fresh {
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.gone.files.is_empty()
    }

    /// Takes out the files that are to be removed some time later.
    pub fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    /// Adds a file that readers of an older state of the log may still need. The log has a commit of ours.
    pub fn leave(&mut self, path: Path, partition: Partition) {
        self.gone.files.push(GoneFile { path, partition, since: Some(Instant::now()), fenced: true });
    }

    /// Takes in the files that a commit has added.
    pub fn committed(&mut self, adds: &[LogFile]) {
        let since = Instant::now();
        for file in adds.iter().filter(|file| file.root == FRESH) {
            self.files.entry(file.partition).or_default().push(FreshFile { file: file.clone(), since });
        }
    }

    fn replaced(&mut self, folder: &str, files: &[LogFile]) {
        for replaced in files {
            if let Some(known) = self.files.get_mut(&replaced.partition) {
                known.retain(|known| known.file.name != replaced.name);
            }
            self.leave(Path::from(format!("{folder}/{}", replaced.path())), replaced.partition);
        }
        self.files.retain(|_, files| !files.is_empty());
    }
}

/// When a partition's files must be rolled.
fn due(files: &[FreshFile], rolls: &Rolls) -> Option<Instant> {
    let oldest = files.iter().map(|file| file.since).min()?;
    let sum = |of: fn(&LogFile) -> u64| files.iter().map(|file| of(&file.file)).sum::<u64>();
    let full = rolls.full.reached(sum(|file| file.size), sum(|file| file.rows));
    Some(if full { oldest } else { oldest + rolls.age })
}

impl OpenTable {
    /// Reads what the log has in `fresh/`, and settles what an earlier daemon or an interrupted roll has left.
    pub async fn load_fresh(&mut self) -> Result<(), LakeError> {
        let now = Instant::now();
        self.log.forget_taken_away();
        self.fresh = Fresh { unsettled: Some(now), gone: Gone { files: Vec::new(), all: true }, ..Fresh::default() };
        let seen = adopt::list(&self.log, FRESH, self.context.owner).await?;
        if !seen.is_empty() {
            let mut known = adopt::files_in_log(&self.log, FRESH).await?;
            known.sort_by_key(|file| (file.name.first, file.name.last));
            let mut seen: HashMap<String, Seen> = seen.into_iter().map(|seen| (seen.name.to_string(), seen)).collect();
            for file in known {
                let since = seen.remove(&file.name.to_string()).and_then(|seen| written(&seen)).unwrap_or(now);
                self.fresh.files.entry(file.partition).or_default().push(FreshFile { file, since });
            }
            self.settle_rolls(seen.into_values().collect()).await?;
        }
        self.fresh.unsettled = None;
        Ok(())
    }

    /// Settles files in `data/` that the log does not name and that end at or before the table's position: rolls that
    /// were not finished or came late. `gone` are the fresh files that the log does not name.
    async fn settle_rolls(&mut self, gone: Vec<Seen>) -> Result<(), LakeError> {
        let by = self.log.partitioning();
        let gone: Vec<(Partition, Seen)> = gone
            .into_iter()
            .filter_map(|seen| Some((Partition::from_path(by, seen.meta.location.as_ref())?, seen)))
            .collect();
        let partitions = self.fresh.files.keys().chain(gone.iter().map(|(partition, _)| partition));
        let partitions: BTreeSet<Partition> = partitions.copied().collect();
        let mut named = adopt::files_in_log(&self.log, DATA).await?;
        named.retain(|file| partitions.contains(&file.partition));
        let named: HashSet<String> = named.into_iter().map(|file| file.name.to_string()).collect();
        let mut rolled = Vec::new();
        for partition in partitions {
            let seen = adopt::list(&self.log, &partition.folder(DATA), self.context.owner).await?;
            let position = self.log.txn().position;
            for file in &seen {
                let of_stream = file.name.chunks.is_none() && file.name.last <= position;
                if of_stream && !named.contains(&file.name.to_string()) {
                    self.settle_roll(partition, file).await?;
                }
            }
            rolled.extend(seen);
        }
        // ⚠ Readers of an older state of the log need the replaced files for a time that begins with the roll's commit,
        // not when this daemon sees them: otherwise a table that is opened again and again would keep them for ever.
        self.fresh.gone.files.extend(gone.into_iter().map(|(partition, seen)| {
            let replaces = |roll: &&Seen| roll.name.holds(seen.name.first) && roll.name.holds(seen.name.last);
            let since = rolled.iter().filter(replaces).filter_map(written).max();
            GoneFile { path: seen.meta.location, partition, since, fenced: false }
        }));
        Ok(())
    }

    async fn settle_roll(&mut self, partition: Partition, file: &Seen) -> Result<(), LakeError> {
        // ⚠ A commit of our own comes first: otherwise the daemon that put the file could still commit it.
        self.own().await?;
        fault!("lake::before_adopt");
        let found = adopt::read(&self.log, file).await?;
        let inside =
            |known: &&FreshFile| found.name.holds(known.file.name.first) && found.name.holds(known.file.name.last);
        let known = self.fresh.files.get(&partition).map_or(&[][..], Vec::as_slice);
        let replaces: Vec<LogFile> = known.iter().filter(inside).map(|known| known.file.clone()).collect();
        let rows: u64 = replaces.iter().map(|file| file.rows).sum();
        if !replaces.is_empty() && rows == found.rows {
            return self.replace(Merged { add: found.add, replaces }).await;
        }
        if !self.context.listed {
            // It may have been replaced by a compaction, so it stays for a while, for readers of an older state of the
            // log.
            self.fresh.leave(file.meta.location.clone(), partition);
            return Ok(());
        }
        adopt::remove(&self.log, std::iter::once(file.meta.location.clone())).await
    }

    /// Commits a file instead of those that it was made of.
    pub async fn replace(&mut self, merged: Merged) -> Result<(), LakeError> {
        let txn = Txn { owner: self.context.owner, ..self.log.txn() };
        let add = Add { data_change: false, ..merged.add };
        let removes = merged.replaces.iter().map(LogFile::removal).collect();
        self.log.commit(&Change { adds: vec![add], removes, txn, schema: None }).await?;
        self.fresh.replaced(&self.log.folder, &merged.replaces);
        self.log.maintain().await;
        Ok(())
    }

    /// When fresh files must be rolled, or what a roll has left must be settled.
    pub fn fresh_due(&self, rolls: &Rolls) -> Option<Instant> {
        self.fresh.files.values().filter_map(|files| due(files, rolls)).chain(self.fresh.unsettled).min()
    }

    /// The files of the next roll: the oldest that are due, as many as fill a file.
    pub fn next_roll(&self, rolls: &Rolls, now: Instant) -> Option<Vec<LogFile>> {
        let due = |files: &Vec<FreshFile>| due(files, rolls).filter(|due| *due <= now);
        let files = self.fresh.files.values().filter(|files| due(files).is_some()).min_by_key(|files| due(files))?;
        let (mut bytes, mut rows) = (0, 0);
        let fits = |file: &&FreshFile| {
            let more = !rolls.full.reached(bytes, rows);
            (bytes, rows) = (bytes + file.file.size, rows + file.file.rows);
            more
        };
        Some(files.iter().take_while(fits).map(|file| file.file.clone()).collect())
    }

    /// Whether an interrupted roll must be settled before the next one.
    pub fn is_unsettled(&self) -> bool {
        self.fresh.unsettled.is_some()
    }

    pub fn roll_broke_off(&mut self) {
        self.fresh.unsettled = Some(Instant::now());
    }
}

/// When the file was written, according to the store; `None` if that is longer ago than this machine's clock can
/// express.
fn written(seen: &Seen) -> Option<Instant> {
    let age = Micros::now().0 - seen.meta.last_modified.timestamp_micros();
    Instant::now().checked_sub(Duration::from_micros(u64::try_from(age).unwrap_or(0)))
}
