//! The stores from which versions are read: the same queries and records for both kinds.

use std::collections::HashMap;
use std::sync::Arc;

use audit_core::position::{Micros, Position};
use audit_core::search::{Commit, Matches, Wanted};
use audit_core::shape::Shape;
use audit_core::sink::Checkpoint;
use audit_core::stored::{ColumnOrder, Record};
use audit_hot::HotReader;
use audit_lake::LakeReader;
use futures::stream::{BoxStream, StreamExt};

/// A store that was opened for reading.
#[derive(Clone)]
pub enum Store {
    Hot(HotReader),
    Lake(LakeReader),
}

/// A part of a store that is exported separately.
pub struct Part {
    /// The part's tenant; `None` for what belongs to no tenant.
    pub tenant: Option<Arc<str>>,
    /// True if only lost stretches are read from it, because these concern every tenant.
    pub gaps_only: bool,
    pub store: Store,
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
}

/// The reason why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Hot(#[from] audit_hot::ReadError),
    #[error(transparent)]
    Lake(#[from] audit_lake::LakeError),
}

impl StoreError {
    pub fn hint(&self) -> Option<String> {
        match self {
            StoreError::Hot(error) => error.hint(),
            StoreError::Lake(error) => error.hint(),
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

    /// Lists what belongs to no tenant, then what belongs to each tenant, if tenants have their own stores or tables.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn parts(&self, source: &str) -> Result<Vec<Part>, StoreError> {
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
                    let stored_at = Some(state.updated_at);
                    state.checkpoint.map(|checkpoint| Head { checkpoint, stored_at })
                })
            }
            Store::Lake(lake) => {
                let stored = lake.checkpoint(source).await?;
                stored.map(|(checkpoint, stored_at)| Head { checkpoint, stored_at })
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

    /// Reads the table's latest shape.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn shape(&self, source: &str, table: &str) -> Result<Option<Shape>, StoreError> {
        Ok(self.shapes(source, table).await?.into_iter().max_by_key(|shape| shape.schema_version))
    }

    /// Reads all shapes of the table, oldest first.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.shapes(source, table).await?,
            Store::Lake(lake) => lake.shapes(source, table).await?,
        })
    }

    /// Reads the trail of one row, newest version first, across changes of its key.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, StoreError> {
        let orders = Orders::of(self.shapes(source, table).await?);
        let records = match self {
            Store::Hot(hot) => hot.history(source, table, key, limit).await?,
            Store::Lake(lake) => lake.history(source, table, key, limit).await?,
        };
        Ok(records.into_iter().map(|record| orders.apply(record)).collect())
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

    /// The number of versions that transactions have, in all tables; their commit times find them.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn commit_sizes(
        &self,
        source: &str,
        commits: &[(Commit, Micros)],
    ) -> Result<HashMap<Commit, u64>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.commit_sizes(source, commits).await?,
            Store::Lake(lake) => lake.commit_sizes(source, &lake.tables(source).await?, commits).await?,
        })
    }

    /// Streams the selected versions in the order of their positions.
    ///
    /// # Errors
    /// Fails if the store cannot be read; the stream can also end with an error.
    pub async fn versions(
        &self,
        selection: &Selection,
    ) -> Result<BoxStream<'static, Result<Record, StoreError>>, StoreError> {
        let orders = Orders::of(self.shapes(&selection.source, &selection.table).await?);
        let after = selection.after;
        Ok(match self {
            Store::Hot(hot) => {
                let selection = audit_hot::Selection {
                    source: selection.source.clone(),
                    tables: vec![selection.table.clone()],
                    since: selection.since,
                    until: selection.until,
                    unattributed: selection.unattributed,
                };
                let stream = hot.export(&selection).await?;
                let wanted = move |record: &Result<Record, audit_hot::ReadError>| {
                    record.as_ref().map_or(true, |record| after.is_none_or(|after| record.position > after))
                };
                let stream = stream.filter(move |record| std::future::ready(wanted(record)));
                stream.map(move |record| Ok(orders.apply(record?))).boxed()
            }
            Store::Lake(lake) => {
                let Selection { source, table, since, until, unattributed, .. } = selection;
                let unattributed = *unattributed;
                let stream = lake.export_after(source, table, after, *since, *until).await?;
                let wanted = move |record: &Result<Record, audit_lake::LakeError>| {
                    !unattributed || record.as_ref().map_or(true, |record| !record.missing().is_empty())
                };
                let stream = stream.filter(move |record| std::future::ready(wanted(record)));
                stream.map(move |record| Ok(orders.apply(record?))).boxed()
            }
        })
    }
}

/// The order of a table's columns in each of its shapes, so that every store returns the same order.
struct Orders(HashMap<u32, ColumnOrder>);

impl Orders {
    fn of(shapes: Vec<Shape>) -> Orders {
        Orders(shapes.iter().map(|shape| (shape.schema_version, ColumnOrder::of(shape))).collect())
    }

    fn apply(&self, record: Record) -> Record {
        match self.0.get(&record.schema_version) {
            Some(order) => record.in_order(order),
            None => record.in_order(&ColumnOrder::default()),
        }
    }
}
