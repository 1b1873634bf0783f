//! The daemon's role, with no more rights than it needs:
//!
//! | | for |
//! |---|---|
//! | LOGIN, CONNECT | its sessions |
//! | REPLICATION | the slot |
//! | SELECT on the tables, USAGE of their schemas | the baseline; changes come through the slot without it |
//! | BYPASSRLS, where a table has row-level security | a baseline that sees every row |
//! | USAGE of `cdc_audit`, its tables | progress of baselines, quarantine, the keys of contexts |
//! | EXECUTE on `pg_logical_emit_message` | heartbeats and watermarks; every role has it unless it was revoked |

use std::collections::BTreeMap;

use crate::facts::{Role, Table};
use crate::setup::objects::{FUNCTIONS, SCHEMA_OWNER, TABLES, is_granted};
use crate::setup::{Found, Wanted};
use crate::step::Plan;

/// Number of names in one GRANT.
const TABLES_PER_STATEMENT: usize = 500;

/// Creates the role itself. Its password, if it needs one, is not ours to choose.
pub(super) fn create(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let (admin, quoted, name) = (&found.admin, &found.quoted_daemon, wanted.daemon_role);
    let hidden_rows = found.selected(wanted.rules).any(|table| table.row_security);
    // Before version 16 only a superuser can grant these attributes; from then on also a role that has them and
    // CREATEROLE.
    let may_give = |has: bool| admin.superuser || (found.server.major >= 16 && admin.create_role && has);
    match &found.daemon {
        None => {
            let bypass = if hidden_rows { " BYPASSRLS" } else { "" };
            let allowed = may_give(admin.replication) && (!hidden_rows || may_give(admin.bypass_rls));
            let why = "the daemon's role; give it a password with \\password, or let it in without one in pg_hba.conf";
            plan.run_if(allowed, "a superuser", why, format!("CREATE ROLE {quoted} LOGIN REPLICATION{bypass}"));
        }
        Some(role) => {
            plan.exists(format!("role {name}"));
            if !role.replication {
                let sql = format!("ALTER ROLE {quoted} REPLICATION");
                let who = "a superuser (on Amazon RDS: GRANT rds_replication TO the role instead)";
                plan.run_if(may_give(admin.replication), who, "the right to use replication slots", sql);
            }
            if hidden_rows && !role.bypass_rls {
                let why = "row-level security would hide rows from the baseline";
                plan.run_if(may_give(admin.bypass_rls), "a superuser", why, format!("ALTER ROLE {quoted} BYPASSRLS"));
            }
        }
    }
}

/// Grants what the role needs on the objects that exist, or that will exist after the statements before.
pub(super) fn grant(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let is_owner = found.admin.name == wanted.daemon_role;
    if found.daemon.as_ref().is_some_and(|role| !role.may_connect) {
        let sql = format!("GRANT CONNECT ON DATABASE {} TO {}", found.server.quoted_database, found.quoted_daemon);
        plan.run_if(found.admin.superuser, "the owner of the database", "sessions of the daemon", sql);
    }
    on_objects(plan, found, is_owner);
    on_tables(plan, found, wanted);
}

fn on_objects(plan: &mut Plan, found: &Found, is_owner: bool) {
    let (objects, role) = (&found.objects, &found.quoted_daemon);
    // If the daemon's role does not exist yet, it will have the rights that PUBLIC has.
    if !(objects.emit.daemon || objects.emit.public && found.daemon.is_none()) {
        let why = "the daemon writes heartbeats and watermarks of baselines into the WAL";
        plan.run_if(found.admin.superuser, "a superuser", why, objects.emit.grant(role));
    }
    if let Some(owner) = objects.emit.owner.as_deref().filter(|_| !objects.emit.owner_may) {
        let why = "cdc_audit.set_context writes messages with its owner's rights";
        plan.run_if(found.admin.superuser, "a superuser", why, objects.emit.grant(owner));
    }
    let may_grant = if objects.schema { objects.owned } else { found.admin.may_create };
    if !objects.public_usage {
        let why = "applications may call cdc_audit.set_context";
        plan.run_if(may_grant, SCHEMA_OWNER, why, "GRANT USAGE ON SCHEMA cdc_audit TO PUBLIC");
    }
    for function in FUNCTIONS.iter().filter(|function| function.public) {
        if objects.functions.get(function.name).is_some_and(|there| !there.public_execute) {
            let why = format!("applications may call cdc_audit.{}", function.name);
            let sql = format!("GRANT EXECUTE ON FUNCTION cdc_audit.{} TO PUBLIC", function.signature);
            plan.run_if(may_grant, SCHEMA_OWNER, why, sql);
        }
    }
    for (name, why, privileges, _) in TABLES {
        let granted = objects.tables.get(name);
        let has = |privilege: &&str| granted.is_some_and(|granted| is_granted(granted, privilege));
        let open = name == "quarantine" && objects.quarantine_is_open && !is_owner;
        if open {
            let why = "nobody takes a decision back, or says that another role made it";
            plan.run_if(may_grant, SCHEMA_OWNER, why, format!("REVOKE ALL ON cdc_audit.{name} FROM {role}, PUBLIC"));
        }
        match privileges.iter().all(has) && !open {
            true => plan.exists(format!("{} on cdc_audit.{name} for the daemon's role", privileges.join(", "))),
            // The role will own a table that it is about to create itself.
            false if granted.is_none() && is_owner => {}
            false => {
                let sql = format!("GRANT {} ON cdc_audit.{name} TO {role}", privileges.join(", "));
                plan.run_if(may_grant, SCHEMA_OWNER, why, sql);
            }
        }
    }
}

fn on_tables(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) {
    let role = &found.quoted_daemon;
    let superuser = found.daemon.as_ref().is_some_and(|role: &Role| role.superuser);
    let read = |table: &&Table| wanted.rules.for_table(&table.name()).wants_baseline();
    let read: Vec<&Table> = found.selected(wanted.rules).filter(read).collect();
    let granted = read.iter().filter(|table| table.may_select && table.may_use_schema).count();
    if superuser || granted > 0 {
        plan.exists(format!("SELECT on {granted} tables for the daemon's role"));
    }
    let mut schemas: BTreeMap<&str, bool> = BTreeMap::new();
    for table in read.iter().filter(|table| !table.may_use_schema) {
        schemas.insert(&table.quoted_schema, table.may_grant_schema);
    }
    for (schema, allowed) in schemas {
        let sql = format!("GRANT USAGE ON SCHEMA {schema} TO {role}");
        plan.run_if(allowed, &format!("the owner of schema {schema}"), "the baseline reads its tables", sql);
    }
    let without = read.iter().filter(|table| !table.may_select);
    let (own, others): (Vec<&Table>, Vec<&Table>) = without.partition(|table| table.may_grant_select);
    for (tables, allowed) in [(own, true), (others, false)] {
        for batch in tables.chunks(TABLES_PER_STATEMENT) {
            let names: Vec<&str> = batch.iter().map(|table| table.quoted.as_str()).collect();
            let sql = format!("GRANT SELECT ON {} TO {role}", names.join(", "));
            plan.run_if(allowed, "the tables' owner", "the baseline reads rows that existed before", sql);
        }
    }
}
