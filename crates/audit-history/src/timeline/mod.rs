//! Hot and lake as one: [`Timeline`].
//!
//! A timeline is one look. In hot it is one read-only transaction that locks the tables of versions first, in the lake
//! one snapshot of each table's log, taken after that. So whatever moves from hot to the lake meanwhile is in at least
//! one of them. Both are read, and each version is shown once:
//!
//! - **A version** is known by its position, which is the same in every store. So the answer has what any of them has:
//!   rules send tables to some sinks only, a sink may begin later, stop for a while, lose a stretch of WAL that the
//!   other has, or be told to leave a version out. Of two records at one position an `error` counts less, and then the
//!   store that is asked first counts.
//! - **A snapshot row** has different positions in different stores. It is known by table, baseline and key, and the
//!   earlier one counts ([`seen`]).
//! - **The end** of a store is where the transactions begin that it may not have whole. What is stored after it is not
//!   read.

mod coverage;
mod explained;
mod merge;
mod resolve;
mod search;
mod seen;
mod totals;
mod trail;

use std::collections::BTreeSet;
use std::sync::Arc;

use audit_core::position::{Micros, Position, Window};
use audit_core::shape::Shape;
use audit_core::stored::Record;
use audit_lake::LakeError;
use futures::stream::{BoxStream, StreamExt};

use crate::store::{Head, Orders, Part, Selection, Store, StoreError};
use seen::Seen;
use trail::Trails;

pub use coverage::{Coverage, Gap, Reached, Span};
pub use explained::Explained;

type Records = BoxStream<'static, Result<Record, StoreError>>;

/// What the stores of one source have recorded, without repetition.
#[derive(Clone)]
pub struct Timeline {
    /// In the order in which they are asked.
    tiers: Vec<Tier>,
    /// Sinks that have versions too, and are not among the stores.
    absent: Vec<(String, Absence)>,
}

/// Why a sink that has versions is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Another sink was named by the question.
    NotAsked,
    /// Stores that keep tenants apart are not combined.
    Apart,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// A store that takes part.
#[derive(Clone)]
struct Tier {
    sink: Arc<str>,
    /// Reads everything.
    whole: Store,
    /// Reads nothing at or after the store's end.
    store: Store,
    /// `None` before the sink's first write.
    head: Option<Head>,
    /// Nothing at or after it is read.
    end: Position,
}

impl Timeline {
    /// Takes a look at the stores, each under its sink's name: hot ones before lakes, because what leaves hot goes to a
    /// lake.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn open(source: &str, stores: Vec<(String, Store)>) -> Result<Timeline, StoreError> {
        let mut tiers = Vec::new();
        for (sink, store) in stores {
            let whole = store.pinned(source).await?;
            let head = whole.head(source, &sink).await?;
            // Before the first write there is nothing to read.
            let end = head.as_ref().map_or_else(Position::default, Head::end);
            let store = whole.within(Window { from: None, to: Some(end) });
            tiers.push(Tier { sink: sink.into(), whole, store, head, end });
        }
        Ok(Timeline { tiers, absent: Vec::new() })
    }

    /// Notes that a sink which has versions is not among the stores.
    pub fn without(mut self, sink: &str, why: Absence) -> Timeline {
        self.absent.push((sink.to_owned(), why));
        self
    }

    /// Whether a sink that has versions is not read, so that a row's first version may be in there.
    pub fn is_partial(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Takes another look at the same stores. This look, and everything that was made from it, ends.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn again(self, source: &str) -> Result<Timeline, StoreError> {
        let mut stores = Vec::new();
        for tier in self.tiers {
            tier.whole.unpin().await?;
            stores.push((tier.sink.to_string(), tier.whole));
        }
        Ok(Timeline { absent: self.absent, ..Timeline::open(source, stores).await? })
    }

    /// Reads only versions in a range of positions.
    pub fn within(&self, window: Window) -> Timeline {
        let narrowed = |tier: &Tier| Tier { store: tier.store.within(window), ..tier.clone() };
        Timeline { tiers: self.tiers.iter().map(narrowed).collect(), absent: self.absent.clone() }
    }

    /// The timeline as it was when no sink had anything after `head`.
    pub fn up_to(&self, head: Position) -> Timeline {
        self.up_to_each(|_| Some(head))
    }

    /// The timeline as it was when each sink had nothing after its head; `None` is a sink without a bound.
    pub(crate) fn up_to_each(&self, head: impl Fn(&str) -> Option<Position>) -> Timeline {
        let narrowed = |tier: &Tier| {
            let end = head(&tier.sink).map_or(tier.end, |head| tier.end.min(head.next()));
            Tier { store: tier.store.within(Window { from: None, to: Some(end) }), end, ..tier.clone() }
        };
        Timeline { tiers: self.tiers.iter().map(narrowed).collect(), absent: self.absent.clone() }
    }

    /// Lists the names of the tables that have versions, in order.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, StoreError> {
        let mut all = BTreeSet::new();
        for tier in &self.tiers {
            all.extend(tier.store.tables(source).await?);
        }
        Ok(all.into_iter().collect())
    }

    /// Lists what belongs to no tenant, then what belongs to each tenant, if tenants have their own stores or tables.
    /// Stores that keep tenants apart are not combined: then these are the parts of the store that is asked first, and
    /// their coverage says so.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn parts(&self, source: &str) -> Result<Vec<Part<Timeline>>, StoreError> {
        let [first, others @ ..] = self.tiers.as_slice() else { return Ok(Vec::new()) };
        let parts = first.store.parts(source).await?;
        let mut apart = parts.len() > 1;
        for tier in others {
            apart |= tier.store.parts(source).await?.len() > 1;
        }
        if !apart && !others.is_empty() {
            return Ok(vec![Part { tenant: None, gaps_only: false, store: self.clone() }]);
        }
        let apart = others.iter().map(|tier| (tier.sink.to_string(), Absence::Apart));
        let absent: Vec<_> = self.absent.iter().cloned().chain(apart).collect();
        let alone = |part: Part<Store>| {
            let (whole, store) = (part.store.clone(), part.store);
            let store = Timeline { tiers: vec![Tier { whole, store, ..first.clone() }], absent: absent.clone() };
            Part { tenant: part.tenant, gaps_only: part.gaps_only, store }
        };
        Ok(parts.into_iter().map(alone).collect())
    }

    /// The name of the sink that is asked first.
    pub fn sink(&self) -> &str {
        self.tiers.first().map_or("", |tier| &tier.sink)
    }

    /// The progress of the sink that is furthest; `None` before the first write.
    pub fn head(&self) -> Option<&Head> {
        self.tiers.iter().filter_map(|tier| tier.head.as_ref()).max_by_key(|head| head.end())
    }

    /// Everything before this position is read, from the sink that is furthest; `None` before the first write.
    pub fn end(&self) -> Option<Position> {
        self.tiers.iter().filter(|tier| tier.head.is_some()).map(|tier| tier.end).max()
    }

    /// The last position that is read.
    pub fn last(&self) -> Option<Position> {
        self.end().and_then(Position::previous)
    }

    /// Finds the latest commit time among the versions of these tables that were committed at or after `since`. A large
    /// hot table is slow to search through without such a bound.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn newest(
        &self,
        source: &str,
        tables: &[String],
        since: Option<Micros>,
    ) -> Result<Option<Micros>, StoreError> {
        let mut newest = None;
        for tier in &self.tiers {
            newest = newest.max(tier.store.newest(source, tables, since).await?);
        }
        Ok(newest)
    }

    /// Reads the table's latest shape.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn shape(&self, source: &str, table: &str) -> Result<Option<Shape>, StoreError> {
        Ok(self.shapes(source, table).await?.pop())
    }

    /// Reads the table's shapes, oldest first.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, StoreError> {
        let mut shapes: Vec<Shape> = Vec::new();
        for tier in &self.tiers {
            for shape in self.known(tier.store.shapes(source, table).await)?.unwrap_or_default() {
                if shapes.iter().all(|known| known.schema_version != shape.schema_version) {
                    shapes.push(shape);
                }
            }
        }
        shapes.sort_by_key(|shape| shape.schema_version);
        Ok(shapes)
    }

    /// What a store answers about a table. Of several stores some may not have the table.
    fn known<T>(&self, found: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match found {
            Err(StoreError::Lake(LakeError::NoTable { .. })) if self.tiers.len() > 1 => Ok(None),
            found => found.map(Some),
        }
    }

    /// Reads the records of what is missing for every row of a table, in the order of their positions. ⚠ What one store
    /// lacks counts even if another has it, because the values that are derived must be certain.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn marks(&self, source: &str, table: &str) -> Result<Vec<Record>, StoreError> {
        let mut marks = Vec::new();
        for tier in &self.tiers {
            marks.extend(self.known(tier.store.marks(source, table).await)?.unwrap_or_default());
        }
        marks.sort_by_key(|mark| mark.position);
        marks.dedup_by_key(|mark| mark.position);
        Ok(marks)
    }

    /// Reads the trail of one row, newest version first, across changes of its key.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.history_before(source, (table, key), None, limit).await
    }

    /// Reads the part of that trail before a position, for example that of the last version so far.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn history_before(
        &self,
        source: &str,
        (table, key): (&str, &str),
        before: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        let orders = Orders::of(self.shapes(source, table).await?);
        let mut trails = Trails::default();
        for tier in &self.tiers {
            trails.0.extend(self.known(tier.store.trail(source, table).await)?);
        }
        let records = audit_core::trail::history_before(&mut trails, key, before, limit as usize).await?;
        Ok(records.into_iter().map(|record| orders.apply(record)).collect())
    }

    /// Streams the selected versions in the order of their positions.
    ///
    /// # Errors
    /// Fails if a store cannot be read; the stream can also end with an error.
    pub async fn versions(&self, selection: &Selection) -> Result<Records, StoreError> {
        if let [alone] = self.tiers.as_slice() {
            return alone.store.versions(selection).await;
        }
        // ⚠ This comes before the streams: a session that is streaming answers nothing else.
        let mut seen = Seen::default();
        if let Some(after) = selection.after {
            let passed = Window { from: None, to: Some(after.next()) };
            for tier in &self.tiers {
                seen.collect(&tier.store.within(passed), selection).await?;
            }
        }
        let mut streams = Vec::new();
        for tier in &self.tiers {
            streams.extend(self.known(tier.store.versions(selection).await)?);
        }
        Ok(merge::merged(streams, seen).boxed())
    }
}
