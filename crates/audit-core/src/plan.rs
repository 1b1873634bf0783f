//! Which part of some batches one transaction of a sink will hold: [`next`].
//!
//! A transaction ends at the end of a batch; or inside it, where it is large enough or goes to enough places. A chunk
//! of a baseline is never divided. What the sink already has is left out, so that a repeat changes nothing.

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

/// What the sink has, as far as planning needs it.
#[derive(Debug)]
pub struct Have<'s> {
    pub sink: &'s str,
    pub progress: Progress,
    /// Nothing at or before this position has to be stored: the stored position, or where the stream began.
    pub skip: Position,
    pub baselines: &'s BTreeMap<String, ChunkProgress>,
}

/// How much a unit may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: usize,
    /// Bytes of the batches that the rows come from; each row counts for its share.
    pub bytes: usize,
    pub places: Places,
}

/// How versions are spread over places; each place that a unit goes to has a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// All versions are in one place.
    One,
    /// Tables with a `versions_table` of their own, and each of its tenants, have a place each.
    Own,
    /// Every table has a place of its own, too.
    EveryTable,
}

/// Number of places that a unit may go to. A place in a database takes about ten locks out of the thousands that its
/// server has for all sessions (`max_locks_per_transaction`). A chunk goes to no more places than it has rows:
/// [`chunk_rows`].
const PLACES_MAX: usize = 100;

/// Number of rows that a chunk of a table with these rules may have, if it could otherwise have `most`.
pub fn chunk_rows(versions_table: Option<&VersionsTable>, most: u32) -> u32 {
    match versions_table {
        Some(own) if own.has_tenant() => most.min(PLACES_MAX as u32),
        _ => most,
    }
}

/// What is stored under one checkpoint, or a part of it.
#[derive(Debug, Default)]
pub struct Unit<'b> {
    pub versions: Vec<Version<'b>>,
    /// The tables of these versions, and perhaps others; some may occur more than once.
    pub tables: Vec<&'b Arc<Table>>,
    pub chunks: Vec<&'b ChunkMark>,
    /// Bytes of the batches that the versions come from, for the share that is in this unit.
    pub bytes: usize,
    /// The progress that its checkpoint will state.
    pub progress: Progress,
    /// Index of the first batch that is not completed by this unit.
    pub next_batch: usize,
}

/// The next transaction that these batches make, beginning with batch `first`; `None` if nothing is left to store.
pub fn next<'b>(batches: &[&'b Batch], first: usize, have: &Have<'_>, limits: Limits) -> Option<Unit<'b>> {
    let mut unit = Unit { progress: have.progress, next_batch: first, ..Unit::default() };
    let mut taken = Taken::default();
    for batch in batches.iter().skip(first).copied() {
        if unit.versions.len() >= limits.rows || unit.bytes >= limits.bytes {
            break;
        }
        if let Some(mark) = &batch.chunk {
            if wanted(mark, have, &unit.chunks) {
                // The places of a chunk always count, but a chunk that comes first is taken whole even if it has too
                // many.
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

/// The places that a unit goes to: tables, each with a tenant or with an empty one.
#[derive(Default)]
struct Taken<'b>(HashSet<(&'b str, &'b str)>);

impl<'b> Taken<'b> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of these versions that go to places that the unit has, or that it can still add.
    fn fitting(&mut self, places: Places, sink: &str, versions: impl Iterator<Item = Version<'b>>) -> usize {
        // Versions of one place usually follow one another.
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

/// The place where a version is stored; `None` for the place that all share.
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

/// The key under which a shape is stored.
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

/// The later of the two. An idle position moves only `flushed_lsn`.
pub fn forward(from: Progress, to: Progress) -> Progress {
    let flushed_lsn = from.flushed_lsn.max(to.flushed_lsn);
    if to.position.epoch > from.position.epoch {
        // This is another line of WAL: an LSN that was flushed on the old one has no meaning on it.
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
    /// The checkpoint under which the unit will be stored.
    pub fn checkpoint(&self, identity: &Identity) -> Checkpoint {
        Checkpoint::new(identity, self.progress)
    }

    /// The progress of the baselines after this unit, for the tables of which it holds chunks.
    pub fn baselines(&self) -> Vec<(String, ChunkProgress)> {
        let progress = |mark: &ChunkMark| ChunkProgress { baseline: mark.baseline, chunk: mark.chunk, done: mark.last };
        let by_table: BTreeMap<String, ChunkProgress> =
            self.chunks.iter().map(|mark| (mark.table.to_string(), progress(mark))).collect();
        by_table.into_iter().collect()
    }

    /// The tables whose shape is not `known` to be stored, each once. Pseudo-tables have no shape.
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

    /// Puts `error` records in the place of the versions that are quarantined.
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

    /// Ends the unit before version `end` of a batch, in the middle of a transaction, whether or not the version before
    /// `end` goes to this sink.
    fn stop_inside(&mut self, batch: &Batch, end: usize) {
        if let Some(last) = end.checked_sub(1).and_then(|last| batch.versions().nth(last)) {
            // A gap's position does not belong to any change.
            let change_lsn = if last.event() == Event::Gap { Lsn::ZERO } else { last.lsn() };
            let here = Progress { position: last.position(), change_lsn, flushed_lsn: last.transaction().commit_lsn };
            self.progress = forward(self.progress, here);
        }
    }
}
