//! `cdc-audit teardown` on the source: the slot, the publication, schema `cdc_audit`.
//!
//! It drops what `setup` made and nothing else: objects of others in the schema stay, and then the schema too; tables
//! keep their replica identity. A slot in use is not dropped.

use tokio_postgres::Client;

use crate::config::SourceConfig;
use crate::query::QueryError;
use crate::setup::objects::FUNCTIONS;
use crate::setup::{Found, session_context};
use crate::slot::PLUGIN;
use crate::step::{On, Plan, Statement, Step};

/// Plans what has to be dropped, as seen through `admin`, a session of the role that will do it.
///
/// # Errors
/// Returns a [`QueryError`] if the source cannot be read.
pub async fn plan(admin: &Client, source: &SourceConfig, daemon_role: &str) -> Result<Plan, QueryError> {
    let found = Found::read(admin, source, daemon_role, None).await?;
    let mut plan = Plan::default();
    slot(&mut plan, &found, source);
    publication(&mut plan, &found, source);
    session_context::drop_all(&mut plan, &found);
    objects(&mut plan, &found);
    let full = found.tables.iter().filter(|table| table.is_full()).count();
    if full > 0 {
        let message = format!("{full} tables have REPLICA IDENTITY FULL and keep it: who set it is not known");
        let hint = "ALTER TABLE … REPLICA IDENTITY DEFAULT, where nothing else needs it";
        plan.note(message, Some(hint.to_owned()));
    }
    Ok(plan)
}

fn slot(plan: &mut Plan, found: &Found, source: &SourceConfig) {
    let Some(slot) = &found.slot else { return plan.exists(format!("no replication slot {}", source.slot)) };
    let ours = slot.plugin.as_deref() == Some(PLUGIN) && slot.database.as_ref() == Some(&found.server.database);
    if !ours {
        return plan.note(format!("replication slot {} is not of this source and stays", slot.name), None);
    }
    if let Some(holder) = &slot.holder {
        let message = format!("replication slot {} is in use by {holder}", slot.name);
        return plan.refuse(message, "stop the daemon first");
    }
    let on = if found.admin.replication { On::Admin } else { On::Daemon };
    let why = "WAL is no longer kept; what was not captured yet is lost to the trail".to_owned();
    let sql = format!("SELECT pg_drop_replication_slot('{}')", slot.name);
    plan.steps.push(Step::Run(Statement { on, why, sql }));
}

fn publication(plan: &mut Plan, found: &Found, source: &SourceConfig) {
    match &found.publication {
        None => plan.exists(format!("no publication {}", source.publication)),
        Some(publication) => {
            let sql = format!("DROP PUBLICATION {}", found.quoted_publication);
            plan.run_if(publication.owned, &publication.owner, "no table is published any more", sql);
        }
    }
}

fn objects(plan: &mut Plan, found: &Found) {
    let objects = &found.objects;
    if !objects.schema {
        return plan.exists("no schema cdc_audit");
    }
    let who = "the owner of schema cdc_audit";
    for function in FUNCTIONS.iter().filter(|function| objects.functions.contains_key(function.name)) {
        let why = if function.public { "applications that still call it will fail" } else { "the daemon's own" };
        plan.run_if(objects.owned, who, why, format!("DROP FUNCTION cdc_audit.{}", function.signature));
    }
    for table in objects.tables.keys() {
        plan.run_if(objects.owned, who, "the daemon's own", format!("DROP TABLE cdc_audit.{table}"));
    }
    match objects.others {
        0 => plan.run_if(objects.owned, who, "it is empty then", "DROP SCHEMA cdc_audit"),
        others => plan.note(format!("schema cdc_audit stays: it holds {others} other objects"), None),
    }
}
