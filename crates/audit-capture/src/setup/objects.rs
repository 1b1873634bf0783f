//! Schema `cdc_audit`: the function that takes an application's context, and two tables of the daemon's own.

use crate::setup::Found;
use crate::step::Plan;

pub(super) const SET_CONTEXT: &str = include_str!("../sql/set_context.sql");

/// The tables with what the daemon's role has to do with them.
pub(crate) const TABLES: [(&str, &str, &[&str], &str); 2] = [
    (
        "chunks",
        "bounds of the chunks that baselines read; they are raw key values, and so they stay in the source",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
        include_str!("../sql/chunks.sql"),
    ),
    (
        "quarantine",
        "changes that someone decided to leave out",
        &["SELECT", "INSERT", "DELETE"],
        include_str!("../sql/quarantine.sql"),
    ),
];

/// Who may create something in the schema, for statements that the session's role may not run.
pub(super) const SCHEMA_OWNER: &str = "the owner of schema cdc_audit";

pub(super) fn create(plan: &mut Plan, found: &Found) {
    let objects = &found.objects;
    match objects.schema {
        true => plan.exists("schema cdc_audit"),
        false => plan.run_if(
            found.admin.may_create,
            "a role that may create schemas in this database",
            "the schema for what cdc-audit keeps in the source",
            "CREATE SCHEMA cdc_audit",
        ),
    }
    let may_create = if objects.schema { objects.may_create } else { found.admin.may_create };
    match &objects.set_context {
        Some(body) if is_current(body) => plan.exists("function cdc_audit.set_context(jsonb)"),
        _ => plan.run_if(
            may_create,
            SCHEMA_OWNER,
            "the function by which applications say who changes something, and why",
            SET_CONTEXT.trim_end(),
        ),
    }
    for (name, why, _, sql) in TABLES {
        match objects.tables.contains_key(name) {
            true => plan.exists(format!("table cdc_audit.{name}")),
            false => plan.run_if(may_create, SCHEMA_OWNER, why, sql.trim_end()),
        }
    }
}

/// Whether the function that is there is the one that this program would make.
fn is_current(body: &str) -> bool {
    SET_CONTEXT.split("$body$").nth(1).is_some_and(|ours| ours == body)
}
