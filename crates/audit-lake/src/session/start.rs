//! The beginning of a session: the lake is taken over and read, and what was left behind is recovered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use audit_core::batch::Progress;
use audit_core::shape::Shape;
use audit_core::sink::{Identity, Stored};
use futures::{StreamExt, TryStreamExt};

use super::roll::Compacting;
use super::{CONCURRENT, Session, Settings};
use crate::checkpoint::Checkpoints;
use crate::commit::Txn;
use crate::error::{LakeError, fault};
use crate::layout::CHECKPOINTS;
use crate::table::{OpenTable, TableId};
use crate::tenants::Stores;

/// What tenants' tables need to know of home's table.
#[derive(Clone, Debug)]
pub struct AtHome {
    pub table: Arc<str>,
    pub txn: Txn,
    pub shapes: Vec<Shape>,
}

impl AtHome {
    /// Whether tenants' tables may have files of chunks that their logs do not name.
    pub fn is_unsettled(&self) -> bool {
        self.txn.spread_by > 0 || (self.txn.baseline.baseline > 0 && !self.txn.baseline.done)
    }
}

impl Session {
    /// Takes the lake over, and returns what it has stored.
    pub async fn take(
        stores: Stores,
        settings: Settings,
        compacting: Option<Compacting>,
        identity: &Identity,
    ) -> Result<(Session, Stored), LakeError> {
        let store = stores.home();
        let checkpoints = Checkpoints::take(store, identity).await?;
        fault!("lake::after_take");
        store.sweep().await?;
        let source: Arc<str> = identity.source.as_str().into();
        let mut session = Session {
            settings,
            stores,
            source,
            start: Progress::default(),
            seen: Progress::default(),
            last: Default::default(),
            stored_at: Instant::now(),
            tables: HashMap::new(),
            parked: HashMap::new(),
            chunks: BTreeMap::new(),
            baselines: HashMap::new(),
            tenants: Default::default(),
            clock: 0,
            held: 0,
            rolling: None,
            compacting,
            held_back: HashMap::new(),
            replaced: Default::default(),
            reopen_not_before: Instant::now(),
            checkpoints,
        };
        let stored = session.stored().await?;
        Ok((session, stored))
    }

    /// Reads the shapes and baselines of all tables, and adopts complete chunks that were left behind.
    async fn stored(&mut self) -> Result<Stored, LakeError> {
        let mut stored = Stored { checkpoint: self.checkpoints.stored().cloned(), ..Stored::default() };
        let tenants = self.stores.known().await?;
        let at_home = self.look_at_home(!tenants.is_empty(), &mut stored).await?;
        self.look_at_tenants(tenants, &at_home, &mut stored).await?;
        for home in at_home.values().filter(|home| home.txn.spread_by > 0) {
            let mut table = self.maker().open(TableId::at_home(&home.table), None, false).await?;
            table.commit_chunks(home.txn.baseline, 0).await?;
        }
        // A lake that has tables but no checkpoint has lost it: the tables may be ahead of where a stream would begin.
        if stored.checkpoint.is_none() && !stored.shapes.is_empty() {
            let path = self.stores.home().show(&CHECKPOINTS.into());
            return Err(LakeError::altered(path, "the lake has tables, and no checkpoint"));
        }
        Ok(stored)
    }

    /// Home's tables by folder, if tenants' tables need to know of them.
    async fn look_at_home(
        &mut self,
        has_tenants: bool,
        stored: &mut Stored,
    ) -> Result<HashMap<String, AtHome>, LakeError> {
        let (maker, position) = (self.maker(), self.durable().position);
        let folders = maker.table_folders(None).await?;
        let look = |folder| maker.look_at_home(folder, position, has_tenants);
        let mut opened = std::pin::pin!(futures::stream::iter(folders).map(look).buffer_unordered(CONCURRENT));
        let mut at_home = HashMap::new();
        while let Some(found) = opened.try_next().await? {
            let Some(table) = found else { continue };
            let (name, txn) = (table.log.table.clone(), table.log.txn());
            if txn.baseline.baseline > 0 {
                stored.baselines.insert(name.to_string(), txn.baseline);
                self.baselines.insert(name.clone(), txn.baseline);
            }
            let shapes = table.log.state.as_ref().map_or_else(Vec::new, |state| state.shapes.clone());
            if has_tenants {
                at_home.insert(table.log.folder.to_string(), AtHome { table: name, txn, shapes: shapes.clone() });
            }
            stored.shapes.extend(shapes);
            self.keep_fresh(table);
        }
        Ok(at_home)
    }

    async fn look_at_tenants(
        &mut self,
        tenants: Vec<Arc<str>>,
        at_home: &HashMap<String, AtHome>,
        stored: &mut Stored,
    ) -> Result<(), LakeError> {
        let (maker, position) = (self.maker(), self.durable().position);
        let folders = |tenant: Arc<str>| {
            let maker = &maker;
            async move { maker.table_folders(Some(&tenant)).await.map(|folders| (tenant, folders)) }
        };
        let tables = futures::stream::iter(tenants).map(folders).buffer_unordered(CONCURRENT);
        let tables: Vec<(Arc<str>, Vec<String>)> = tables.try_collect().await?;
        let tables = tables
            .into_iter()
            .flat_map(|(tenant, folders)| folders.into_iter().map(move |folder| (tenant.clone(), folder)));
        let look = |(tenant, folder): (Arc<str>, String)| {
            let home = at_home.get(&folder);
            maker.look_at_tenants(tenant, folder, position, home)
        };
        let mut opened = std::pin::pin!(futures::stream::iter(tables).map(look).buffer_unordered(CONCURRENT));
        while let Some(found) = opened.try_next().await? {
            let Some(table) = found else { continue };
            let known = |shape: &Shape| {
                stored.shapes.iter().any(|known| {
                    (&known.schema, &known.table, known.schema_version)
                        == (&shape.schema, &shape.table, shape.schema_version)
                })
            };
            let shapes = table.log.state.iter().flat_map(|state| &state.shapes);
            let new: Vec<Shape> = shapes.filter(|shape| !known(shape)).cloned().collect();
            stored.shapes.extend(new);
            self.keep_fresh(table);
        }
        Ok(())
    }

    /// Keeps a table in memory if it has fresh files to roll.
    fn keep_fresh(&mut self, table: OpenTable) {
        if !table.fresh.is_empty() {
            self.put_back(table);
            self.forget_idle();
        }
    }
}
