//! Selects the files of a table that may hold what is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit_core::position::{Micros, Position, Window};
use deltalake_core::kernel::Snapshot;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::PageIndexPolicy;
use serde::Deserialize;
use serde_json::Value;

use crate::commit::TableLog;
use crate::error::LakeError;
use crate::fetch::ObjectReader;
use crate::layout::FileName;
use crate::meter::Meter;
use crate::store::Store;

/// Number of files of a question that are read at a time. In a bucket most of the time is waiting.
pub const AHEAD: usize = 4;

/// A data file that a log names.
#[derive(Clone, Debug)]
pub struct DataFile {
    pub store: Store,
    pub name: FileName,
    pub path: Path,
    pub size: u64,
    pub rows: u64,
    /// The latest commit time in it, if the log says so.
    pub last_committed: Option<Micros>,
    pub meter: Meter,
}

/// The log's statistics of a file. A value that they do not exclude may be in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    num_records: Option<u64>,
    min_values: BTreeMap<String, Value>,
    max_values: BTreeMap<String, Value>,
    null_count: BTreeMap<String, Value>,
}

impl Stats {
    fn nulls(&self, column: &str) -> Option<u64> {
        self.null_count.get(column)?.as_u64()
    }

    /// Whether a text column may hold the value. Bounds may be shortened, but remain valid bounds.
    pub fn may_hold(&self, column: &str, text: &str) -> bool {
        if self.num_records.is_some() && self.nulls(column) == self.num_records {
            return false;
        }
        let bound = |bounds: &BTreeMap<String, Value>| bounds.get(column).and_then(Value::as_str).map(str::to_string);
        bound(&self.min_values).is_none_or(|min| *min <= *text)
            && bound(&self.max_values).is_none_or(|max| *text <= *max)
    }

    pub fn may_have_nulls(&self, column: &str) -> bool {
        self.nulls(column) != Some(0)
    }

    /// Whether a version may have been committed in the time span.
    pub fn may_be_committed(&self, since: Option<Micros>, until: Option<Micros>) -> bool {
        // Both are printed in the same format, so the texts sort like the times.
        let bound = |bounds: &BTreeMap<String, Value>| {
            bounds.get("cdc_committed_at").and_then(Value::as_str).map(str::to_string)
        };
        let (min, max) = (bound(&self.min_values), bound(&self.max_values));
        let starts = until.zip(min).is_none_or(|(until, min)| *min < *until.to_string());
        starts && since.zip(max).is_none_or(|(since, max)| *since.to_string() <= *max)
    }

    /// The latest commit time in the file.
    fn committed_until(&self) -> Option<Micros> {
        self.max_values.get("cdc_committed_at").and_then(Value::as_str)?.parse().ok()
    }
}

impl DataFile {
    pub fn reader(&self) -> ObjectReader {
        self.meter.file();
        let objects = self.store.objects().clone();
        ObjectReader { objects, path: self.path.clone(), size: self.size, meter: self.meter.clone() }
    }

    /// The path as messages show it.
    pub fn shown(&self) -> String {
        self.store.show(&self.path)
    }
}

/// One snapshot of a table's log in each store that has the table.
#[derive(Debug)]
pub struct Logs {
    pinned: Vec<Pinned>,
    /// Counts what is read of the files.
    meter: Meter,
}

/// A table's log, and the snapshot of it that is read.
#[derive(Debug)]
struct Pinned {
    log: Arc<TableLog>,
    snapshot: Snapshot,
}

impl Pinned {
    async fn of(log: Arc<TableLog>) -> Result<Pinned, LakeError> {
        let snapshot = Snapshot::try_new(log.log().as_ref(), None).await;
        let snapshot = snapshot.map_err(|error| LakeError::log(&log.table, error))?;
        Ok(Pinned { log, snapshot })
    }

    /// Adds the files that `wanted` chooses.
    async fn select(
        &self,
        wanted: impl Fn(&FileName, &Stats) -> bool,
        meter: &Meter,
        files: &mut Vec<DataFile>,
    ) -> Result<(), LakeError> {
        let log = &self.log;
        let mut views = self.snapshot.file_views(log.log().as_ref(), None);
        while let Some(view) = views.try_next().await.map_err(|error| LakeError::log(&log.table, error))? {
            let path = Path::from(format!("{}/{}", log.folder, view.path()));
            let name = FileName::of_path(&path).ok_or_else(|| {
                LakeError::altered(log.store().show(&path), "the log names a file that cdc-audit did not write")
            })?;
            let stats: Stats = view.stats().and_then(|stats| serde_json::from_str(&stats).ok()).unwrap_or_default();
            if !wanted(&name, &stats) {
                meter.file_skipped();
            } else {
                let (store, size, rows) = (log.store().clone(), view.size() as u64, stats.num_records.unwrap_or(0));
                let last_committed = stats.committed_until();
                files.push(DataFile { store, name, path, size, rows, last_committed, meter: meter.clone() });
            }
        }
        Ok(())
    }
}

impl Logs {
    pub async fn of(logs: impl IntoIterator<Item = Arc<TableLog>>, meter: Meter) -> Result<Logs, LakeError> {
        let pinned = futures::stream::iter(logs).map(Pinned::of).buffered(super::CONCURRENT);
        Ok(Logs { pinned: pinned.try_collect().await?, meter })
    }

    /// New snapshots of the same logs.
    pub async fn again(&self) -> Result<Logs, LakeError> {
        Logs::of(self.logs().cloned(), self.meter.clone()).await
    }

    pub fn logs(&self) -> impl Iterator<Item = &Arc<TableLog>> {
        self.pinned.iter().map(|pinned| &pinned.log)
    }

    /// The files that may hold versions in the window and for which `wanted` returns true, in order of their first
    /// versions.
    pub async fn select(&self, window: Window, wanted: impl Fn(&Stats) -> bool) -> Result<Vec<DataFile>, LakeError> {
        let span = |name: &FileName| Window { from: Some(name.first), to: Some(name.last.next()) };
        let wanted = |name: &FileName, stats: &Stats| !span(name).within(window).is_empty() && wanted(stats);
        let mut files = Vec::new();
        for pinned in &self.pinned {
            pinned.select(wanted, &self.meter, &mut files).await?;
        }
        files.sort_by_key(|file| (file.name.first, file.name.last));
        Ok(files)
    }

    /// The latest commit time in the files that end at or before `up_to`, as far as the logs contain it.
    pub async fn newest(&self, up_to: Position) -> Result<Option<Micros>, LakeError> {
        let mut newest: Option<Micros> = None;
        for Pinned { log, snapshot } in &self.pinned {
            let mut views = snapshot.file_views(log.log().as_ref(), None);
            while let Some(view) = views.try_next().await.map_err(|error| LakeError::log(&log.table, error))? {
                let path = Path::from(format!("{}/{}", log.folder, view.path()));
                if FileName::of_path(&path).is_some_and(|name| name.last <= up_to) {
                    let stats = view.stats().and_then(|stats| serde_json::from_str::<Stats>(&stats).ok());
                    newest = newest.max(stats.and_then(|stats| stats.committed_until()));
                }
            }
        }
        Ok(newest)
    }
}

/// Where pages begin is needed to skip some. The bounds of pages, which are larger, are not used.
pub fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional)
}

/// Opens a file for reading.
pub async fn open(file: &DataFile) -> Result<ParquetRecordBatchStreamBuilder<ObjectReader>, LakeError> {
    ParquetRecordBatchStreamBuilder::new_with_options(file.reader(), options())
        .await
        .map_err(|source| LakeError::Read { path: file.shown(), source })
}
