//! Where versions are read from: one question, two stores, one record.

use audit_core::position::Micros;
use audit_core::stored::Record;
use audit_hot::HotReader;
use audit_lake::LakeReader;
use futures::stream::{BoxStream, StreamExt};

/// A store that was opened for reading.
pub enum Store {
    Hot(HotReader),
    Lake(LakeReader),
}

/// Which versions: all of a table that were committed in a span of time.
#[derive(Clone, Debug)]
pub struct Selection {
    pub source: String,
    pub table: String,
    /// Committed at or after.
    pub since: Option<Micros>,
    /// Committed before.
    pub until: Option<Micros>,
}

/// A store cannot be read.
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
    /// Names of the tables that have versions here.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.tables(source).await?,
            Store::Lake(lake) => lake.tables(source).await?,
        })
    }

    /// Names of the columns of the table's key, in key order.
    pub async fn key_columns(&self, source: &str, table: &str) -> Result<Vec<String>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => hot.key_columns(source, table).await?,
            Store::Lake(lake) => lake.key_columns(source, table).await?,
        })
    }

    /// The trail of one row, newest first, through changes of its key.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, StoreError> {
        let records = match self {
            Store::Hot(hot) => hot.history(source, table, key, limit).await?,
            Store::Lake(lake) => lake.history(source, table, key, limit).await?,
        };
        Ok(records.into_iter().map(Record::complete).collect())
    }

    /// Versions in the order of their positions, as a stream.
    pub async fn versions(
        &self,
        selection: &Selection,
    ) -> Result<BoxStream<'static, Result<Record, StoreError>>, StoreError> {
        Ok(match self {
            Store::Hot(hot) => {
                let selection = audit_hot::Selection {
                    source: selection.source.clone(),
                    tables: vec![selection.table.clone()],
                    since: selection.since,
                    until: selection.until,
                };
                hot.export(&selection).await?.map(|record| Ok(record?.complete())).boxed()
            }
            Store::Lake(lake) => {
                let Selection { source, table, since, until } = selection;
                let stream = lake.export(source, table, *since, *until).await?;
                stream.map(|record| Ok(record?.complete())).boxed()
            }
        })
    }
}
