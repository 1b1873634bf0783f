//! Reading the lake back: [`LakeReader`].
//!
//! The Delta log says which files a table has and what is in them at most; files, row groups and pages that cannot hold what is asked for are
//! not read. Rows come as [`Record`]s, the struct that every store's reader gives. An export is a stream that holds one row group of each
//! file it stands in, whatever its size.

mod describe;
mod export;
mod files;
mod history;
mod record;

use std::sync::Arc;

use audit_core::position::Micros;
use audit_core::shape::Shape;
use audit_core::sink::Checkpoint;
use audit_core::stored::Record;
use futures::Stream;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::checkpoint;
use crate::commit::TableLog;
use crate::config::LakeConfig;
use crate::error::LakeError;
use crate::layout::{OWN_FOLDER, table_name};
use crate::partition::Partitioning;
use crate::store::Store;

pub use describe::{FieldDescription, TableDescription};

/// Tables whose log is read at a time.
const CONCURRENT: usize = 16;

/// A lake that is read.
#[derive(Clone, Debug)]
pub struct LakeReader {
    store: Store,
}

impl LakeReader {
    /// Opens a lake. It must be there.
    pub fn open(config: &LakeConfig) -> Result<LakeReader, LakeError> {
        Ok(LakeReader { store: Store::open(config, false)? })
    }

    pub fn over(store: Store) -> LakeReader {
        LakeReader { store }
    }

    /// Names of the tables that have versions here, in order; none where the lake is another source's.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, LakeError> {
        if checkpoint::source(&self.store).await?.as_deref() != Some(source) {
            return Ok(Vec::new());
        }
        let listed = self.store.objects().list_with_delimiter(None).await;
        let listed = listed.map_err(|error| LakeError::store("list", self.store.shown(), error))?;
        let folders = listed.common_prefixes.iter().filter_map(Path::filename).filter(|folder| *folder != OWN_FOLDER);
        let mut tables = Vec::new();
        let mut cut = Vec::new();
        for folder in folders {
            match table_name(folder) {
                Some(name) => tables.push(name),
                None => cut.push(folder.to_string()),
            }
        }
        tables.extend(self.names_of(source, cut).await?);
        tables.sort();
        Ok(tables)
    }

    /// Names too long for a folder's are in the table's metadata only.
    async fn names_of(&self, source: &str, folders: Vec<String>) -> Result<Vec<String>, LakeError> {
        use futures::{StreamExt, TryStreamExt};
        let source: Arc<str> = source.into();
        let open = |folder: String| {
            let source = source.clone();
            async move { TableLog::open_folder(&self.store, &source, &folder).await }
        };
        let logs: Vec<Option<TableLog>> =
            futures::stream::iter(folders).map(open).buffer_unordered(CONCURRENT).try_collect().await?;
        Ok(logs.into_iter().flatten().map(|log| log.table.to_string()).collect())
    }

    /// What the lake has; `None` before the first write, and where it is another source's.
    pub async fn checkpoint(&self, source: &str) -> Result<Option<Checkpoint>, LakeError> {
        Ok(checkpoint::stored(&self.store).await?.filter(|stored| stored.source == source))
    }

    /// The trail of one row, newest first, at most `limit` versions: what happened under this key, what happened to the same row under the
    /// keys it had before and after, and the truncations that removed it.
    ///
    /// A key that was used again after a deletion names more than one row: all of them are shown.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, LakeError> {
        let log = self.log(source, table).await?;
        history::history(&log, key, limit as usize).await
    }

    /// A table's versions in the order of their positions, committed at or after `since` and before `until`.
    pub async fn export(
        &self,
        source: &str,
        table: &str,
        since: Option<Micros>,
        until: Option<Micros>,
    ) -> Result<impl Stream<Item = Result<Record, LakeError>> + Send + use<>, LakeError> {
        let log = self.log(source, table).await?;
        export::export(log, since, until).await
    }

    /// How many versions [`LakeReader::export`] would give at most; exact where no bounds are given.
    pub async fn count(
        &self,
        source: &str,
        table: &str,
        since: Option<Micros>,
        until: Option<Micros>,
    ) -> Result<u64, LakeError> {
        let log = self.log(source, table).await?;
        let files = files::select(&log, |stats| stats.may_be_committed(since, until)).await?;
        Ok(files.iter().map(|file| file.rows).sum())
    }

    /// The shapes of a table, oldest first.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, LakeError> {
        let log = self.log(source, table).await?;
        Ok(log.state.map_or_else(Vec::new, |state| state.shapes))
    }

    /// What a table's log says about its columns, its partitions and its shapes.
    pub async fn describe(&self, source: &str, table: &str) -> Result<TableDescription, LakeError> {
        describe::describe(&self.log(source, table).await?).await
    }

    async fn log(&self, source: &str, table: &str) -> Result<TableLog, LakeError> {
        let log = TableLog::open(&self.store, &source.into(), table, Partitioning::default()).await?;
        if log.state.is_none() {
            return Err(LakeError::NoTable { table: table.to_string() });
        }
        Ok(log)
    }
}
