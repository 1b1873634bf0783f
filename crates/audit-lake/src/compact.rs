//! Compaction: makes the files of `data/` fewer, larger, and sorted by key and position, in lakes that no reader lists.
//!
//! It owns nothing and may run anywhere, inside the daemon or next to it. A file is made from others of one partition,
//! then one commit names it instead of them if all of them are still in the log; the daemon steps over such commits.
//! Replaced files stay for readers of an older state of the log: a note under `_cdc_audit/replaced` lists them, and a
//! later run removes them. The note is written first, so that a kill loses track of nothing, and is trusted only as far
//! as the log agrees: a file that the log names is never removed, and a file that a paused run may still commit is
//! first abandoned in the log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use audit_core::position::Micros;
use audit_core::sink::ChunkProgress;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::adopt;
use crate::commit::{Replaced, TableLog};
use crate::config::LakeConfig;
use crate::encode;
use crate::error::{LakeError, fault};
use crate::file::{FileContext, Limits};
use crate::layout::{DATA, OWN_FOLDER};
use crate::merge::{LogFile, Merged, has_long_values, merge};
use crate::partition::Partition;
use crate::read::LakeReader;
use crate::store::Store;
use crate::tenants::Stores;

/// The folder of the notes on replaced files.
const NOTES: &str = "_cdc_audit/replaced";
/// Records when the last run over the whole lake ended.
const LAST_RUN: &str = "_cdc_audit/compacted.json";
/// A partition that is still written to is compacted when it has this many files.
const OPEN_FILES_MIN: usize = 8;
/// Microseconds after which files of a killed run are removed; a run that took this long from a file to its commit
/// begins again.
const LEFT_AFTER: i64 = 86_400_000_000;

/// What a run has done to one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Arc<str>>,
    pub table: String,
    /// Number of files that were replaced. `bytes` is their size.
    pub files: u64,
    pub bytes: u64,
    /// Number of files that replaced them. `into_bytes` is their size.
    pub into: u64,
    pub into_bytes: u64,
    /// Number of all files that are in `data/` now.
    pub left: u64,
}

/// The settings and the store that a run works with.
#[derive(Clone, Debug)]
pub struct Compactor {
    stores: Stores,
    /// The store that is compacted: home's or a tenant's.
    store: Store,
    pub tenant: Option<Arc<str>>,
    source: Arc<str>,
    files: encode::Settings,
    target: u64,
    /// Age in microseconds. Older partitions are left alone.
    within: i64,
    grace: i64,
    window: usize,
}

/// When the last run over the whole lake ended, in microseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct LastRun {
    at: i64,
}

/// The files that one commit replaces.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The table's folder.
    table: String,
    at: i64,
    /// Path from the table's folder, like those of the replaced files.
    made: String,
    replaced: Vec<String>,
}

impl Compactor {
    /// Compacts a lake without tenants. `memory` is about how many bytes a run may take.
    ///
    /// # Errors
    /// Fails if the compression settings are invalid.
    pub fn new(config: &LakeConfig, store: Store, source: &str, memory: usize) -> Result<Compactor, LakeError> {
        Compactor::of(config, Stores::alone(store), source, memory)
    }

    /// Compacts home; [`Compactor::each`] also returns one compactor for each tenant.
    ///
    /// # Errors
    /// Fails if the compression settings are invalid.
    pub fn of(config: &LakeConfig, stores: Stores, source: &str, memory: usize) -> Result<Compactor, LakeError> {
        let row_group =
            usize::try_from(config.row_group_bytes.get()).unwrap_or(usize::MAX).min((memory / 2).max(1 << 20));
        let micros = |span: audit_config::Span| i64::try_from(span.get().as_micros()).unwrap_or(i64::MAX);
        Ok(Compactor {
            files: encode::Settings::new(config, row_group).map_err(|source| LakeError::Settings { source })?,
            target: config.compact_bytes.get(),
            within: micros(config.compact_within),
            grace: micros(config.grace),
            window: memory / 2,
            source: source.into(),
            store: stores.home().clone(),
            tenant: None,
            stores,
        })
    }

    /// One compactor for home, and one for each tenant.
    ///
    /// # Errors
    /// Fails if home cannot be read, or if a tenant's store cannot be opened.
    pub async fn each(&self) -> Result<Vec<Compactor>, LakeError> {
        let tenants = self.stores.known().await?.into_iter().map(|tenant| {
            let store = self.stores.of(Some(&tenant)).map_err(|error| error.of_tenant(&tenant))?;
            Ok(Compactor { store, tenant: Some(tenant), ..self.clone() })
        });
        std::iter::once(Ok(self.clone())).chain(tenants).collect()
    }

    /// The tables of the store.
    ///
    /// # Errors
    /// Fails if the store cannot be read.
    pub async fn tables(&self) -> Result<Vec<String>, LakeError> {
        let reader = LakeReader::of(&self.stores);
        match &self.tenant {
            Some(tenant) => reader.of_tenant(tenant).await?.tables(&self.source).await,
            None => reader.of_home().tables(&self.source).await,
        }
    }

    /// Compacts one table after the other, in home and for all tenants, and removes what earlier runs have replaced. If
    /// a table or a store fails, this is logged and the others continue. At the end, home records that a run has ended.
    ///
    /// # Errors
    /// Fails if the tenants cannot be read, or if the end of the run cannot be recorded.
    pub async fn all(&self) -> Result<(), LakeError> {
        for one in self.each().await? {
            if let Err(error) = one.all_of_store().await {
                one.failed(None, &error);
            }
        }
        self.note_run().await
    }

    async fn all_of_store(&self) -> Result<(), LakeError> {
        for table in self.tables().await? {
            match self.table(&table).await {
                Ok(done) if done.into > 0 => {
                    tracing::info!(table, files = done.files, into = done.into, "compacted");
                }
                // The table may have its first file but not its first commit.
                Ok(_) | Err(LakeError::NoTable { .. }) => {}
                Err(error) => self.failed(Some(&table), &error),
            }
        }
        self.sweep().await.map(|_| ())
    }

    fn failed(&self, table: Option<&str>, error: &LakeError) {
        let cause = std::error::Error::source(error).map(|source| source.to_string());
        tracing::warn!(table, tenant = self.tenant.as_deref(), %error, cause, "could not compact; trying again the next time");
    }

    /// When the last run over the whole lake ended, according to home.
    ///
    /// # Errors
    /// Fails if home cannot be read.
    pub async fn last_run(&self) -> Result<Option<Micros>, LakeError> {
        let path = Path::from(LAST_RUN);
        let failed = |error| LakeError::store("read", self.store.show(&path), error);
        let bytes = match self.store.objects().get(&path).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // A record that cannot be read counts as none: then a run is due.
        Ok(serde_json::from_slice(&bytes).ok().map(|run: LastRun| Micros(run.at)))
    }

    /// Any daemon may overwrite another's record: it only decides when the next run begins.
    async fn note_run(&self) -> Result<(), LakeError> {
        let path = Path::from(LAST_RUN);
        let run = serde_json::to_vec_pretty(&LastRun { at: Micros::now().0 });
        let run = run.map_err(|error| LakeError::altered(&path, error.to_string()))?;
        let put = self.store.objects().put(&path, run.into()).await;
        put.map(|_| ()).map_err(|error| LakeError::store("write", self.store.show(&path), error))
    }

    /// Compacts one table.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if the store has no such table, and fails if it cannot be read or written.
    pub async fn table(&self, table: &str) -> Result<Compacted, LakeError> {
        let mut log = TableLog::open(&self.store, &self.source, table, Default::default()).await?;
        if log.state.is_none() {
            return Err(LakeError::NoTable { table: table.to_string() });
        }
        let context = self.context(&log);
        let (files, listed) = adopt::listed_in_log(&log, DATA).await?;
        let (tenant, left) = (self.tenant.clone(), files.len() as u64);
        let mut done = Compacted { tenant, table: table.to_string(), left, ..Compacted::default() };
        let groups = self.groups(&log, self.baseline(&log).await?, files);
        for mut group in self.without_long_values(&context, groups).await? {
            while group.len() > 1 || group.first().is_some_and(|file| file.name.mark.is_none()) {
                let Some(merged) = merge(&context, &group, self.window, Some(rand::random())).await? else { break };
                group.drain(..merged.replaces.len());
                if !self.replace(&mut log, &merged, listed).await? {
                    break;
                }
                done.files += merged.replaces.len() as u64;
                done.bytes += merged.replaces.iter().map(|file| file.size).sum::<u64>();
                done.into += 1;
                done.into_bytes += merged.add.size as u64;
                done.left = done.left + 1 - merged.replaces.len() as u64;
            }
        }
        Ok(done)
    }

    fn context(&self, log: &TableLog) -> FileContext {
        FileContext {
            store: self.store.clone(),
            table: log.table.clone(),
            folder: log.folder.clone(),
            owner: log.txn().owner,
            settings: self.files.clone(),
            data: Limits { bytes: 0, rows: 0 },
            listed: false,
        }
    }

    /// How far the table's baseline is. A tenant's table does not learn of chunks that have none of its rows.
    async fn baseline(&self, log: &TableLog) -> Result<ChunkProgress, LakeError> {
        let own = log.txn().baseline;
        if self.tenant.is_none() || own.baseline == 0 || own.done {
            return Ok(own);
        }
        let home = TableLog::open(self.stores.home(), &self.source, &log.table, Default::default()).await?;
        Ok(home.txn().baseline)
    }

    /// Groups of files that become one file each: consecutive files of one partition, as many as fill a file.
    fn groups(&self, log: &TableLog, baseline: ChunkProgress, files: Vec<LogFile>) -> Vec<Vec<LogFile>> {
        // Chunks of an unfinished baseline are found by their files, so these stay.
        let under_way = |file: &LogFile| {
            !baseline.done && file.name.chunks.is_some_and(|chunks| chunks.baseline == baseline.baseline)
        };
        let mut partitions: BTreeMap<Partition, Vec<LogFile>> = BTreeMap::new();
        for file in files.into_iter().filter(|file| !under_way(file)) {
            partitions.entry(file.partition).or_default().push(file);
        }
        let by = log.partitioning();
        let now = Micros::now();
        let (first, today) = (Partition::of(by, Micros(now.0.saturating_sub(self.within))), Partition::of(by, now));
        let mut groups = Vec::new();
        for (partition, mut files) in partitions.into_iter().filter(|(partition, _)| *partition >= first) {
            if partition >= today && files.len() < OPEN_FILES_MIN {
                continue;
            }
            files.sort_by_key(|file| (file.name.first, file.name.last));
            let mut group = Vec::new();
            let mut bytes = 0;
            for file in files {
                // A full file is not rewritten because of a small file next to it.
                let full = file.name.mark.is_some() && file.size >= self.target / 2;
                if full || bytes >= self.target {
                    groups.push(std::mem::take(&mut group));
                    bytes = 0;
                }
                if !full {
                    bytes += file.size;
                    group.push(file);
                }
            }
            groups.push(group);
        }
        groups
    }

    /// Divides the groups at files that stay unchanged because they have long values.
    async fn without_long_values(
        &self,
        context: &FileContext,
        groups: Vec<Vec<LogFile>>,
    ) -> Result<Vec<Vec<LogFile>>, LakeError> {
        let mut divided = Vec::new();
        for group in groups {
            let mut part = Vec::new();
            for file in group {
                // A file that an earlier run made has no long values.
                if file.name.mark.is_none() && has_long_values(context, &file).await? {
                    divided.push(std::mem::take(&mut part));
                } else {
                    part.push(file);
                }
            }
            divided.push(part);
        }
        Ok(divided)
    }

    /// Writes the note on what will be replaced, then commits. Returns false if another run was faster. The files were
    /// listed at version `listed` of the log.
    async fn replace(&self, log: &mut TableLog, merged: &Merged, listed: u64) -> Result<bool, LakeError> {
        let note = Note {
            table: log.folder.to_string(),
            at: Micros::now().0,
            made: merged.add.path.clone(),
            replaced: merged.replaces.iter().map(LogFile::path).collect(),
        };
        let path = Path::from(format!("{NOTES}/{}.json", uuid::Uuid::new_v4()));
        let bytes = serde_json::to_vec_pretty(&note).map_err(|error| LakeError::altered(&path, error.to_string()))?;
        let put = self.store.objects().put_opts(&path, bytes.into(), PutMode::Create.into()).await;
        match put {
            // The name is random, so an existing note is from an earlier attempt.
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(LakeError::store("write", self.store.show(&path), error)),
        }
        fault!("lake::before_compact");
        let replaced = log.replace(merged, listed).await?;
        fault!("lake::after_compact");
        if replaced == Replaced::Changed {
            let made = Path::from(format!("{}/{}", log.folder, merged.add.path));
            adopt::delete(log, [made, path].into_iter()).await?;
        }
        Ok(replaced == Replaced::Done)
    }

    /// Removes files that were replaced long enough ago. Returns their number.
    ///
    /// # Errors
    /// Fails if a note cannot be read or names files outside of a table's data, or if a file cannot be removed.
    pub async fn sweep(&self) -> Result<u64, LakeError> {
        let mut removed = 0;
        for (path, note) in self.notes().await? {
            if note.at.saturating_add(self.grace) <= Micros::now().0 {
                removed += self.sweep_noted(&path, &note).await?;
            }
        }
        Ok(removed)
    }

    /// All notes, oldest first.
    async fn notes(&self) -> Result<Vec<(Path, Note)>, LakeError> {
        let folder = Path::from(NOTES);
        let listed: Vec<ObjectMeta> = self
            .store
            .objects()
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| LakeError::store("list", self.store.show(&folder), error))?;
        let mut notes = Vec::new();
        for path in listed.into_iter().map(|meta| meta.location) {
            notes.extend(self.note(&path).await?.map(|note| (path, note)));
        }
        notes.sort_by_key(|(_, note)| note.at);
        Ok(notes)
    }

    async fn note(&self, path: &Path) -> Result<Option<Note>, LakeError> {
        let failed = |error| LakeError::store("read", self.store.show(path), error);
        let bytes = match self.store.objects().get(path).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            // Another run has already processed it.
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let note: Note = serde_json::from_slice(&bytes)
            .map_err(|error| LakeError::altered(self.store.show(path), error.to_string()))?;
        // A table's folder contains a dot. A note that names anything else is not trusted.
        let sound = note.table.contains('.') && note.table != OWN_FOLDER && !note.table.contains('/');
        let inside = |path: &String| path.starts_with("data/") && !path.contains("..");
        if !(sound && inside(&note.made) && note.replaced.iter().all(inside)) {
            return Err(LakeError::altered(self.store.show(path), "it names files outside a table's data"));
        }
        Ok(Some(note))
    }

    async fn sweep_noted(&self, path: &Path, note: &Note) -> Result<u64, LakeError> {
        let Some(mut log) = TableLog::open_folder(&self.store, &self.source, &note.table).await? else { return Ok(0) };
        let named: HashSet<String> = adopt::files_in_log(&log, DATA).await?.iter().map(LogFile::path).collect();
        let unnamed = || note.replaced.iter().filter(|path| !named.contains(*path));
        let gone: Vec<&String> = if named.contains(&note.made) {
            unnamed().collect()
        } else {
            let others = self.replaced_by_others(path, &note.table).await?;
            if others.contains(&note.made) {
                unnamed().collect()
            } else if note.at.saturating_add(LEFT_AFTER) <= Micros::now().0 && log.give_up(&note.made).await? {
                // Files that another run has replaced in the meantime are removed because of its own note.
                std::iter::once(&note.made).chain(unnamed().filter(|path| !others.contains(*path))).collect()
            } else {
                return Ok(0);
            }
        };
        let objects: Vec<Path> = gone.iter().map(|path| Path::from(format!("{}/{path}", note.table))).collect();
        let count = objects.len() as u64;
        adopt::delete(&log, objects.into_iter().chain([path.clone()])).await?;
        Ok(count)
    }

    /// Files that other runs have replaced in the table, or are about to. This is read after the log: a note is written
    /// before its commit, so a file that was in the log and no longer is remains in a note until it is removed.
    async fn replaced_by_others(&self, own: &Path, table: &str) -> Result<HashSet<String>, LakeError> {
        let notes = self.notes().await?;
        let others = notes.into_iter().filter(|(path, note)| path != own && note.table == table);
        Ok(others.flat_map(|(_, note)| note.replaced).collect())
    }
}
