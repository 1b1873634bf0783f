//! The stores from which versions are read: the same queries and records for both kinds.

use std::collections::HashMap;
use std::sync::Arc;

use audit_core::cost::Cost;
use audit_core::position::{Lsn, Micros, Position, Window};
use audit_core::search::{Commit, Matches, Wanted};
use audit_core::shape::Shape;
use audit_core::sink::Checkpoint;
use audit_core::stored::{ColumnOrder, Record};
use audit_core::totals::{Bounds, Totals};
use audit_core::trail::{Stretch, Trail, Turn};
use audit_hot::HotReader;
use audit_lake::{LakeError, LakeReader};
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};

/// The table of lost stretches. It is part of every export, because its reader must know what is missing.
pub(crate) const GAPS: &str = "cdc_audit.gap";

/// The tables of records that belong to no table: lost stretches, and changes of an unknown table.
const PSEUDO: [&str; 2] = [GAPS, "cdc_audit.error"];

/// A store that was opened for reading.
#[derive(Clone)]
pub enum Store {
    Hot(HotReader),
    Lake(LakeReader),
}

/// A part of a store, or of a timeline, that is exported separately.
pub struct Part<S> {
    /// The part's tenant; `None` for what belongs to no tenant.
    pub tenant: Option<Arc<str>>,
    /// True if only lost stretches are read from it, because these concern every tenant.
    pub gaps_only: bool,
    pub store: S,
}

/// Selects all versions of a table that were committed in a span of time.
#[derive(Clone, Debug)]
pub struct Selection {
    pub source: String,
    pub table: String,
    /// Start of the commit times, inclusive.
    pub since: Option<Micros>,
    /// End of the commit times, exclusive.
    pub until: Option<Micros>,
    /// True to select only versions that lack an actor or a reason that their table requires.
    pub unattributed: bool,
    /// Selects only versions after this position.
    pub after: Option<Position>,
}

/// The progress of a sink.
#[derive(Clone, Debug)]
pub struct Head {
    pub checkpoint: Checkpoint,
    /// The time at which the checkpoint was stored, according to the store.
    pub stored_at: Option<Micros>,
    /// The position from which on the store has every version; `None` if it is not known.
    pub began: Option<Position>,
}

impl Head {
    /// Every version before this position is stored, and its transaction is finished. ⚠ The checkpoint itself may be
    /// inside a transaction, because a large one is stored in pieces.
    pub fn end(&self) -> Position {
        Position::new(self.checkpoint.position.epoch, self.checkpoint.flushed_lsn, 0)
    }

    /// The last position before the end.
    pub fn last(&self) -> Position {
        let end = self.end();
        Position::new(end.epoch, Lsn(end.commit_lsn.0.saturating_sub(1)), u32::MAX)
    }
}

/// The reason why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Hot(#[from] audit_hot::ReadError),
    #[error(transparent)]
    Lake(#[from] audit_lake::LakeError),
    #[error("a scratch file in the folder for temporary files cannot be used")]
    Scratch(#[source] std::io::Error),
}

impl StoreError {
    pub fn hint(&self) -> Option<String> {
        match self {
            StoreError::Hot(error) => error.hint(),
            StoreError::Lake(error) => error.hint(),
            StoreError::Scratch(_) => Some("make room there, or let TMPDIR name a folder that has room".to_owned()),
        }
    }
}

impl Store {
    /// Lists the names of the tables that have versions in the store.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.tables(source).await?,
            Store::Lake(lake) => lake.tables(source).await?,
        })
    }

    /// Answers all further questions from one look at the store as it is now.
    pub(crate) async fn pinned(self, source: &str) -> Result<Store, StoreError> {
        match self {
            Store::Hot(hot) => {
                hot.pin(source).await?;
                Ok(Store::Hot(hot))
            }
            Store::Lake(lake) => Ok(Store::Lake(lake.pinned())),
        }
    }

    /// Has the server explain all further statements.
    pub(crate) fn explain(&self) {
        if let Store::Hot(hot) = self {
            hot.explain();
        }
    }

    /// What was read so far.
    pub(crate) fn cost(&self) -> Cost {
        match self {
            Store::Hot(hot) => hot.cost(),
            Store::Lake(lake) => lake.cost(),
        }
    }

    /// Ends that look.
    pub(crate) async fn unpin(&self) -> Result<(), StoreError> {
        match self {
            Store::Hot(hot) => Ok(hot.unpin().await?),
            Store::Lake(_) => Ok(()),
        }
    }

    /// The first position with a version that was committed at or after a time, and before another, in any table.
    pub(crate) async fn first(
        &self,
        source: &str,
        (since, until): (Option<Micros>, Option<Micros>),
    ) -> Result<Option<Position>, StoreError> {
        let source = source.to_owned();
        match self {
            Store::Hot(hot) => {
                let selection = audit_hot::Selection { source, since, until, ..audit_hot::Selection::default() };
                Ok(hot.first(&selection).await?)
            }
            Store::Lake(lake) => {
                let mut first: Option<Position> = None;
                for table in lake.tables(&source).await? {
                    let found = match lake.export(&source, &table, since, until).await {
                        Err(LakeError::NoTable { .. }) => None,
                        found => std::pin::pin!(found?).try_next().await?,
                    };
                    first = first.into_iter().chain(found.map(|record| record.position)).min();
                }
                Ok(first)
            }
        }
    }

    /// Counts the versions of these tables that lie within the bounds.
    pub(crate) async fn totals(&self, source: &str, tables: &[String], bounds: &Bounds) -> Result<Totals, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.totals(source, tables, bounds).await?,
            Store::Lake(lake) => lake.totals(source, tables, bounds).await?,
        })
    }

    /// Reads only versions in a range of positions.
    pub(crate) fn within(&self, window: Window) -> Store {
        match self {
            Store::Hot(hot) => Store::Hot(hot.within(window)),
            Store::Lake(lake) => Store::Lake(lake.within(window)),
        }
    }

    /// Lists what belongs to no tenant, then what belongs to each tenant, if tenants have their own stores or tables.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn parts(&self, source: &str) -> Result<Vec<Part<Store>>, StoreError> {
        let part =
            |gaps_only: bool, tenant: Option<&Arc<str>>, store| Part { tenant: tenant.cloned(), gaps_only, store };
        let mut parts = Vec::new();
        match self {
            Store::Hot(hot) => {
                parts.extend(hot.tenant().map(|_| part(true, None, Store::Hot(hot.of_home()))));
                let each = hot.each(source).await?;
                parts.extend(each.into_iter().map(|reader| part(false, reader.tenant(), Store::Hot(reader.clone()))));
            }
            Store::Lake(lake) => {
                parts.extend(lake.tenant().map(|_| part(true, None, Store::Lake(lake.of_home()))));
                let each = lake.each().await?;
                parts.extend(each.into_iter().map(|reader| part(false, reader.tenant(), Store::Lake(reader.clone()))));
            }
        }
        Ok(parts)
    }

    /// Reads the sink's progress; `None` before its first write.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn head(&self, source: &str, sink: &str) -> Result<Option<Head>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => {
                hot.sinks(source).await?.into_iter().find(|state| state.sink == sink).and_then(|state| {
                    let (stored_at, began) = (Some(state.updated_at), state.began);
                    state.checkpoint.map(|checkpoint| Head { checkpoint, stored_at, began })
                })
            }
            Store::Lake(lake) => {
                let stored = lake.checkpoint(source).await?;
                stored.map(|(checkpoint, stored_at)| Head { checkpoint, stored_at, began: None })
            }
        })
    }

    /// Finds the latest commit time among the versions of these tables that were committed at or after `since`. A large
    /// hot table is slow to search through without such a bound.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn newest(
        &self,
        source: &str,
        tables: &[String],
        since: Option<Micros>,
    ) -> Result<Option<Micros>, StoreError> {
        // For a hot table no names mean all tables.
        if tables.is_empty() {
            return Ok(None);
        }
        let newest = match self {
            Store::Hot(hot) => {
                let (source, tables) = (source.to_string(), tables.to_vec());
                hot.newest(&audit_hot::Selection { source, tables, since, ..Default::default() }).await?
            }
            Store::Lake(lake) => lake.newest(source, tables).await?,
        };
        Ok(newest.filter(|newest| since.is_none_or(|since| *newest >= since)))
    }

    /// Reads the table's shapes, oldest first.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.shapes(source, table).await?,
            Store::Lake(lake) => lake.shapes(source, table).await?,
        })
    }

    /// The versions of a table, for following the trail of a row.
    pub(crate) async fn trail(&self, source: &str, table: &str) -> Result<StoreTrail, StoreError> {
        Ok(match self {
            Store::Hot(hot) => StoreTrail::Hot(hot.trail(source, table).await?),
            Store::Lake(lake) => StoreTrail::Lake(lake.trail(source, table).await?),
        })
    }

    /// Streams the selected snapshot rows, in no order. `after` makes no difference.
    pub(crate) async fn snapshots(
        &self,
        selection: &Selection,
    ) -> Result<BoxStream<'static, Result<Snapshot, StoreError>>, StoreError> {
        let Selection { source, table, since, until, unattributed, .. } = selection.clone();
        Ok(match self {
            Store::Hot(hot) => {
                let selection = audit_hot::Selection { source, tables: vec![table], since, until, unattributed };
                hot.snapshots(&selection).await?.map_err(StoreError::Hot).boxed()
            }
            Store::Lake(lake) => match lake.snapshots(&source, &table, since, until).await {
                Err(LakeError::NoTable { .. }) => futures::stream::empty().boxed(),
                found => found?.map_err(StoreError::Lake).boxed(),
            },
        })
    }

    /// The newest versions of the wanted tables that match, newest first, at most `limit`.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn search(&self, wanted: &Wanted, matches: Matches<'_>, limit: usize) -> Result<Vec<Record>, StoreError> {
        let records = match self {
            Store::Hot(hot) => hot.search(wanted, matches, limit).await?,
            Store::Lake(lake) => lake.search(wanted, matches, limit).await?,
        };
        let mut orders: HashMap<String, Orders> = HashMap::new();
        let mut sorted = Vec::with_capacity(records.len());
        for record in records {
            if !orders.contains_key(&record.table_name) {
                let shapes = self.shapes(&wanted.source, &record.table_name).await?;
                orders.insert(record.table_name.clone(), Orders::of(shapes));
            }
            sorted.push(match orders.get(&record.table_name) {
                Some(orders) => orders.apply(record),
                None => record,
            });
        }
        Ok(sorted)
    }

    /// The number of versions that transactions have in each table; their commit times find them.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn commit_sizes(
        &self,
        source: &str,
        commits: &[(Commit, Micros)],
    ) -> Result<HashMap<(Commit, String), u64>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.commit_sizes(source, commits).await?,
            Store::Lake(lake) => lake.commit_sizes(source, &lake.tables(source).await?, commits).await?,
        })
    }

    /// Reads the records of what is missing for every row of a table: lost stretches, and quarantined changes of which
    /// the row, or even the table, is not known. They come in the order of their positions.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn marks(&self, source: &str, table: &str) -> Result<Vec<Record>, StoreError> {
        let mut marks = match self {
            Store::Hot(hot) => hot.errors(source, table).await?,
            Store::Lake(lake) => lake.errors(source, table).await?,
        };
        // What has no table belongs to no tenant.
        for part in self.parts(source).await?.into_iter().filter(|part| part.tenant.is_none()) {
            let tables = part.store.tables(source).await?;
            let of_all = match &part.store {
                Store::Hot(_) => PSEUDO.to_vec(),
                Store::Lake(_) => PSEUDO.into_iter().filter(|name| tables.iter().any(|table| table == name)).collect(),
            };
            for table in of_all {
                marks.extend(part.store.all_of(source, table).await?);
            }
        }
        marks.sort_by_key(|record| record.position);
        Ok(marks)
    }

    async fn all_of(&self, source: &str, table: &str) -> Result<Vec<Record>, StoreError> {
        let (source, table) = (source.to_owned(), table.to_owned());
        let all = Selection { source, table, since: None, until: None, unattributed: false, after: None };
        self.versions(&all).await?.try_collect().await
    }

    /// Streams the selected versions in the order of their positions.
    ///
    /// # Errors
    /// Fails if the store cannot be read; the stream can also end with an error.
    pub async fn versions(
        &self,
        selection: &Selection,
    ) -> Result<BoxStream<'static, Result<Record, StoreError>>, StoreError> {
        let Selection { source, table, since, until, unattributed, after } = selection.clone();
        let orders = Orders::of(self.shapes(&source, &table).await?);
        let rest = Window { from: after.map(Position::next), to: None };
        Ok(match self.within(rest) {
            Store::Hot(hot) => {
                let selection = audit_hot::Selection { source, tables: vec![table], since, until, unattributed };
                let stream = hot.export(&selection).await?;
                stream.map(move |record| Ok(orders.apply(record?))).boxed()
            }
            Store::Lake(lake) => {
                let stream = lake.export(&source, &table, since, until).await?;
                let wanted = move |record: &Result<Record, audit_lake::LakeError>| {
                    !unattributed || record.as_ref().map_or(true, |record| !record.missing().is_empty())
                };
                let stream = stream.filter(move |record| std::future::ready(wanted(record)));
                stream.map(move |record| Ok(orders.apply(record?))).boxed()
            }
        })
    }
}

/// Baseline and key of a snapshot row.
pub(crate) type Snapshot = (u32, String);

/// The versions of a table in one store.
pub(crate) enum StoreTrail {
    Hot(audit_hot::RowTrail),
    Lake(audit_lake::RowTrail),
}

/// Puts the question to the store, whichever it is.
macro_rules! ask {
    ($trail:expr, $asked:ident => $answer:expr) => {
        match $trail {
            StoreTrail::Hot($asked) => $answer.await.map_err(StoreError::Hot),
            StoreTrail::Lake($asked) => $answer.await.map_err(StoreError::Lake),
        }
    };
}

impl StoreTrail {
    /// The snapshot rows of the stretches, with their positions.
    pub(crate) async fn snapshots(&mut self, stretches: &[Stretch]) -> Result<Vec<(Position, Snapshot)>, StoreError> {
        ask!(self, trail => trail.snapshots(stretches))
    }
}

impl Trail for StoreTrail {
    type Error = StoreError;

    async fn changes(&mut self, key: &str) -> Result<Vec<Turn>, StoreError> {
        ask!(self, trail => trail.changes(key))
    }

    async fn last_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, StoreError> {
        ask!(self, trail => trail.last_turn(key, window))
    }

    async fn first_turn(&mut self, key: &str, window: Window) -> Result<Option<Turn>, StoreError> {
        ask!(self, trail => trail.first_turn(key, window))
    }

    async fn newest(&mut self, stretches: &[Stretch], limit: usize) -> Result<Vec<Record>, StoreError> {
        ask!(self, trail => trail.newest(stretches, limit))
    }

    async fn truncations(&mut self, window: Window) -> Result<Vec<Record>, StoreError> {
        ask!(self, trail => trail.truncations(window))
    }
}

/// The order of a table's columns in each of its shapes, so that every store returns the same order.
pub(crate) struct Orders(HashMap<u32, ColumnOrder>);

impl Orders {
    pub(crate) fn of(shapes: Vec<Shape>) -> Orders {
        Orders(shapes.iter().map(|shape| (shape.schema_version, ColumnOrder::of(shape))).collect())
    }

    pub(crate) fn apply(&self, record: Record) -> Record {
        match self.0.get(&record.schema_version) {
            Some(order) => record.in_order(order),
            None => record.in_order(&ColumnOrder::default()),
        }
    }
}
