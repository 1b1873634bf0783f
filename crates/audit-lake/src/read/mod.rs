//! Reading the lake back: [`LakeReader`].
//!
//! The Delta log names the files of a table and gives bounds of their contents; files, row groups and pages that cannot
//! hold what is asked for are not read. Rows are returned as [`Record`]s, the type that every store's reader returns.
//! An export is a stream that holds one row group of each file that it is reading, whatever the size of the export.

mod describe;
mod export;
mod files;
mod groups;
mod history;
mod record;
mod search;
mod snapshots;
mod totals;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_core::cost::Cost;
use audit_core::position::{Micros, Window};
use audit_core::search::{Commit, Matches, Newest, Wanted};
use audit_core::shape::Shape;
use audit_core::sink::Checkpoint;
use audit_core::stored::Record;
use audit_core::totals::{Bounds, Totals};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::checkpoint;
use crate::commit::TableLog;
use crate::config::LakeConfig;
use crate::error::LakeError;
use crate::layout::{OWN_FOLDER, table_name};
use crate::meter::Meter;
use crate::partition::Partitioning;
use crate::store::Store;
use crate::tenants::Stores;
use export::Asked;
use files::Logs;

pub use describe::{FieldDescription, TableDescription};
pub use history::RowTrail;

/// Number of tables whose logs are read at a time.
const CONCURRENT: usize = 16;

/// By table: the snapshots that all questions are put to.
type Pins = Arc<Mutex<HashMap<String, Arc<Logs>>>>;

/// A lake that is read: everything or what one tenant has.
#[derive(Clone, Debug)]
pub struct LakeReader {
    stores: Stores,
    whose: Whose,
    /// Only versions in it are read.
    window: Window,
    /// `None` if each question takes its own snapshots.
    pins: Option<Pins>,
    meter: Meter,
}

#[derive(Clone, Debug)]
enum Whose {
    Everybodys,
    Homes,
    Tenants(Arc<str>),
}

impl LakeReader {
    /// Opens a lake, which must exist.
    ///
    /// # Errors
    /// Fails if the configured place is invalid or cannot be opened.
    pub fn open(config: &LakeConfig) -> Result<LakeReader, LakeError> {
        Ok(LakeReader::of(&Stores::open(config, false)?))
    }

    pub fn over(store: Store) -> LakeReader {
        LakeReader::of(&Stores::alone(store))
    }

    /// Reads everything.
    pub(crate) fn of(stores: &Stores) -> LakeReader {
        LakeReader {
            stores: stores.clone(),
            whose: Whose::Everybodys,
            window: Window::ALL,
            pins: None,
            meter: Meter::default(),
        }
    }

    fn of_whom(&self, whose: Whose) -> LakeReader {
        let pins = self.pins.as_ref().map(|_| Arc::default());
        LakeReader { whose, pins, ..self.clone() }
    }

    /// Puts all questions about a table to the same snapshot of its log, which the first of them takes.
    pub fn pinned(&self) -> LakeReader {
        LakeReader { pins: Some(Arc::default()), ..self.clone() }
    }

    /// Reads only versions in a range of positions. Names and shapes of tables do not depend on it.
    pub fn within(&self, window: Window) -> LakeReader {
        LakeReader { window: self.window.within(window), ..self.clone() }
    }

    /// What this reader and those made from it have read so far.
    pub fn cost(&self) -> Cost {
        self.meter.cost()
    }

    /// Reads only what belongs to no tenant.
    pub fn of_home(&self) -> LakeReader {
        self.of_whom(Whose::Homes)
    }

    /// Reads only what one tenant has.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTenant`] if the lake does not know the tenant.
    pub async fn of_tenant(&self, tenant: &str) -> Result<LakeReader, LakeError> {
        let known = self.stores.known().await?.into_iter().find(|known| **known == *tenant);
        let tenant = known.ok_or_else(|| LakeError::NoTenant { tenant: tenant.to_string() })?;
        Ok(self.of_whom(Whose::Tenants(tenant)))
    }

    /// One reader for home and one for each tenant; a lake without tenants has one for home.
    ///
    /// # Errors
    /// Fails if home cannot be read, or if a tenant was noted at another place than `url` says now.
    pub async fn each(&self) -> Result<Vec<LakeReader>, LakeError> {
        let whose = match &self.whose {
            Whose::Everybodys => {
                let tenants = self.stores.known().await?.into_iter().map(Whose::Tenants);
                [Whose::Homes].into_iter().chain(tenants).collect()
            }
            one => vec![one.clone()],
        };
        Ok(whose.into_iter().map(|whose| self.of_whom(whose)).collect())
    }

    /// The tenant whose versions this reader reads; `None` if it does not read a single tenant's.
    pub fn tenant(&self) -> Option<&Arc<str>> {
        match &self.whose {
            Whose::Tenants(tenant) => Some(tenant),
            Whose::Everybodys | Whose::Homes => None,
        }
    }

    async fn stores(&self) -> Result<Vec<Store>, LakeError> {
        let of = |tenant: &Arc<str>| self.stores.of(Some(tenant)).map_err(|error| error.of_tenant(tenant));
        match &self.whose {
            Whose::Homes => Ok(vec![self.stores.home().clone()]),
            Whose::Tenants(tenant) => Ok(vec![of(tenant)?]),
            Whose::Everybodys => {
                let tenants = self.stores.known().await?;
                std::iter::once(Ok(self.stores.home().clone())).chain(tenants.iter().map(of)).collect()
            }
        }
    }

    /// Names of the tables that have versions here, in order; none if the lake belongs to another source.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn tables(&self, source: &str) -> Result<Vec<String>, LakeError> {
        if checkpoint::source(self.stores.home()).await?.as_deref() != Some(source) {
            return Ok(Vec::new());
        }
        let source: Arc<str> = source.into();
        let names = |store: Store| {
            let source = source.clone();
            async move { table_names(&store, &source).await }
        };
        let names = futures::stream::iter(self.stores().await?).map(names).buffer_unordered(CONCURRENT);
        let names: Vec<Vec<String>> = names.try_collect().await?;
        let all: BTreeSet<String> = names.into_iter().flatten().collect();
        Ok(all.into_iter().collect())
    }

    /// The lake's checkpoint, and when it was written; `None` before the first write, or if the lake belongs to another
    /// source.
    ///
    /// # Errors
    /// Fails if home cannot be read.
    pub async fn checkpoint(&self, source: &str) -> Result<Option<(Checkpoint, Option<Micros>)>, LakeError> {
        Ok(checkpoint::stored(self.stores.home()).await?.filter(|(stored, _)| stored.source == source))
    }

    /// The latest commit time among the versions of these tables up to the lake's checkpoint, according to their logs.
    /// ⚠ Each table is committed separately, so one that is past the checkpoint does not show how far the others are.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn newest(&self, source: &str, tables: &[String]) -> Result<Option<Micros>, LakeError> {
        let Some((Checkpoint { position: up_to, .. }, _)) = self.checkpoint(source).await? else { return Ok(None) };
        let newest = |table: &String| {
            let table = table.clone();
            async move {
                match self.logs(source, &table).await {
                    Ok(logs) => logs.newest(up_to).await,
                    Err(LakeError::NoTable { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        };
        let found = futures::stream::iter(tables).map(newest).buffer_unordered(CONCURRENT);
        let found: Vec<Option<Micros>> = found.try_collect().await?;
        Ok(found.into_iter().flatten().max())
    }

    /// The trail of one row, newest first, at most `limit` versions: what happened under this key, what happened to the
    /// same row under its earlier and later keys, and the truncations that removed it.
    ///
    /// A key that was used again after a deletion belongs to more than one row: the versions of all of them are
    /// returned.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn history(&self, source: &str, table: &str, key: &str, limit: u32) -> Result<Vec<Record>, LakeError> {
        let mut trail = self.trail(source, table).await?;
        audit_core::trail::history(&mut trail, key, limit as usize).await
    }

    /// The versions of a table, for following the trail of a row.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn trail(&self, source: &str, table: &str) -> Result<RowTrail, LakeError> {
        Ok(RowTrail::new(self.logs(source, table).await?, self.window))
    }

    /// The newest versions of the wanted tables that match, newest first, at most `limit`. A table that the lake does not
    /// have has none.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn search(&self, wanted: &Wanted, matches: Matches<'_>, limit: usize) -> Result<Vec<Record>, LakeError> {
        let wanted = &Wanted { window: wanted.window.within(self.window), ..wanted.clone() };
        let mut newest = Newest::new(limit);
        for table in &wanted.tables {
            let logs = match self.logs(&wanted.source, table).await {
                Err(LakeError::NoTable { .. }) => continue,
                logs => logs?,
            };
            search::search(&logs, wanted, matches, limit).await?.into_iter().for_each(|record| newest.add(record));
        }
        Ok(newest.into_records())
    }

    /// The number of versions that transactions have in these tables; their commit times find them.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn commit_sizes(
        &self,
        source: &str,
        tables: &[String],
        commits: &[(Commit, Micros)],
    ) -> Result<HashMap<(Commit, String), u64>, LakeError> {
        let mut sizes = HashMap::new();
        for table in tables {
            match self.logs(source, table).await {
                Err(LakeError::NoTable { .. }) => continue,
                logs => {
                    let found = search::commit_sizes(&*logs?, self.window, commits).await?;
                    sizes.extend(found.into_iter().map(|(commit, size)| ((commit, table.clone()), size)));
                }
            }
        }
        Ok(sizes)
    }

    /// The table's `error` records that name no row, in the order of their positions.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn errors(&self, source: &str, table: &str) -> Result<Vec<Record>, LakeError> {
        self.trail(source, table).await?.errors().await
    }

    /// Streams a table's versions that were committed at or after `since` and before `until`, in the order of their
    /// positions. With several tenants many files are open at a time; reading one tenant after the other
    /// ([`LakeReader::each`]) takes less memory.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read. Later errors are
    /// items of the stream.
    pub async fn export(
        &self,
        source: &str,
        table: &str,
        since: Option<Micros>,
        until: Option<Micros>,
    ) -> Result<impl Stream<Item = Result<Record, LakeError>> + Send + use<>, LakeError> {
        let logs = self.logs(source, table).await?;
        export::export(Asked { logs, window: self.window, since, until }).await
    }

    /// Streams baseline and key of a table's snapshot rows that have both and were committed at or after `since` and
    /// before `until`, in no order; some may come twice.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read. Later errors are
    /// items of the stream.
    pub async fn snapshots(
        &self,
        source: &str,
        table: &str,
        since: Option<Micros>,
        until: Option<Micros>,
    ) -> Result<impl Stream<Item = Result<(u32, String), LakeError>> + Send + use<>, LakeError> {
        let asked = Asked { logs: self.logs(source, table).await?, window: self.window, since, until };
        snapshots::snapshots(asked).await
    }

    /// Upper bound of the number of versions that [`LakeReader::export`] returns; exact without `since` and `until`.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn count(
        &self,
        source: &str,
        table: &str,
        since: Option<Micros>,
        until: Option<Micros>,
    ) -> Result<u64, LakeError> {
        let logs = self.logs(source, table).await?;
        let files = logs.select(self.window, |stats| stats.may_be_committed(since, until)).await?;
        Ok(files.iter().map(|file| file.rows).sum())
    }

    /// Counts the versions of these tables that lie within the bounds. Only the columns that are counted are read.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn totals(&self, source: &str, tables: &[String], bounds: &Bounds) -> Result<Totals, LakeError> {
        let mut all = Totals::default();
        for table in tables {
            match self.logs(source, table).await {
                Ok(logs) => all.add(totals::totals(logs, table, bounds).await?),
                Err(LakeError::NoTable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// The shapes of a table, oldest first.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn shapes(&self, source: &str, table: &str) -> Result<Vec<Shape>, LakeError> {
        let mut shapes: Vec<Shape> = Vec::new();
        let logs = self.logs(source, table).await?;
        for shape in logs.logs().filter_map(|log| log.state.as_ref()).flat_map(|state| &state.shapes) {
            if !shapes.iter().any(|known| known.schema_version == shape.schema_version) {
                shapes.push(shape.clone());
            }
        }
        shapes.sort_by_key(|shape| shape.schema_version);
        Ok(shapes)
    }

    /// Describes a table's columns, partitions and shapes according to its log, in one tenant's store or in home.
    ///
    /// # Errors
    /// Returns [`LakeError::NoTable`] if no store has the table, and fails if a store cannot be read.
    pub async fn describe(&self, source: &str, table: &str) -> Result<TableDescription, LakeError> {
        let logs = self.logs(source, table).await?;
        let log = logs.logs().next().ok_or_else(|| LakeError::NoTable { table: table.to_string() })?;
        describe::describe(log).await
    }

    /// Where the described tables are, in the form of a lake's key `url`.
    ///
    /// # Errors
    /// Fails if the key `url` gives no place for the tenant.
    pub fn url(&self) -> Result<String, LakeError> {
        match &self.whose {
            Whose::Tenants(tenant) => self.stores.url_of(tenant),
            Whose::Everybodys | Whose::Homes => Ok(self.stores.home().shown().to_string()),
        }
    }

    /// The table's log in every store that has the table: as it was pinned, or as it is now.
    async fn logs(&self, source: &str, table: &str) -> Result<Arc<Logs>, LakeError> {
        let Some(pins) = &self.pins else { return self.logs_now(source, table).await };
        let known = lock(pins).get(table).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let logs = self.logs_now(source, table).await?;
        // A question that was asked at the same time may have pinned the table first.
        Ok(lock(pins).entry(table.to_string()).or_insert(logs).clone())
    }

    async fn logs_now(&self, source: &str, table: &str) -> Result<Arc<Logs>, LakeError> {
        let source: Arc<str> = source.into();
        let open = |store: Store| {
            let source = source.clone();
            async move { TableLog::open(&store, &source, table, Partitioning::default()).await }
        };
        let opened = futures::stream::iter(self.stores().await?).map(open).buffered(CONCURRENT);
        let mut logs: Vec<TableLog> = opened.try_collect().await?;
        logs.retain(|log| log.state.is_some());
        match logs.is_empty() {
            true => Err(LakeError::NoTable { table: table.to_string() }),
            false => Ok(Arc::new(Logs::of(logs.into_iter().map(Arc::new), self.meter.clone()).await?)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tables in one store.
async fn table_names(store: &Store, source: &Arc<str>) -> Result<Vec<String>, LakeError> {
    let listed = store.objects().list_with_delimiter(None).await;
    let listed = listed.map_err(|error| LakeError::store("list", store.shown(), error))?;
    let folders = listed.common_prefixes.iter().filter_map(Path::filename).filter(|folder| *folder != OWN_FOLDER);
    let (mut tables, mut cut) = (Vec::new(), Vec::new());
    for folder in folders {
        match table_name(folder) {
            Some(name) => tables.push(name),
            None => cut.push(folder.to_string()),
        }
    }
    // Names that are too long for a folder's name are only in the table's metadata.
    let open = |folder: String| async move { TableLog::open_folder(store, source, &folder).await };
    let logs: Vec<Option<TableLog>> =
        futures::stream::iter(cut).map(open).buffer_unordered(CONCURRENT).try_collect().await?;
    tables.extend(logs.into_iter().flatten().map(|log| log.table.to_string()));
    Ok(tables)
}
