//! Opens tables for a session.

use std::sync::Arc;

use audit_core::position::Position;
use audit_core::sink::ChunkProgress;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::Settings;
use super::start::AtHome;
use crate::commit::TableLog;
use crate::error::LakeError;
use crate::file::FileContext;
use crate::layout::{DATA, FRESH, FileName, OWN_FOLDER};
use crate::store::Store;
use crate::table::{OpenTable, TableId};
use crate::tenants::Stores;

/// Opens tables for a session.
#[derive(Clone, Debug)]
pub struct Maker {
    pub stores: Stores,
    pub source: Arc<str>,
    pub owner: u64,
    pub settings: Settings,
}

impl Maker {
    /// The folders of the tables in home's or a tenant's store. A tenant whose bucket is gone has none, because its
    /// contents were removed with it. Rows that come for this tenant later meet the missing bucket.
    pub async fn table_folders(&self, tenant: Option<&str>) -> Result<Vec<String>, LakeError> {
        let named = |error: LakeError| match tenant {
            Some(tenant) => error.of_tenant(tenant),
            None => error,
        };
        let store = self.stores.of(tenant).map_err(named)?;
        if tenant.is_some() && store.stages() {
            store.sweep().await.map_err(named)?;
        }
        let listed = store.objects().list_with_delimiter(None).await;
        let listed = match listed.map_err(|error| LakeError::store("list", store.show(&Path::default()), error)) {
            Err(error) if tenant.is_some() && error.is_missing() => {
                tracing::warn!(tenant, place = store.shown(), "the store of a tenant is gone");
                return Ok(Vec::new());
            }
            listed => listed.map_err(named)?,
        };
        let name = |path: Path| path.filename().map(str::to_string);
        Ok(listed.common_prefixes.into_iter().filter_map(name).filter(|name| name != OWN_FOLDER).collect())
    }

    /// Opens a table. `baseline` is how far the table's baseline is, according to home; `has_fresh` says that it may
    /// have fresh files.
    pub async fn open(
        &self,
        id: TableId,
        baseline: Option<ChunkProgress>,
        has_fresh: bool,
    ) -> Result<OpenTable, LakeError> {
        let opened = async {
            let store = self.stores.of(id.tenant.as_deref())?;
            let log = TableLog::open(&store, &self.source, &id.name, self.settings.partitioning).await?;
            let theirs = log.txn().owner;
            if theirs > self.owner {
                return Err(LakeError::Fenced { what: format!("table {}", id.name), theirs, ours: self.owner });
            }
            let mut table = self.table(log, id.tenant.clone(), baseline).await?;
            if has_fresh {
                table.load_fresh().await?;
            }
            Ok(table)
        };
        match (opened.await, &id.tenant) {
            (Err(error), Some(tenant)) => Err(error.of_tenant(tenant)),
            (opened, _) => opened,
        }
    }

    /// ⚠ From here on the log's contents are relied on, so the log is synced: the daemon that wrote it may have been
    /// killed before it did that.
    async fn table(
        &self,
        log: TableLog,
        tenant: Option<Arc<str>>,
        baseline: Option<ChunkProgress>,
    ) -> Result<OpenTable, LakeError> {
        log.sync().await?;
        let context = FileContext {
            store: log.store().clone(),
            table: log.table.clone(),
            folder: log.folder.clone(),
            owner: self.owner,
            settings: self.settings.files.clone(),
            data: self.settings.data,
            listed: self.settings.listed,
        };
        let mut table = OpenTable::new(log, context, self.settings.limits, self.settings.keep_before);
        table.tenant = tenant;
        if let Some(baseline) = baseline {
            table.baseline = baseline;
        }
        Ok(table)
    }

    /// Opens home's table in `folder`, and recovers what was left behind of its baseline and its rolls. The lake has
    /// everything up to `stored`.
    pub async fn look_at_home(
        &self,
        folder: String,
        stored: Position,
        has_tenants: bool,
    ) -> Result<Option<OpenTable>, LakeError> {
        let store = self.stores.home();
        let Some(log) = TableLog::open_folder(store, &self.source, &folder).await? else {
            return no_log(store, &folder, stored).await.map(|()| None);
        };
        let txn = log.txn();
        let under_way = txn.baseline.baseline > 0 && !txn.baseline.done;
        let mut table = self.table(log, None, None).await?;
        if has_tenants && (under_way || txn.spread_by > 0) {
            // ⚠ Tenants' files of chunks that do not count are removed, so the daemon that put them must not be able to
            // make them count any more.
            table.own().await?;
        }
        if under_way {
            table.adopt_chunks().await?;
        }
        table.load_fresh().await?;
        Ok(Some(table))
    }

    /// Opens a tenant's table in the same way; `home` is what home knows of it.
    pub async fn look_at_tenants(
        &self,
        tenant: Arc<str>,
        folder: String,
        stored: Position,
        home: Option<&AtHome>,
    ) -> Result<Option<OpenTable>, LakeError> {
        let looked = self.look_at_tenants_table(&tenant, &folder, stored, home).await;
        looked.map_err(|error| error.of_tenant(&tenant))
    }

    async fn look_at_tenants_table(
        &self,
        tenant: &Arc<str>,
        folder: &str,
        stored: Position,
        home: Option<&AtHome>,
    ) -> Result<Option<OpenTable>, LakeError> {
        let store = self.stores.of(Some(tenant))?;
        let unsettled = home.filter(|home| home.is_unsettled());
        let baseline = home.map(|home| home.txn.baseline);
        let log = match (TableLog::open_folder(&store, &self.source, folder).await?, unsettled) {
            (Some(log), _) => log,
            (None, unsettled) => {
                no_log(&store, folder, stored).await?;
                // It may still have its first file, with chunks that home has.
                let Some(home) = unsettled else { return Ok(None) };
                TableLog::open(&store, &self.source, &home.table, self.settings.partitioning).await?
            }
        };
        let mut table = self.table(log, Some(tenant.clone()), baseline).await?;
        if let Some(home) = unsettled {
            table.adopt_spread(home.txn, &home.shapes).await?;
        }
        if table.log.state.is_none() {
            return Ok(None);
        }
        table.load_fresh().await?;
        Ok(Some(table))
    }
}

/// Checks that a table without a log was never committed to: then it has no file that the checkpoint covers. Otherwise
/// its log was removed, and a new log would hide those files from its readers.
async fn no_log(store: &Store, folder: &str, stored: Position) -> Result<(), LakeError> {
    for root in [DATA, FRESH] {
        let root = Path::from(format!("{folder}/{root}"));
        let mut files = store.objects().list(Some(&root));
        let listed = |error| LakeError::store("list", store.show(&root), error);
        while let Some(file) = files.try_next().await.map_err(listed)? {
            if FileName::of_path(&file.location).is_some_and(|name| name.chunks.is_none() && name.last <= stored) {
                let log = store.show(&format!("{folder}/_delta_log").into());
                return Err(LakeError::altered(log, "it is gone, and the table has files that were in it"));
            }
        }
    }
    Ok(())
}
