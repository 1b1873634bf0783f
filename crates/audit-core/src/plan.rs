//! What of some batches one transaction of a sink will hold: [`next`].
//!
//! A transaction ends at the end of a batch, or where it is large enough within one, or goes to enough places; a chunk of a baseline is
//! never divided.
//! What the sink already has is left out, so that a repeat changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::batch::{Batch, ChunkMark, Progress, Version};
use crate::position::{Lsn, Position};
use crate::quarantine::Quarantine;
use crate::shape::Shape;
use crate::sink::{Checkpoint, ChunkProgress, Identity};
use crate::table::Table;
use crate::version::Event;
use crate::versions_table::VersionsTable;

/// What the sink has, as far as planning is concerned.
#[derive(Debug)]
pub struct Have<'s> {
    pub sink: &'s str,
    pub progress: Progress,
    /// Nothing at or before it needs to be stored: the stored position, or where the stream began.
    pub skip: Position,
    pub baselines: &'s BTreeMap<String, ChunkProgress>,
}

/// How much a unit may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: usize,
    /// Bytes of the batches that the rows come from; a row counts as its share.
    pub bytes: usize,
    pub places: Places,
}

/// How versions are stored apart, where each place that a unit goes to has its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// All in one.
    One,
    /// Those of tables with a `versions_table` of their own, and of its tenants, each in another.
    Own,
    /// Those of every table in another, too.
    EveryTable,
}

/// Places that a unit goes to, at the most. A place in a database takes some ten locks of the thousands that its server has for all sessions
/// (`max_locks_per_transaction`). A chunk goes to no more than it has rows: [`chunk_rows`].
const PLACES_MAX: usize = 100;

/// So many rows a chunk of a table under these rules may have, where it could have `most`.
pub fn chunk_rows(versions_table: Option<&VersionsTable>, most: u32) -> u32 {
    match versions_table {
        Some(own) if own.has_tenant() => most.min(PLACES_MAX as u32),
        _ => most,
    }
}

/// What is stored under one checkpoint, or a part of that.
#[derive(Debug, Default)]
pub struct Unit<'b> {
    pub versions: Vec<Version<'b>>,
    /// Of these versions, and perhaps others; some more than once.
    pub tables: Vec<&'b Arc<Table>>,
    pub chunks: Vec<&'b ChunkMark>,
    /// Of the batches that the versions come from, as far as they are in here.
    pub bytes: usize,
    /// Where the checkpoint will stand.
    pub progress: Progress,
    /// The batches before this one are done with.
    pub next_batch: usize,
}

/// The next transaction that these batches make, from the batch `first` on; `None` where nothing is left to store.
pub fn next<'b>(batches: &[&'b Batch], first: usize, have: &Have<'_>, limits: Limits) -> Option<Unit<'b>> {
    let mut unit = Unit { progress: have.progress, next_batch: first, ..Unit::default() };
    let mut taken = Taken::default();
    for batch in batches.iter().skip(first).copied() {
        if unit.versions.len() >= limits.rows || unit.bytes >= limits.bytes {
            break;
        }
        if let Some(mark) = &batch.chunk {
            if wanted(mark, have, &unit.chunks) {
                // Its places count whether or not it is the first; the first goes as it is.
                let is_first = taken.is_empty();
                let fits = taken.fitting(limits.places, have.sink, batch.versions()) == batch.len();
                if !fits && !is_first {
                    break;
                }
                unit.add(have.sink, batch, 0, batch.len());
                unit.chunks.push(mark);
                unit.bytes += batch.bytes();
            }
        } else {
            let start = batch.versions().take_while(|version| version.position() <= have.skip).count();
            let share = (batch.bytes() / batch.len().max(1)).max(1);
            let by_bytes = (limits.bytes - unit.bytes).div_ceil(share);
            let room = by_bytes.min(limits.rows - unit.versions.len()).max(1);
            let room = batch.versions().skip(start).take(room);
            let end = start + taken.fitting(limits.places, have.sink, room);
            if end == start && start < batch.len() {
                break;
            }
            unit.add(have.sink, batch, start, end);
            unit.bytes += (end - start) * share;
            if end < batch.len() {
                unit.stop_inside(batch, end);
                return Some(unit);
            }
        }
        unit.progress = forward(unit.progress, batch.progress);
        unit.next_batch += 1;
    }
    let something = !unit.versions.is_empty() || !unit.chunks.is_empty() || unit.progress != have.progress;
    something.then_some(unit)
}

/// The places that a unit goes to: tables, each with its tenants, or with an empty one.
#[derive(Default)]
struct Taken<'b>(HashSet<(&'b str, &'b str)>);

impl<'b> Taken<'b> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of these versions go to places that are taken, or can be.
    fn fitting(&mut self, places: Places, sink: &str, versions: impl Iterator<Item = Version<'b>>) -> usize {
        // Runs of one place are the rule.
        let mut last = None;
        let mut count = 0;
        for version in versions {
            let place = place(places, &version).filter(|_| version.table().goes_to(sink));
            if let Some(place) = place.filter(|place| Some(*place) != last) {
                if self.0.len() >= PLACES_MAX && !self.0.contains(&place) {
                    break;
                }
                self.0.insert(place);
                last = Some(place);
            }
            count += 1;
        }
        count
    }
}

/// Where a version is stored; `None` for what all share.
fn place<'b>(places: Places, version: &Version<'b>) -> Option<(&'b str, &'b str)> {
    let table = version.table();
    let tenant = match &table.versions_table {
        _ if places == Places::One => return None,
        Some(own) if own.has_tenant() => version.tenant().unwrap_or_default(),
        None if places == Places::Own => return None,
        _ => "",
    };
    Some((table.name.as_ref(), tenant))
}

/// What a shape is stored under.
pub fn shape_id(shape: &Shape) -> (String, u32) {
    (shape.name().to_string(), shape.schema_version)
}

/// Whether a chunk is for this sink and not stored yet.
fn wanted(mark: &ChunkMark, have: &Have<'_>, planned: &[&ChunkMark]) -> bool {
    let number = (mark.baseline, mark.chunk);
    let stored = have.baselines.get(mark.table.as_ref()).map(|progress| (progress.baseline, progress.chunk));
    mark.sinks.iter().any(|sink| sink.as_ref() == have.sink)
        && stored.is_none_or(|stored| stored < number)
        && planned.iter().all(|other| other.table != mark.table || (other.baseline, other.chunk) < number)
}

/// The later of two. An idle position moves only what is flushed.
pub fn forward(from: Progress, to: Progress) -> Progress {
    let flushed_lsn = from.flushed_lsn.max(to.flushed_lsn);
    if to.position.epoch > from.position.epoch {
        // Another line of WAL: what was flushed on the old one means nothing there.
        to
    } else if to.position > from.position {
        Progress { flushed_lsn, ..to }
    } else if to.position.epoch == from.position.epoch {
        Progress { flushed_lsn, ..from }
    } else {
        from
    }
}

/// The shapes that a sink has stored: their digests, by table and schema version.
pub type Digests = HashMap<(String, u32), String>;

impl<'b> Unit<'b> {
    /// The checkpoint that it will be stored under.
    pub fn checkpoint(&self, identity: &Identity) -> Checkpoint {
        Checkpoint::new(identity, self.progress)
    }

    /// How far the baselines are behind it, of the tables that it holds chunks of.
    pub fn baselines(&self) -> Vec<(String, ChunkProgress)> {
        let progress = |mark: &ChunkMark| ChunkProgress { baseline: mark.baseline, chunk: mark.chunk, done: mark.last };
        let by_table: BTreeMap<String, ChunkProgress> =
            self.chunks.iter().map(|mark| (mark.table.to_string(), progress(mark))).collect();
        by_table.into_iter().collect()
    }

    /// The tables whose shape is not `known` to be stored, each once. Pseudo-tables have none.
    pub fn new_shapes(&self, known: &Digests) -> Vec<&'b Table> {
        let mut seen = HashSet::new();
        let tables = self.tables.iter().copied().map(Arc::as_ref);
        tables
            .filter(|table| !table.shape.digest.is_empty())
            .filter(|table| {
                let id = shape_id(&table.shape);
                !known.contains_key(&id) && seen.insert(id)
            })
            .collect()
    }

    /// Puts `error` records in the place of versions that are quarantined.
    pub fn quarantine(&mut self, quarantine: &'b Quarantine) {
        if !quarantine.is_empty() {
            self.versions.iter_mut().for_each(|version| *version = version.unless_quarantined(quarantine));
        }
    }

    fn add(&mut self, sink: &str, batch: &'b Batch, start: usize, end: usize) {
        if start >= end {
            return;
        }
        let range = batch.versions().skip(start).take(end - start);
        if batch.tables().iter().all(|table| table.goes_to(sink)) {
            self.versions.extend(range);
            self.tables.extend(batch.tables());
        } else {
            self.versions.extend(range.filter(|version| version.table().goes_to(sink)));
            self.tables.extend(batch.tables().iter().filter(|table| table.goes_to(sink)));
        }
    }

    /// Ends before version `end` of a batch, in the middle of a transaction; whether or not the last one before it goes to this sink.
    fn stop_inside(&mut self, batch: &Batch, end: usize) {
        if let Some(last) = end.checked_sub(1).and_then(|last| batch.versions().nth(last)) {
            // No change has the position of a gap.
            let change_lsn = if last.event() == Event::Gap { Lsn::ZERO } else { last.lsn() };
            let here = Progress { position: last.position(), change_lsn, flushed_lsn: last.transaction().commit_lsn };
            self.progress = forward(self.progress, here);
        }
    }
}
