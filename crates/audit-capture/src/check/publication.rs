//! Compares the publication with the rules: what is captured, and what is not.

use std::collections::BTreeSet;

use super::{Area, Input, Report, Seen, list};
use crate::facts::Table;
use crate::setup::publication::{LeftOut, OPERATIONS, extra, missing};

pub(super) fn check(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let name = &input.source.publication;
    let Some(publication) = &seen.found.publication else {
        let message = "it does not exist: nothing can be captured";
        return report.fail(Area::Publication, name, message, "run `cdc-audit setup`");
    };
    let lacking: Vec<&str> =
        OPERATIONS.into_iter().filter(|name| !publication.operations.iter().any(|has| has == name)).collect();
    if !lacking.is_empty() {
        let message = format!("it does not publish {}: such changes are not captured", lacking.join(", "));
        report.warn(Area::Publication, name, message, "run `cdc-audit setup`");
    }
    if !publication.via_root {
        let message = "it publishes partitions under their own names, not as their partitioned table";
        report.warn(Area::Publication, name, message, "run `cdc-audit setup`");
    }
    let filtered = |table: &&Table| {
        let asked = input.rules.for_table(&table.name()).rule.row_filter.is_some();
        // PostgreSQL filters no rows of a table that is published through FOR ALL TABLES or through its schema.
        let whole = publication.all_tables || publication.schemas.contains(&table.schema);
        let named = publication.members.iter().any(|member| member.oid == table.oid && member.filter.is_none());
        asked && (whole || named)
    };
    let unfiltered = list(seen.found.tables.iter().filter(filtered).map(|table| table.name()));
    if !unfiltered.is_empty() {
        let message = format!("rows that the rules leave out are captured: {unfiltered} have a `where` that it lacks");
        report.fail(Area::Publication, name, message, "run `cdc-audit setup`");
    }
    uncaptured(report, seen, input, name);
    let extra = if publication.all_tables { Vec::new() } else { extra(&seen.found, input.rules, publication) };
    if !extra.is_empty() {
        let message = format!("it has tables that the rules do not take: {}", list(extra));
        report.warn(Area::Publication, name, message, "run `cdc-audit setup`, or name them in [[tables]]");
    }
    match seen.published.len() {
        0 => report.warn(
            Area::Publication,
            name,
            "it publishes no table",
            "name tables in [[tables]] and run `cdc-audit setup`",
        ),
        count => report.ok(Area::Publication, name, format!("{count} tables are captured")),
    }
    by_name(report, seen, input, name);
    parted(report, seen, name);
}

/// Warns about rules by pattern with a publication by name: a table that is created later is selected by the rules but
/// not published.
fn by_name(report: &mut Report, seen: &Seen, input: &Input<'_>, name: &str) {
    let Some(publication) = &seen.found.publication else { return };
    let takes_all = !input.rules.tables.iter().any(|rule| rule.capture == Some(true));
    let takes_more = takes_all || input.rules.tables.iter().any(|rule| rule.name.contains(['*', '?']));
    if takes_more && !publication.all_tables && publication.schemas.is_empty() {
        let message = "it names tables one by one, and the rules take more: a new table is captured only after `cdc-audit setup` has run again; \
                       a publication of whole schemas (ALTER PUBLICATION … ADD TABLES IN SCHEMA) takes new tables by itself";
        report.ok(Area::Publication, name, message);
    }
}

/// Notes what PostgreSQL never sends.
fn parted(report: &mut Report, seen: &Seen, name: &str) {
    let parted = list(seen.published.iter().filter(|table| table.catalog.partitioned).map(|table| &table.name));
    if !parted.is_empty() {
        let message = format!(
            "PostgreSQL sends no DETACH, DROP or TRUNCATE of a single partition: its rows vanish without versions. Delete them first, or run \
             `cdc-audit baseline` afterwards: {parted}"
        );
        report.ok(Area::Publication, name, message);
    }
}

fn uncaptured(report: &mut Report, seen: &Seen, input: &Input<'_>, name: &str) {
    let (add, left_out) = missing(&seen.found, input.rules, &BTreeSet::new());
    // The role that runs check does not have to own the tables, so "not owned" means nothing here.
    let (unsafe_to_add, others): (Vec<_>, Vec<_>) =
        left_out.into_iter().partition(|(_, why)| matches!(why, LeftOut::NoIdentity));
    let missing: Vec<&Table> = add.into_iter().chain(others.into_iter().map(|(table, _)| table)).collect();
    if !missing.is_empty() {
        let message =
            format!("tables that the rules take are not captured: {}", list(missing.iter().map(|t| t.name())));
        report.warn(Area::Publication, name, message, "run `cdc-audit setup`, or set capture = false for them");
    }
    for (table, _) in unsafe_to_add {
        let table = table.name();
        let message = "it is not captured: without a primary key PostgreSQL would refuse its UPDATE and DELETE";
        let fix = format!(
            "give it a primary key, run `cdc-audit setup --replica-identity full --table {table}`, or set capture = false"
        );
        report.warn(Area::Table, table.to_string(), message, fix);
    }
    let selected: BTreeSet<u32> = seen.found.selected(input.rules).map(|table| table.oid).collect();
    let unnamed: Vec<&Table> = seen.found.tables.iter().filter(|table| !selected.contains(&table.oid)).collect();
    if !unnamed.is_empty() {
        let message =
            format!("{} tables are left out by the rules: {}", unnamed.len(), list(unnamed.iter().map(|t| t.name())));
        report.ok(Area::Publication, name, message);
    }
}
