//! Opens tables for a session.

use std::sync::Arc;

use audit_core::position::Position;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::Settings;
use crate::commit::TableLog;
use crate::error::LakeError;
use crate::file::FileContext;
use crate::layout::{DATA, FRESH, FileName, OWN_FOLDER};
use crate::store::Store;
use crate::table::OpenTable;

/// Opens tables for a session.
#[derive(Clone, Debug)]
pub struct Maker {
    pub store: Store,
    pub source: Arc<str>,
    pub owner: u64,
    pub settings: Settings,
}

impl Maker {
    pub async fn table_folders(&self) -> Result<Vec<String>, LakeError> {
        let root = Path::default();
        let listed = self.store.objects().list_with_delimiter(None).await;
        let listed = listed.map_err(|error| LakeError::store("list", self.store.show(&root), error))?;
        let name = |path: Path| path.filename().map(str::to_string);
        Ok(listed.common_prefixes.into_iter().filter_map(name).filter(|name| name != OWN_FOLDER).collect())
    }

    pub async fn open(&self, name: Arc<str>) -> Result<OpenTable, LakeError> {
        let log = TableLog::open(&self.store, &self.source, &name, self.settings.partitioning).await?;
        let theirs = log.txn().owner;
        if theirs > self.owner {
            return Err(LakeError::Fenced { what: format!("table {name}"), theirs, ours: self.owner });
        }
        Ok(self.table(log))
    }

    fn table(&self, log: TableLog) -> OpenTable {
        let context = FileContext {
            store: self.store.clone(),
            table: log.table.clone(),
            folder: log.folder.clone(),
            owner: self.owner,
            settings: self.settings.files.clone(),
            data: self.settings.data,
            listed: self.settings.listed,
        };
        OpenTable::new(log, context, self.settings.limits, self.settings.keep_before)
    }

    /// The table in `folder`, with what was left behind of its baseline and of its rolls taken up. The lake has everything up to `stored`.
    pub async fn look_at(&self, folder: String, stored: Position) -> Result<Option<OpenTable>, LakeError> {
        let Some(log) = TableLog::open_folder(&self.store, &self.source, &folder).await? else {
            return self.no_log(&folder, stored).await.map(|()| None);
        };
        let baseline = log.txn().baseline;
        let mut table = self.table(log);
        if baseline.baseline > 0 && !baseline.done {
            table.adopt_chunks().await?;
        }
        table.load_fresh().await?;
        Ok(Some(table))
    }

    /// A table that was never committed to has no file that the checkpoint counts in. Else its log was removed, and to begin another would
    /// hide those files from whoever reads it.
    async fn no_log(&self, folder: &str, stored: Position) -> Result<(), LakeError> {
        for root in [DATA, FRESH] {
            let root = Path::from(format!("{folder}/{root}"));
            let mut files = self.store.objects().list(Some(&root));
            let listed = |error| LakeError::store("list", self.store.show(&root), error);
            while let Some(file) = files.try_next().await.map_err(listed)? {
                if FileName::of_path(&file.location).is_some_and(|name| name.chunks.is_none() && name.last <= stored) {
                    let log = self.store.show(&format!("{folder}/_delta_log").into());
                    return Err(LakeError::altered(log, "it is gone, and the table has files that were in it"));
                }
            }
        }
        Ok(())
    }
}
