//! Each captured table: what is known about its old rows and its key, and whether the application is harmed.

use audit_core::method::{Algorithm, Method, MethodRule};
use audit_core::position::Position;
use audit_core::shape::{History, Identity};
use audit_core::table::Table as Recorded;

use super::{Area, Input, Report, Seen, bytes, list};
use crate::catalog::{Generated, PublishedTable};
use crate::facts::Table;
use crate::identity::{full_breaks, other_key};

pub(super) fn check(report: &mut Report, seen: &Seen, input: &Input<'_>) {
    let mut whole = 0;
    for table in &seen.published {
        let facts = seen.found.tables.iter().find(|facts| facts.oid == table.catalog.oid);
        let sound = !harmed(report, seen, table, facts, input);
        if old_rows(report, table, facts, input) && sound {
            whole += 1;
        }
        left_out(report, table);
        protection(report, seen, table, input);
    }
    if whole > 0 {
        let message = format!("{whole} tables send whole old rows: every old value is recorded");
        report.ok(Area::Table, "replica identity", message);
    }
}

/// Whether PostgreSQL refuses the application's UPDATE and DELETE on the table now.
fn harmed(report: &mut Report, seen: &Seen, table: &PublishedTable, facts: Option<&Table>, input: &Input<'_>) -> bool {
    let publication = seen.found.publication.as_ref();
    let sends_old = publication.is_some_and(|p| p.operations.iter().any(|name| name == "update" || name == "delete"));
    let Some(facts) = facts.filter(|_| sends_old) else { return false };
    let name = table.name.to_string();
    if !facts.has_identity() {
        let message = "PostgreSQL refuses its UPDATE and DELETE: it is published and has no replica identity";
        let fix = format!("give it a primary key, or run `cdc-audit setup --replica-identity full --table {name}`");
        report.fail(Area::Table, name, message, fix);
        return true;
    }
    let any_full = table.identity == Identity::Full || facts.leaves.iter().any(|leaf| leaf.is_full());
    let ours = (input.source.publication.as_str(), publication.is_some_and(|publication| publication.generated));
    let breaks = full_breaks(seen.found.server.major, facts, &seen.found.memberships, ours).filter(|_| any_full);
    if let Some(why) = &breaks {
        let message = format!("PostgreSQL refuses its UPDATE and DELETE: it has REPLICA IDENTITY FULL, and {why}");
        let fix = "run `cdc-audit setup`, change that publication, or set another replica identity";
        report.fail(Area::Table, name, message, fix);
    }
    breaks.is_some()
}

/// Whether old rows are complete. If not, reports what that means, and what FULL would cost.
fn old_rows(report: &mut Report, table: &PublishedTable, facts: Option<&Table>, input: &Input<'_>) -> bool {
    let name = table.name.to_string();
    let keyless = table.catalog.primary_key.is_empty() && table.identity_key.is_empty();
    if keyless {
        let message = "it has no primary key: `key` is null, and no row of it can be followed";
        report.warn(Area::Table, &name, message, "give it a primary key");
    }
    let full = format!("run `cdc-audit setup --replica-identity full --table {name}`");
    if table.identity != Identity::Full {
        let toast: Vec<&str> = table.toastable().collect();
        let toast = match toast.is_empty() {
            true => String::new(),
            false => format!("; large values of {} are unknown where an UPDATE leaves them as they are", list(toast)),
        };
        let message = format!("of an UPDATE the old values are not known, of a DELETE only the key{toast}");
        let price = match facts.and_then(Table::row_bytes) {
            Some(row) => format!("writes about {} more WAL for each UPDATE and DELETE", bytes(row)),
            None => "writes the old row to the WAL with each UPDATE and DELETE".to_owned(),
        };
        let key = facts.and_then(|facts| other_key(facts, input.rules)).map(|key| format!("; first write {key}"));
        report.warn(Area::Table, &name, message, format!("{full}, which {price}{}", key.unwrap_or_default()));
        return false;
    }
    if !table.leaves_full {
        let leaves = facts.into_iter().flat_map(|facts| &facts.leaves).filter(|leaf| !leaf.is_full());
        let message = format!(
            "partitions without REPLICA IDENTITY FULL: {}; their old values are not known",
            list(leaves.map(|leaf| &leaf.quoted))
        );
        report.warn(Area::Table, &name, message, full);
    }
    table.leaves_full
}

/// Reports columns and rows that the publication does not send.
fn left_out(report: &mut Report, table: &PublishedTable) {
    let name = table.name.to_string();
    let columns = || table.catalog.columns.iter().zip(&table.columns).filter(|(column, _)| !column.published);
    let generated: Vec<&str> = columns()
        .filter(|(_, facts)| facts.generated != Generated::No)
        .map(|(column, _)| column.name.as_str())
        .collect();
    let others: Vec<&str> = columns()
        .filter(|(_, facts)| facts.generated == Generated::No)
        .map(|(column, _)| column.name.as_str())
        .collect();
    if !generated.is_empty() {
        report.ok(
            Area::Table,
            &name,
            format!("generated columns are not sent, and so not recorded: {}", list(generated)),
        );
    }
    if !others.is_empty() {
        report.ok(Area::Table, &name, format!("the publication's column list leaves out {}", list(others)));
    }
    if table.row_filter.is_some() {
        let message = "the publication's row filter leaves out rows: an UPDATE into or out of it looks like a creation or a deletion";
        report.warn(Area::Table, &name, message, "take the filter out of the publication, or know what it does");
    }
}

/// ⚠ Reports rules that hold for a table only because of its former name.
fn was_called(report: &mut Report, seen: &Seen, table: &PublishedTable, former: &str) {
    let name = table.name.to_string();
    let message =
        format!("no rule names it: it was captured as {former} before, and the rules for that are applied to it still");
    let fix = match seen.published.iter().any(|other| other.name.to_string() == former) {
        // A partition that was detached, or there is another table under that name.
        true => format!(
            "name it in a rule of its own in `[[tables]]`, which then alone decides what is protected: `name = \"{name}\"`"
        ),
        false => format!("write `name = \"{name}\"` and `former_names = [\"{former}\"]` into the rule in `[[tables]]`"),
    };
    report.fail(Area::Protection, name, message, fix);
}

/// Compares the rules with the columns that the table has.
fn protection(report: &mut Report, seen: &Seen, table: &PublishedTable, input: &Input<'_>) {
    let rules = &seen.rules(input, &table.name, table.catalog.oid);
    if let Some(former) = &rules.renamed_from {
        was_called(report, seen, table, former);
    }
    let relation = table.relation();
    let shape = History::default().add(&relation, Some(&table.catalog), Position::default());
    let name = table.name.to_string();
    match Recorded::new(shape.clone(), rules, input.row_key) {
        Err(error) => report.fail(Area::Protection, &name, error.to_string(), error.hint()),
        Ok(recorded) if recorded.withheld.is_empty() => {}
        Ok(recorded) => {
            let (count, names) = (recorded.withheld.len(), list(&recorded.withheld));
            let message = format!("strict: {count} columns that no rule decides about are not recorded: {names}");
            let fix = "protect them, or name them in `allow`; `cdc-audit plan` shows all";
            report.warn(Area::Protection, &name, message, fix);
        }
    }
    let with = |wanted: fn(&MethodRule) -> bool| {
        let columns = shape.columns.iter().filter(move |column| rules.methods(column).iter().any(wanted));
        columns.map(|column| column.name.as_str()).collect::<Vec<_>>()
    };
    let keyed = with(MethodRule::needs_hash_key);
    if !keyed.is_empty() && !input.hash_key {
        let message = format!("columns are to be hashed and there is no key for it: {}", list(keyed));
        let fix = "set protection.hash_key to a file or variable with a secret";
        report.fail(Area::Protection, &name, message, fix);
    }
    let bare = with(|rule| rule.method == Method::Hash && rule.algorithm() == Algorithm::Sha256);
    if !bare.is_empty() {
        let message = format!("stored as bare SHA-256, which whoever guesses a value can prove: {}", list(bare));
        report.warn(Area::Protection, &name, message, "take `algorithm` out: `hash` then uses protection.hash_key");
    }
    let tokens = with(|rule| rule.method == Method::Token);
    if rules.rule.subject.is_some() && !tokens.is_empty() {
        let message =
            format!("tokens are not under their data subject's key, and outlive its destruction: {}", list(tokens));
        report.warn(
            Area::Protection,
            &name,
            message,
            "take [\"hash\", \"encrypt\"]: joined by one, opened by the other",
        );
    }
}
