//! A lake in its own folder, and the two kinds of readers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use audit_config::ByteSize;
use audit_core::batch::{Batch, Progress};
use audit_core::position::{Lsn, Position};
use audit_core::sink::{Identity, Sink, SinkError, Stored};
use audit_lake::store::Store;
use audit_lake::{LakeConfig, LakeSink};
use audit_testkit::{ObjectServer, unique};
use deltalake_core::kernel::Snapshot;
use deltalake_core::logstore::{StorageConfig, logstore_for};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use url::Url;

pub const MEMORY: usize = 64 << 20;

pub mod story;
pub mod tenants;

/// The folder of a lake's or a tenant's files, as readers see it.
pub struct View(PathBuf);

/// A lake on disk, or in a bucket of which the folder holds a copy.
pub struct Lake {
    pub folder: TempDir,
    view: View,
    pub config: LakeConfig,
    /// If the lake is in a bucket: how it is reached without a proxy.
    direct: Option<LakeConfig>,
}

impl std::ops::Deref for Lake {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Lake {
    pub fn new() -> Lake {
        // In memory if possible, because hundreds of lakes are synced hundreds of times.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut config = LakeConfig::at(folder.path().to_str().unwrap());
        // Nothing is closed because of its age, and nothing is fresh, unless a test sets it.
        config.file_age = Duration::from_secs(3600).into();
        config.data_bytes = ByteSize::mib(0);
        let view = View::of(folder.path());
        Lake { folder, view, config, direct: None }
    }

    /// A lake in a bucket, under its own prefix, which is reached at `port`.
    pub fn in_bucket(server: &ObjectServer, port: u16) -> Lake {
        let prefix = unique("lake");
        let config = |port| {
            let mut config = parsed(&server.lake(&prefix, port));
            config.file_age = Duration::from_secs(3600).into();
            config.data_bytes = ByteSize::mib(0);
            config
        };
        Lake { config: config(port), direct: Some(config(server.port())), ..Lake::new() }
    }

    /// Makes every file fresh; it is rolled with the next call, and replaced files are removed at once.
    pub fn fresh(mut self) -> Lake {
        for config in std::iter::once(&mut self.config).chain(&mut self.direct) {
            config.data_bytes = ByteSize::gib(1);
            config.data_rows = u64::MAX;
            config.roll_age = Duration::ZERO.into();
            config.grace = Duration::ZERO.into();
        }
        self
    }

    /// The lake's objects, without a proxy.
    pub fn store(&self) -> Store {
        Store::open(self.direct.as_ref().unwrap_or(&self.config), true).unwrap()
    }

    /// Copies the bucket's contents into the folder, where readers look.
    pub async fn mirror(&self) {
        if self.direct.is_none() {
            return;
        }
        for entry in std::fs::read_dir(self.path()).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        let store = self.store();
        let listed: Vec<ObjectMeta> = store.objects().list(None).try_collect().await.unwrap();
        let copy = |meta: ObjectMeta| {
            let objects = store.objects().clone();
            async move { (objects.get(&meta.location).await.unwrap().bytes().await.unwrap(), meta) }
        };
        let mut copied = futures::stream::iter(listed).map(copy).buffer_unordered(16);
        while let Some((bytes, meta)) = copied.next().await {
            let path = self.path().join(meta.location.as_ref());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub fn sink(&self) -> LakeSink {
        LakeSink::new("lake", &self.config, MEMORY).unwrap()
    }

    /// A sink that has taken the lake over, and begins at the lake's checkpoint.
    pub async fn taken(&self) -> (LakeSink, Stored) {
        let mut sink = self.sink();
        let stored = sink.take(&identity()).await.unwrap();
        let start = stored.checkpoint.as_ref().map_or(start(), |checkpoint| checkpoint.progress());
        sink.begin(start).await.unwrap();
        (sink, stored)
    }

    /// Takes the lake over, writes the batches, and makes all of them durable.
    pub async fn write(&self, batches: &[Batch]) -> LakeSink {
        let (mut sink, _) = self.taken().await;
        write(&mut sink, batches).await.unwrap();
        sink
    }
}

impl View {
    pub fn of(path: &Path) -> View {
        View(path.to_path_buf())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What readers of the Delta log see of a table: each row as `position event key`, in order of position.
    pub async fn delta_rows(&self, table: &str) -> Vec<String> {
        rows_of(&self.delta_batches(table).await)
    }

    pub async fn delta_batches(&self, table: &str) -> Vec<RecordBatch> {
        let folder = self.path().join(audit_lake::layout::table_folder(table));
        if !folder.join("_delta_log").exists() {
            return Vec::new();
        }
        let files = self.delta_files(table).await;
        files.iter().flat_map(|path| read(&folder.join(path))).collect()
    }

    /// The files that the Delta log names, as `deltalake-core` reads it.
    pub async fn delta_files(&self, table: &str) -> Vec<String> {
        let folder = self.path().join(audit_lake::layout::table_folder(table));
        let url = Url::from_directory_path(&folder).unwrap();
        let log = logstore_for(&url, StorageConfig::default()).unwrap();
        let snapshot = Snapshot::try_new(log.as_ref(), None).await.unwrap();
        let files: Vec<_> = snapshot.file_views(log.as_ref(), None).try_collect().await.unwrap();
        files.iter().map(|file| file.path().to_string()).collect()
    }

    /// The rows of fresh files that the log names.
    pub async fn fresh_rows(&self, table: &str) -> Vec<String> {
        let folder = self.path().join(audit_lake::layout::table_folder(table));
        if !folder.join("_delta_log").exists() {
            return Vec::new();
        }
        let files = self.delta_files(table).await;
        let fresh = files.iter().filter(|path| path.starts_with("fresh/"));
        rows_of(&fresh.flat_map(|path| read(&folder.join(path))).collect::<Vec<_>>())
    }

    /// What readers that list `data/` see of a table.
    pub fn listed_rows(&self, table: &str) -> Vec<String> {
        rows_of(&self.listed_batches(table))
    }

    pub fn listed_batches(&self, table: &str) -> Vec<RecordBatch> {
        self.listed_files(table).iter().flat_map(|path| read(path)).collect()
    }

    pub fn listed_files(&self, table: &str) -> Vec<PathBuf> {
        let data = self.path().join(audit_lake::layout::table_folder(table)).join("data");
        let mut files = Vec::new();
        walk(&data, &mut files);
        files.sort();
        files
    }

    /// All files, with their sizes and times.
    pub fn files(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let mut files = Vec::new();
        walk(self.path(), &mut files);
        files.sort();
        let seen = |path: PathBuf| {
            let metadata = path.metadata().unwrap();
            (path, metadata.len(), metadata.modified().unwrap())
        };
        files.into_iter().map(seen).collect()
    }

    /// Checks that both kinds of readers see the same, each version once; readers that list do not see fresh files.
    /// Between a roll's file and its commit they see what the log has in fresh files.
    pub async fn agreed(&self, table: &str) -> Vec<String> {
        let (delta, mut listed) = (self.delta_rows(table).await, self.listed_rows(table));
        let fresh = self.fresh_rows(table).await;
        listed.extend(fresh.into_iter().filter(|row| !listed.contains(row)).collect::<Vec<_>>());
        listed.sort();
        assert_eq!(delta, listed, "readers of the log and of the folders disagree on {table}");
        let mut unique = delta.clone();
        unique.dedup_by_key(|row| row.split(' ').next().unwrap().to_string());
        assert_eq!(unique, delta, "a version is there twice in {table}");
        delta
    }
}

/// Parses a lake's configuration from its lines of TOML.
pub fn parsed(toml: &str) -> LakeConfig {
    let check = |config: &LakeConfig, problems: &mut audit_config::Problems| config.check(problems);
    audit_config::parse(Path::new("lake.toml"), toml, check).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn identity() -> Identity {
    Identity { source: "shop".into(), system_id: 7, timeline: 1, timeline_start: Lsn::ZERO }
}

/// The position of the fixtures' source before its first transaction.
pub fn start() -> Progress {
    Progress { position: Position::new(1, Lsn(0), 0), ..Progress::default() }
}

/// Rolls what is due, and removes what was replaced; stops if a roll fails.
pub async fn roll(sink: &mut LakeSink) -> Result<(), SinkError> {
    roll_until(sink, |sink| !sink.troubles().is_empty()).await?;
    sink.troubles().pop().map_or(Ok(()), |trouble| Err(SinkError::retry(trouble)))
}

/// The same, but continues whatever fails.
pub async fn roll_on(sink: &mut LakeSink) -> Result<(), SinkError> {
    roll_until(sink, |_| false).await
}

async fn roll_until(sink: &mut LakeSink, ended: impl Fn(&LakeSink) -> bool) -> Result<(), SinkError> {
    let soon = Duration::from_secs(5);
    while sink.due().is_some_and(|due| due < Instant::now() + soon) && !ended(sink) {
        sink.flush(false).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

pub async fn write(sink: &mut LakeSink, batches: &[Batch]) -> Result<(), SinkError> {
    let batches: Vec<&Batch> = batches.iter().collect();
    sink.write(&batches).await?;
    sink.flush(true).await
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

pub fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    reader.collect::<Result<_, _>>().unwrap()
}

pub fn rows_of(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (positions, events, keys) = (text("cdc_position"), text("cdc_event"), text("cdc_key"));
        for at in 0..batch.num_rows() {
            let key = if keys.is_null(at) { "-" } else { keys.value(at) };
            rows.push(format!("{} {} {key}", positions.value(at), events.value(at)));
        }
    }
    rows.sort();
    rows
}

/// All columns of the row at index `at`, as Arrow shows them; nulls are left out.
pub fn row_at(batches: &[RecordBatch], at: usize) -> BTreeMap<String, String> {
    let mut seen = 0;
    for batch in batches {
        if at < seen + batch.num_rows() {
            let options = FormatOptions::default().with_display_error(true);
            let shown =
                |column: &dyn Array| ArrayFormatter::try_new(column, &options).unwrap().value(at - seen).to_string();
            let columns = batch.schema_ref().fields().iter().zip(batch.columns());
            let present = columns.filter(|(_, column)| column.is_valid(at - seen));
            return present.map(|(field, column)| (field.name().clone(), shown(column.as_ref()))).collect();
        }
        seen += batch.num_rows();
    }
    panic!("no row {at}");
}
