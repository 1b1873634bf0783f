//! The daemon's role: whether it may use slots, and read what a baseline reads.

use super::{Area, Input, Report, Seen, list};
use crate::facts::Table;
use crate::setup::objects::{FUNCTIONS, Function, TABLES, foreign_hint, is_granted};
use crate::setup::session_context;

pub(super) fn check(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let role = &seen.found.admin;
    let before = report.findings.len();
    if !role.replication {
        let message = "it may not use replication slots";
        let fix = format!("as a superuser run ALTER ROLE {} REPLICATION", role.quoted);
        report.fail(Area::Role, &role.name, message, fix);
    }
    let baselined = baselined(seen, input);
    tables(report, &role.name, &baselined);
    let hidden: Vec<&Table> = baselined.into_iter().filter(|table| table.row_security && !role.bypass_rls).collect();
    if !hidden.is_empty() {
        let names = list(hidden.iter().map(|table| table.name()));
        let message = format!("row-level security would hide rows of {names} from the baseline");
        let fix = format!(
            "as a superuser run ALTER ROLE {} BYPASSRLS, or set baseline = false for these tables",
            role.quoted
        );
        report.fail(Area::Role, &role.name, message, fix);
    }
    objects(report, seen, input, &role.name);
    if report.findings.len() == before {
        match role.superuser {
            false => report.ok(Area::Role, &role.name, "may do what capture needs"),
            true => {
                let message = "it is a superuser, which is far more than capture needs";
                report.warn(
                    Area::Role,
                    &role.name,
                    message,
                    "`cdc-audit setup --dry-run` prints a role with just enough",
                );
            }
        }
    }
}

/// The published tables that a baseline reads.
fn baselined<'s>(seen: &'s Seen, input: &Input<'_>) -> Vec<&'s Table> {
    let published = |table: &&Table| seen.published.iter().any(|published| published.catalog.oid == table.oid);
    let wanted = |table: &&Table| seen.rules(input, &table.name(), table.oid).wants_baseline();
    seen.found.tables.iter().filter(wanted).filter(published).collect()
}

fn tables(report: &mut Report, role: &str, baselined: &[&Table]) {
    let unreadable: Vec<&&Table> =
        baselined.iter().filter(|table| !table.may_select || !table.may_use_schema).collect();
    if !unreadable.is_empty() {
        let names = list(unreadable.iter().map(|table| table.name()));
        let message = format!("it may not read {names}: no baseline");
        let fix = "run `cdc-audit setup --as URL` with a role that owns them, or set baseline = false for these tables";
        report.fail(Area::Role, role, message, fix);
    }
}

fn objects(report: &mut Report, seen: &Seen, input: &Input<'_>, role: &str) {
    let objects = &seen.found.objects;
    if !objects.schema
        || FUNCTIONS.iter().any(|function| !objects.functions.contains_key(function.name))
        || TABLES.iter().any(|(name, ..)| !objects.tables.contains_key(*name))
    {
        let message = "the schema cdc_audit is not there, or not whole";
        return report.fail(Area::Server, "schema cdc_audit", message, "run `cdc-audit setup`");
    }
    let lacks = |(name, _, privileges, _): &(&'static str, &str, &[&str], &str)| {
        let granted = objects.tables.get(*name).map(Vec::as_slice).unwrap_or_default();
        let has = |privilege: &&str| is_granted(granted, privilege);
        (!objects.daemon_usage || !privileges.iter().all(has)).then_some(*name)
    };
    let lacking: Vec<&str> = TABLES.iter().filter_map(lacks).collect();
    if !lacking.is_empty() {
        let names = list(lacking.iter().map(|name| format!("cdc_audit.{name}")));
        report.fail(
            Area::Role,
            role,
            format!("it may not use {names}"),
            "run `cdc-audit setup --as URL` with a role that owns them",
        );
    }
    if objects.quarantine_is_old || objects.quarantine_is_open {
        let message =
            "cdc_audit.quarantine is of an earlier version: it does not prove who decided to leave a change out";
        report.fail(
            Area::Server,
            "schema cdc_audit",
            message,
            "run `cdc-audit setup --as URL` with a role that owns it",
        );
    }
    for what in &objects.foreign {
        let message = format!("it holds what setup did not make: {what}");
        report.fail(Area::Server, "schema cdc_audit", message, foreign_hint(what));
    }
    contexts(report, seen, input);
}

/// Reports what keeps contexts from being recorded, or from being verified correctly.
fn contexts(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let objects = &seen.found.objects;
    let old =
        |function: &&Function| objects.functions.get(function.name).is_some_and(|there| !function.is_current(there));
    let old = list(FUNCTIONS.iter().filter(old).map(|function| format!("cdc_audit.{}", function.name)));
    if !old.is_empty() {
        let message = format!("{old}: not as this version makes it; contexts may not be verified");
        report.warn(Area::Server, "schema cdc_audit", message, "run `cdc-audit setup`");
    }
    for reader in &objects.key_readers {
        let as_member = reader.by.as_ref().map_or(String::new(), |by| format!(" as a member of {by}"));
        let message = format!(
            "{} may read cdc_audit.context_keys{as_member}, and so sign a context in another's name",
            reader.role
        );
        let fix = format!("run {}; SELECT cdc_audit.rotate_context_key()", reader.revoke());
        report.warn(Area::Server, "schema cdc_audit", message, fix);
    }
    let Some(asked) = &input.source.session_context else { return };
    let without = seen.found.tables.iter().filter(|table| session_context::is_missing(asked, table));
    let without = list(without.map(|table| table.name()));
    if !without.is_empty() {
        let message = format!("no trigger says who changes {without}, as source.session_context asks");
        report.warn(Area::Server, "session_context", message, "run `cdc-audit setup`");
    }
}
