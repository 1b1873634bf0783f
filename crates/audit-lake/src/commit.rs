//! A table's Delta log as its writer sees it: read once, then written by compare-and-set.
//!
//! A commit is one object, put create-only, whose name is the next version. It holds the `add` actions of the files
//! and, as application transactions, the table's state (`<source>/epoch`, `/lsn`, `/seq`, the chunks of its baseline)
//! and its writer (`/owner`), so that data and checkpoint are one. Every commit names all of them, so the newest commit
//! alone gives the whole state.
//!
//! Nothing here retries blindly. After any answer except plain success the log is read: the commit is ours if and only
//! if it names our files. A higher owner epoch fences us. If a writer with a lower epoch committed first, we begin
//! again from what the log has now. A commit of another tool is stepped over, but the fresh files that it removed are
//! remembered: none of them is rolled any more. A commit that is found to be ours after a failed put is synced before
//! it counts.
//!
//! Commits are written through `deltalake-core`'s log store and not through its `CommitBuilder`, because that one
//! needs, for every table, a snapshot with the list of all files in memory, and lists the log before each commit.

mod compaction;
mod txn;

use std::collections::HashSet;
use std::sync::Arc;

use audit_core::shape::Shape;
use delta_kernel::snapshot::SnapshotRef;
use delta_kernel::{Engine, Error as KernelError, Snapshot};
use deltalake_core::checkpoints::cleanup_expired_logs_for;
use deltalake_core::kernel::transaction::CommitData;
use deltalake_core::kernel::{Action, Add, Metadata, Remove, Transaction};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, get_actions};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{LakeError, fault, from_store};
use crate::layout::{FRESH, table_folder};
use crate::partition::Partitioning;
use crate::schema::{DeltaField, first_fields};
use crate::store::Store;

pub use compaction::Replaced;
pub use txn::Txn;

/// Keys of a Delta table's configuration.
pub const SHAPES_KEY: &str = "cdc_audit.shapes";
pub const SOURCE_KEY: &str = "cdc_audit.source";
pub const TABLE_KEY: &str = "cdc_audit.table";

/// Number of commits after which a Delta checkpoint is written: readers read the newest one and the commits after it.
pub const CHECKPOINT_INTERVAL: u64 = 50;
/// Number of Delta checkpoints after which the log is cleaned up, which lists it.
const CLEANUP_INTERVAL: u64 = 20;
/// Number of commits by others that one commit steps over.
const RACES_MAX: u32 = 10;
/// Protocol versions for readers and for writers. New tables get these, and a table whose versions another tool has
/// raised above them is refused.
const PROTOCOL: (i32, i32) = (1, 2);

/// The state of a table according to its log.
#[derive(Clone, Debug)]
pub struct State {
    pub version: u64,
    pub txn: Txn,
    pub fields: Vec<DeltaField>,
    pub shapes: Vec<Shape>,
    pub partitioning: Partitioning,
    /// The `metaData` action without what the fields above hold.
    metadata: Map<String, Value>,
}

/// One commit.
#[derive(Clone, Debug)]
pub struct Change {
    pub adds: Vec<Add>,
    /// Files that `adds` replaces.
    pub removes: Vec<Remove>,
    pub txn: Txn,
    /// Columns and shapes, if they differ from what the log has.
    pub schema: Option<(Vec<DeltaField>, Vec<Shape>)>,
}

/// The log of one table. `state` is `None` if there is no table yet.
#[derive(Debug)]
pub struct TableLog {
    pub table: Arc<str>,
    pub folder: Arc<str>,
    pub state: Option<State>,
    /// For a table that does not exist yet.
    partitioning: Partitioning,
    /// Names of fresh files that other tools' log entries have removed, as far as such entries were stepped over.
    taken_away: HashSet<String>,
    source: Arc<str>,
    store: Store,
    log: LogStoreRef,
    url: Url,
}

impl TableLog {
    /// Opens the log; `partitioning` is for a table that does not exist yet.
    pub async fn open(
        store: &Store,
        source: &Arc<str>,
        table: &str,
        partitioning: Partitioning,
    ) -> Result<TableLog, LakeError> {
        let mut opened = TableLog::at(store, source, &table_folder(table))?;
        opened.partitioning = partitioning;
        opened.table = table.into();
        opened.reload().await?;
        Ok(opened)
    }

    /// Opens the log of the table in `folder`, whatever it is called; `None` if there is no table.
    pub async fn open_folder(store: &Store, source: &Arc<str>, folder: &str) -> Result<Option<TableLog>, LakeError> {
        let mut opened = TableLog::at(store, source, folder)?;
        opened.reload().await?;
        Ok(opened.state.is_some().then_some(opened))
    }

    fn at(store: &Store, source: &Arc<str>, folder: &str) -> Result<TableLog, LakeError> {
        let (log, url) = store.table_log(folder)?;
        let (store, source) = (store.clone(), source.clone());
        let (table, folder, partitioning) = (folder.into(), folder.into(), Partitioning::default());
        let taken_away = HashSet::new();
        Ok(TableLog { table, folder, state: None, partitioning, taken_away, source, store, log, url })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn log(&self) -> &LogStoreRef {
        &self.log
    }

    pub fn txn(&self) -> Txn {
        self.state.as_ref().map_or(Txn::default(), |state| state.txn)
    }

    pub fn partitioning(&self) -> Partitioning {
        self.state.as_ref().map_or(self.partitioning, |state| state.partitioning)
    }

    /// The table's columns, for a writer that is about to add to it.
    pub fn fields(&self, keep_before: bool) -> Vec<DeltaField> {
        let first = || first_fields(keep_before, self.partitioning);
        self.state.as_ref().map_or_else(first, |state| state.fields.clone())
    }

    /// Reads the log as it is now.
    pub async fn reload(&mut self) -> Result<(), LakeError> {
        self.state = match self.snapshot().await? {
            Some((snapshot, engine)) => Some(self.read(snapshot, engine).await?),
            None => None,
        };
        if let Some(name) = self.state.as_ref().and_then(|state| state.configured(TABLE_KEY)) {
            self.table = name.into();
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<Option<(SnapshotRef, Arc<dyn Engine>)>, LakeError> {
        let (engine, url) = (self.log.engine(None), self.url.clone());
        let task = engine.clone();
        let built = tokio::task::spawn_blocking(move || Snapshot::builder_for(url).build(task.as_ref()));
        match built.await.map_err(LakeError::Task)? {
            Ok(snapshot) => Ok(Some((snapshot, engine))),
            // The kernel has no kind of error for a missing log.
            Err(error) if error.to_string().contains("No files in log segment") => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn read(&self, snapshot: SnapshotRef, engine: Arc<dyn Engine>) -> Result<State, LakeError> {
        let configuration = snapshot.table_configuration();
        let protocol = configuration.protocol();
        if (protocol.min_reader_version(), protocol.min_writer_version()) > PROTOCOL {
            let versions =
                format!("reader {}, writer {}", protocol.min_reader_version(), protocol.min_writer_version());
            return Err(self.altered(format!("its Delta protocol was raised to {versions}")));
        }
        let metadata =
            serde_json::to_value(configuration.metadata()).map_err(|error| LakeError::log(&self.table, error))?;
        let source = self.source.clone();
        let version = snapshot.version();
        let numbers = move || -> Result<txn::Numbers, KernelError> {
            let mut numbers = txn::Numbers::default();
            for (number, name) in numbers.iter_mut().zip(txn::NAMES) {
                *number = snapshot.get_app_id_version(&format!("{source}/{name}"), engine.as_ref())?;
            }
            Ok(numbers)
        };
        let numbers =
            tokio::task::spawn_blocking(numbers).await.map_err(LakeError::Task)?.map_err(|error| self.failed(error))?;
        let txn = Txn::from_numbers(numbers).ok_or_else(|| self.altered("its transactions are not whole"))?;
        let state = State::new(version, txn, metadata).ok_or_else(|| self.altered("its metadata is not whole"))?;
        match state.configured(SOURCE_KEY) {
            Some(source) if *source == *self.source => Ok(state),
            Some(found) => {
                let wanted = self.source.to_string();
                Err(LakeError::OtherSource { path: self.shown(), found: found.to_string(), wanted })
            }
            None => Err(self.altered("it was not made by cdc-audit")),
        }
    }

    /// Commits. On success `state` is what the log says. A repeat after an error changes nothing if the first attempt
    /// succeeded.
    pub async fn commit(&mut self, change: &Change) -> Result<(), LakeError> {
        self.is_still_there().await?;
        let base = self.txn();
        let fields = self.state.as_ref().map(|state| state.fields.clone());
        for _ in 0..RACES_MAX {
            if change.removes.iter().any(|removed| self.taken_away.contains(file_name(&removed.path))) {
                return Err(LakeError::Rewritten { table: self.table.to_string() });
            }
            let version = self.state.as_ref().map_or(0, |state| state.version + 1);
            let (bytes, next) = self.prepare(version, change)?;
            fault!("lake::before_commit");
            let written = self.log.write_commit_entry(version, CommitOrBytes::LogBytes(bytes), uuid::Uuid::nil()).await;
            fault!("lake::after_commit");
            let Err(error) = written else {
                self.state = Some(next);
                return Ok(());
            };
            let Some(actions) = self.entry(version).await? else {
                return Err(LakeError::log(&self.table, error));
            };
            if is_ours(&actions, change, &self.source) {
                self.sync().await?;
                self.state = Some(self.as_written(next, &actions)?);
                return Ok(());
            }
            self.step_over(version).await?;
            let now = self.txn();
            if now.owner > change.txn.owner {
                let what = format!("table {}", self.table);
                return Err(LakeError::Fenced { what, theirs: now.owner, ours: change.txn.owner });
            }
            // If our own commit without files succeeded but its answer was lost, the table's state is unchanged.
            let same_place = (now.position, now.baseline) == (base.position, base.baseline);
            let same_fields = self.state.as_ref().map(|state| &state.fields) == fields.as_ref();
            if !same_place || (change.schema.is_some() && !same_fields) {
                return Err(LakeError::Overtaken { table: self.table.to_string(), position: now.position });
            }
        }
        Err(LakeError::Contended { table: self.table.to_string(), attempts: RACES_MAX })
    }

    /// The last known entry must still exist: an entry after a gap would damage the log and hide what was lost. The
    /// entry alone may also have been cleaned up by another tool.
    pub(crate) async fn is_still_there(&mut self) -> Result<(), LakeError> {
        let Some(known) = self.state.as_ref().map(|state| state.version) else { return Ok(()) };
        let path = Path::from(format!("{}/_delta_log/{known:020}.json", self.folder));
        match self.store.objects().head(&path).await {
            Ok(_) => return Ok(()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(LakeError::store("look for", self.store.show(&path), error)),
        }
        let before = self.state.clone();
        self.reload().await?;
        if self.state.as_ref().is_some_and(|state| state.version >= known) {
            return Ok(());
        }
        // ⚠ A repeat must find the same: with the state as it is now it would go on as if nothing were missing.
        let has = self.txn().position;
        self.state = before;
        Err(LakeError::TableWentBack { path: self.store.show(&path), has })
    }

    fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version)
    }

    /// Reads the log as it is now, and which files its entries from `first` on remove.
    async fn step_over(&mut self, first: u64) -> Result<(), LakeError> {
        self.reload().await?;
        for version in first..=self.version() {
            let Some(actions) = self.entry(version).await? else {
                // It was already cleaned up, so it is not known what it removed.
                return Err(LakeError::Rewritten { table: self.table.to_string() });
            };
            let fresh = removed(&actions).filter(|path| path.starts_with(FRESH));
            self.taken_away.extend(fresh.map(|path| file_name(path).to_string()));
        }
        Ok(())
    }

    /// The state after an entry of ours that an earlier attempt wrote: a table that began with that entry has that
    /// attempt's id.
    fn as_written(&self, state: State, actions: &[Action]) -> Result<State, LakeError> {
        let metadata = actions.iter().find_map(|action| match action {
            Action::Metadata(metadata) => Some(serde_json::to_value(metadata)),
            _ => None,
        });
        match metadata.transpose().map_err(|error| LakeError::log(&self.table, error))? {
            Some(metadata) => {
                State::new(state.version, state.txn, metadata).ok_or_else(|| self.altered("its metadata is not whole"))
            }
            None => Ok(state),
        }
    }

    /// Makes what was found in the log durable: the process that put it may have been killed before its folder was
    /// synced.
    pub async fn sync(&self) -> Result<(), LakeError> {
        match self.state {
            Some(_) => self.store.sync(&Path::from(format!("{}/_delta_log/last", self.folder))).await,
            None => Ok(()),
        }
    }

    /// Forgets the removed files. The files to be rolled are about to be read again, and no removed file is among them.
    pub fn forget_taken_away(&mut self) {
        self.taken_away.clear();
    }

    /// The bytes of the log entry, and the state that it leads to.
    fn prepare(&self, version: u64, change: &Change) -> Result<(bytes::Bytes, State), LakeError> {
        let failed = |error| LakeError::log(&self.table, error);
        let mut next = match &self.state {
            Some(state) => state.clone(),
            None => State::first(&self.source, &self.table, self.partitioning),
        };
        next.version = version;
        next.txn = change.txn;
        let mut actions: Vec<Action> = Vec::new();
        if self.state.is_none() {
            let protocol = json!({"minReaderVersion": PROTOCOL.0, "minWriterVersion": PROTOCOL.1});
            actions.push(Action::Protocol(serde_json::from_value(protocol).map_err(failed)?));
        }
        if let Some((fields, shapes)) = &change.schema {
            next.fields.clone_from(fields);
            next.shapes.clone_from(shapes);
            actions.push(Action::Metadata(next.metadata_action().map_err(failed)?));
        }
        actions.extend(change.adds.iter().cloned().map(Action::Add));
        actions.extend(change.removes.iter().cloned().map(Action::Remove));
        let partition_by = Some(next.partitioning.names());
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        let data = CommitData::new(actions, operation, client(), change.txn.transactions(&self.source));
        Ok((data.get_bytes().map_err(|error| LakeError::log(&self.table, error))?, next))
    }

    async fn entry(&self, version: u64) -> Result<Option<Vec<Action>>, LakeError> {
        let failed = |error| LakeError::log(&self.table, error);
        let bytes = self.log.read_commit_entry(version).await.map_err(failed)?;
        bytes.map(|bytes| get_actions(version, &bytes).map_err(failed)).transpose()
    }

    /// Writes the Delta checkpoint and cleans up the log if that is due. Readers benefit from it; nothing is lost if it
    /// fails.
    pub async fn maintain(&self) {
        let due = self.state.as_ref().is_some_and(|state| (state.version + 1).is_multiple_of(CHECKPOINT_INTERVAL));
        if due && let Err(error) = self.write_checkpoint().await {
            let cause = std::error::Error::source(&error).map(|source| source.to_string());
            tracing::warn!(table = %self.table, %error, cause, "could not write a Delta checkpoint");
        }
    }

    async fn write_checkpoint(&self) -> Result<(), LakeError> {
        fault!("lake::before_delta_checkpoint");
        let Some((snapshot, engine)) = self.snapshot().await? else { return Ok(()) };
        let (version, retention) = (snapshot.version(), snapshot.table_properties().log_retention_duration);
        let write = move || snapshot.checkpoint(engine.as_ref(), None).map(|_| ());
        tokio::task::spawn_blocking(write).await.map_err(LakeError::Task)?.map_err(|error| self.failed(error))?;
        fault!("lake::after_delta_checkpoint");
        if !version.div_ceil(CHECKPOINT_INTERVAL).is_multiple_of(CLEANUP_INTERVAL) {
            return Ok(());
        }
        let retention = retention.unwrap_or(LOG_RETENTION);
        let cutoff = audit_core::position::Micros::now().0 / 1000 - retention.as_millis() as i64;
        cleanup_expired_logs_for(version, self.log.as_ref(), cutoff, None)
            .await
            .map_err(|error| LakeError::log(&self.table, error))?;
        Ok(())
    }

    fn failed(&self, error: KernelError) -> LakeError {
        let broken = match &error {
            KernelError::Backtraced { source, .. } => is_broken(source),
            other => is_broken(other),
        };
        // An error of the store while it reads a file is no sign that the file is broken.
        let lost = from_store(&error).is_some_and(|error| !matches!(error, object_store::Error::NotFound { .. }));
        if broken && !lost { self.altered(error.to_string()) } else { LakeError::log(&self.table, error) }
    }

    fn altered(&self, what: impl Into<String>) -> LakeError {
        LakeError::altered(self.shown(), what)
    }

    fn shown(&self) -> String {
        self.store.show(&Path::from(format!("{}/_delta_log", self.folder)))
    }
}

/// The program that made a commit, for people who read the log's history.
fn client() -> std::collections::HashMap<String, Value> {
    let client = concat!("cdc-audit.", env!("CARGO_PKG_VERSION"));
    [("clientVersion".to_string(), json!(client))].into()
}

/// Delta's default retention of the log.
const LOG_RETENTION: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// Whether reading again cannot help.
fn is_broken(error: &KernelError) -> bool {
    !matches!(
        error,
        KernelError::ObjectStore(_) | KernelError::IOError(_) | KernelError::JoinFailure(_) | KernelError::Reqwest(_)
    )
}

/// Whether a log entry is the one that `change` meant to write: with the same files and the same application
/// transactions.
fn is_ours(actions: &[Action], change: &Change, source: &str) -> bool {
    let paths = actions.iter().filter_map(|action| match action {
        Action::Add(add) => Some(&add.path),
        _ => None,
    });
    let says = |wanted: Transaction| {
        let same = |txn: &Transaction| (&txn.app_id, txn.version) == (&wanted.app_id, wanted.version);
        actions.iter().any(|action| matches!(action, Action::Txn(txn) if same(txn)))
    };
    paths.eq(change.adds.iter().map(|add| &add.path)) && change.txn.transactions(source).into_iter().all(says)
}

/// Paths of the files that an entry removes.
fn removed(actions: &[Action]) -> impl Iterator<Item = &str> {
    actions.iter().filter_map(|action| match action {
        Action::Remove(removed) => Some(removed.path.as_str()),
        _ => None,
    })
}

/// The name that identifies a file of ours in its table, however another tool spells its folders.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl State {
    fn first(source: &str, table: &str, partitioning: Partitioning) -> State {
        let configuration = json!({
            SOURCE_KEY: source,
            TABLE_KEY: table,
            "cdc_audit.format": "1",
            "delta.appendOnly": "true",
            "delta.checkpointInterval": CHECKPOINT_INTERVAL.to_string(),
            // There is a commit every few seconds, with files that are replaced within the hour: with Delta's defaults
            // a hundred thousand commits and as many replaced files would be kept.
            "delta.logRetentionDuration": "interval 2 days",
            "delta.deletedFileRetentionDuration": "interval 1 day",
        });
        let metadata = json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "name": table,
            "description": null,
            "format": {"provider": "parquet", "options": {}},
            "partitionColumns": partitioning.names(),
            "configuration": configuration,
            "createdTime": audit_core::position::Micros::now().0 / 1000,
        });
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        State { version: 0, txn: Txn::default(), fields: Vec::new(), shapes: Vec::new(), partitioning, metadata }
    }

    fn new(version: u64, txn: Txn, metadata: Value) -> Option<State> {
        #[derive(serde::Deserialize)]
        struct Struct {
            fields: Vec<DeltaField>,
        }
        let Value::Object(mut metadata) = metadata else { return None };
        let schema = metadata.remove("schemaString")?;
        let Struct { fields } = serde_json::from_str(schema.as_str()?).ok()?;
        let shapes = metadata.get_mut("configuration")?.as_object_mut()?.remove(SHAPES_KEY);
        let shapes = match shapes {
            Some(text) => serde_json::from_str(text.as_str()?).ok()?,
            None => Vec::new(),
        };
        let columns: Vec<String> = serde_json::from_value(metadata.get("partitionColumns")?.clone()).ok()?;
        let partitioning = Partitioning::of_names(&columns)?;
        Some(State { version, txn, fields, shapes, partitioning, metadata })
    }

    pub fn configured(&self, key: &str) -> Option<&str> {
        self.metadata.get("configuration")?.get(key)?.as_str()
    }

    fn metadata_action(&self) -> serde_json::Result<Metadata> {
        let mut metadata = self.metadata.clone();
        let schema = serde_json::to_string(&json!({"type": "struct", "fields": self.fields}))?;
        metadata.insert("schemaString".to_string(), Value::String(schema));
        if let Some(configuration) = metadata.get_mut("configuration").and_then(Value::as_object_mut) {
            configuration.insert(SHAPES_KEY.to_string(), Value::String(serde_json::to_string(&self.shapes)?));
        }
        serde_json::from_value(Value::Object(metadata))
    }
}

#[cfg(test)]
mod tests;
