//! Whether two stores tell the same of a table, by what versions mean: [`compare`].
//!
//! Both stores are read once, each in the order of its positions, and every version is added to the sum of its hour
//! ([`audit_proof::Sums`]). Where an hour's sums differ, that hour is read again from both, side by side, and each
//! difference is named. So what is equal costs one reading and next to no memory.
//!
//! Snapshots are compared by table, baseline and key, because each sink may have read a row at another time. A month of
//! the one store can therefore lie in several of the other: what the one has in the span must be anywhere in the other.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use audit_proof::{Bucket, Canonical, Kinds, Sums, differing_fields};
use futures::stream::{BoxStream, Peekable, StreamExt};
use futures::{TryStreamExt, try_join};

use crate::{Selection, Store, StoreError};

/// Number of differences that are named.
const NAMED_MAX: usize = 100;

/// Number of snapshots that are held in memory at a time, if their sums differ.
const SNAPSHOTS_MAX: u64 = 200_000;

const HOUR_MICROS: i64 = 3_600_000_000;

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Number of versions that the first store has in the span.
    pub versions: u64,
    /// Number of those that are snapshots.
    pub snapshots: u64,
    /// The first differences, at most a hundred: those of changes in the order of their positions, then those of
    /// snapshots.
    pub differences: Vec<Difference>,
}

impl Compared {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn is_full(&self) -> bool {
        self.differences.len() >= NAMED_MAX
    }
}

/// A version of which the stores tell different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub position: Position,
    pub event: String,
    pub key: Option<String>,
    pub what: What,
}

/// What the second store tells of a version of the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It lacks the version.
    Missing,
    /// It has a version that the first one lacks.
    Extra,
    /// It tells something else in these fields of the version record; see [`differing_fields`].
    Altered(BTreeSet<String>),
}

/// A version with its canonical record.
struct Told {
    record: Record,
    canonical: Canonical,
}

impl Told {
    fn is_snapshot(&self) -> bool {
        self.record.event == "snapshot"
    }

    fn difference(&self, what: What) -> Difference {
        let Record { position, event, key, .. } = &self.record;
        Difference { position: *position, event: event.clone(), key: key.clone(), what }
    }

    /// What the other store tells of the same version; `None` if it tells the same.
    fn compared(&self, other: &Told) -> Option<Difference> {
        let altered = differing_fields(&self.canonical, &other.canonical);
        (!altered.is_empty()).then(|| self.difference(What::Altered(altered)))
    }
}

type ToldStream = Peekable<BoxStream<'static, Result<Told, StoreError>>>;

/// The versions that a store has of the selection, in the order of their positions.
async fn told(store: &Store, selection: &Selection) -> Result<ToldStream, StoreError> {
    let shapes = store.shapes(&selection.source, &selection.table).await?;
    let kinds: HashMap<u32, Kinds> = shapes.iter().map(|shape| (shape.schema_version, Kinds::of(shape))).collect();
    let none = Kinds::default();
    let tell = move |record: Record| {
        let canonical = Canonical::of(&record, kinds.get(&record.schema_version).unwrap_or(&none));
        Told { record, canonical }
    };
    Ok(store.versions(selection).await?.map_ok(tell).boxed().peekable())
}

/// Compares what `one` has of the selection with what `other` has. `key` must be drawn at random for each comparison,
/// and nobody who can write to a store may know it.
///
/// # Errors
/// Fails if a store cannot be read.
pub async fn compare(one: &Store, other: &Store, selection: &Selection, key: [u8; 32]) -> Result<Compared, StoreError> {
    let (ours, theirs) = try_join!(summed(one, selection, key), summed(other, selection, key))?;
    let mut compared =
        Compared { versions: ours.changes + ours.snapshots, snapshots: ours.snapshots, ..Compared::default() };
    for (_, bucket) in ours.sums.differences(&theirs.sums) {
        if let (Bucket::Hour(hour), false) = (bucket, compared.is_full()) {
            side_by_side(one, other, &within(selection, hour), &mut compared).await?;
        }
    }
    if ours.snapshots > 0 && !compared.is_full() {
        snapshots(one, other, selection, (key, &ours.baselines), &mut compared).await?;
    }
    Ok(compared)
}

/// What a store has of a selection.
struct Summed {
    sums: Sums,
    changes: u64,
    snapshots: u64,
    baselines: BTreeSet<Option<u32>>,
}

/// Adds up all versions but snapshots, which are only counted.
async fn summed(store: &Store, selection: &Selection, key: [u8; 32]) -> Result<Summed, StoreError> {
    let mut summed = Summed { sums: Sums::new(key), changes: 0, snapshots: 0, baselines: BTreeSet::new() };
    let mut versions = told(store, selection).await?;
    while let Some(told) = versions.try_next().await? {
        if told.is_snapshot() {
            summed.snapshots += 1;
            summed.baselines.insert(told.record.baseline);
        } else {
            summed.changes += 1;
            summed.sums.add(&told.record, &told.canonical);
        }
    }
    Ok(summed)
}

/// The part of a selection that is in an hour.
fn within(selection: &Selection, hour: i64) -> Selection {
    let (from, to) = (Micros(hour.saturating_mul(HOUR_MICROS)), Micros((hour + 1).saturating_mul(HOUR_MICROS)));
    Selection {
        since: Some(selection.since.map_or(from, |since| since.max(from))),
        until: Some(selection.until.map_or(to, |until| until.min(to))),
        ..selection.clone()
    }
}

/// The next version that is no snapshot, which stays in the stream.
async fn peeked(stream: &mut ToldStream) -> Result<Option<Position>, StoreError> {
    let mut stream = std::pin::Pin::new(stream);
    loop {
        match stream.as_mut().peek().await {
            Some(Ok(told)) if !told.is_snapshot() => return Ok(Some(told.record.position)),
            None => return Ok(None),
            Some(_) => drop(stream.as_mut().try_next().await?),
        }
    }
}

/// Names what differs among the changes of a selection.
async fn side_by_side(
    one: &Store,
    other: &Store,
    selection: &Selection,
    compared: &mut Compared,
) -> Result<(), StoreError> {
    let (mut ours, mut theirs) = try_join!(told(one, selection), told(other, selection))?;
    while !compared.is_full() {
        let found = match (peeked(&mut ours).await?, peeked(&mut theirs).await?) {
            (None, None) => return Ok(()),
            (Some(our), their) if their.is_none_or(|their| our < their) => {
                ours.try_next().await?.map(|told| told.difference(What::Missing))
            }
            (our, Some(their)) if our.is_none_or(|our| their < our) => {
                theirs.try_next().await?.map(|told| told.difference(What::Extra))
            }
            _ => match (ours.try_next().await?, theirs.try_next().await?) {
                (Some(our), Some(their)) => our.compared(&their),
                _ => None,
            },
        };
        compared.differences.extend(found);
    }
    Ok(())
}

/// Names the snapshots of the selection that the other store does not have, at any time.
async fn snapshots(
    one: &Store,
    other: &Store,
    selection: &Selection,
    (key, baselines): ([u8; 32], &BTreeSet<Option<u32>>),
    compared: &mut Compared,
) -> Result<(), StoreError> {
    let always = Selection { since: None, until: None, ..selection.clone() };
    let (ours, theirs) = try_join!(baselines_summed(one, &always, key), baselines_summed(other, &always, key))?;
    let same = |baseline: &Option<u32>| {
        let bucket = Bucket::Baseline(*baseline);
        ours.get(&selection.table, bucket) == theirs.get(&selection.table, bucket)
    };
    if baselines.iter().all(same) {
        return Ok(());
    }
    let parts = compared.snapshots.div_ceil(SNAPSHOTS_MAX);
    for part in 0..parts {
        if !compared.is_full() {
            let mut missing = snapshots_of(one, selection, (part, parts)).await?;
            find(&mut missing, other, &always).await?;
            let mut missing: Vec<Wanted> = missing.into_values().flatten().collect();
            missing.sort_by_key(|wanted| wanted.told.record.position);
            compared.differences.extend(missing.into_iter().map(Wanted::difference));
            compared.differences.truncate(NAMED_MAX);
        }
    }
    Ok(())
}

async fn baselines_summed(store: &Store, selection: &Selection, key: [u8; 32]) -> Result<Sums, StoreError> {
    let mut sums = Sums::new(key);
    let mut versions = told(store, selection).await?;
    while let Some(told) = versions.try_next().await? {
        if told.is_snapshot() {
            sums.add(&told.record, &told.canonical);
        }
    }
    Ok(sums)
}

/// The identity of a snapshot in its table: its baseline and its key. Where there is no key, a hash of what it means
/// stands for it, because all rows of the table would have one identity otherwise.
type Identity = (Option<u32>, Option<String>, u64);

fn identity(told: &Told) -> Identity {
    let Record { baseline, key, .. } = &told.record;
    let meaning = match key {
        Some(_) => 0,
        None => {
            let mut hasher = DefaultHasher::new();
            told.canonical.meaning().hash(&mut hasher);
            hasher.finish()
        }
    };
    (*baseline, key.clone(), meaning)
}

/// A snapshot that the other store may have.
struct Wanted {
    told: Told,
    /// What the other store has under the same identity instead.
    instead: Option<Told>,
}

impl Wanted {
    fn difference(self) -> Difference {
        match self.instead.as_ref().and_then(|instead| self.told.compared(instead)) {
            Some(altered) => altered,
            None => self.told.difference(What::Missing),
        }
    }
}

type Snapshots = HashMap<Identity, Vec<Wanted>>;

/// The snapshots in one of several parts of a selection.
async fn snapshots_of(
    store: &Store,
    selection: &Selection,
    (part, parts): (u64, u64),
) -> Result<Snapshots, StoreError> {
    let mut snapshots = Snapshots::new();
    let mut versions = told(store, selection).await?;
    while let Some(told) = versions.try_next().await? {
        if !told.is_snapshot() {
            continue;
        }
        let identity = identity(&told);
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        if hasher.finish() % parts == part {
            snapshots.entry(identity).or_default().push(Wanted { told, instead: None });
        }
    }
    Ok(snapshots)
}

/// Takes out the snapshots that the store has.
async fn find(snapshots: &mut Snapshots, store: &Store, selection: &Selection) -> Result<(), StoreError> {
    let mut versions = told(store, selection).await?;
    while let Some(told) = versions.try_next().await? {
        if !told.is_snapshot() {
            continue;
        }
        let Some(wanted) = snapshots.get_mut(&identity(&told)) else { continue };
        let same = |wanted: &Wanted| wanted.told.canonical.meaning() == told.canonical.meaning();
        match wanted.iter().position(same) {
            Some(at) => drop(wanted.swap_remove(at)),
            None => wanted.iter_mut().for_each(|wanted| {
                wanted
                    .instead
                    .get_or_insert_with(|| Told { record: told.record.clone(), canonical: told.canonical.clone() });
            }),
        }
    }
    Ok(())
}
