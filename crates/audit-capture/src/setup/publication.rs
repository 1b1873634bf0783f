//! The publication: its tables and its options.
//!
//! Tables are named one by one. FOR ALL TABLES and TABLES IN SCHEMA need a superuser, and would include tables on which
//! PostgreSQL then refuses UPDATE and DELETE. A publication that is already FOR ALL TABLES stays so.

use std::collections::BTreeSet;

use audit_core::rules::Rules;

use crate::facts::{Publication, Table};
use crate::setup::{Found, Wanted};
use crate::step::Plan;

/// All operations: a publication that leaves one out hides changes.
pub(crate) const OPERATIONS: [&str; 4] = ["insert", "update", "delete", "truncate"];

/// Number of tables in one statement. Each statement locks the tables it names, and the number of locks is limited
/// (`max_locks_per_transaction`, 64 for each connection).
const TABLES_PER_STATEMENT: usize = 500;

/// The properties that the publication will have.
pub(super) struct Target {
    /// Whether it sends stored generated columns.
    pub generated: bool,
}

impl Target {
    pub(super) fn of(found: &Found) -> Target {
        Target { generated: found.server.major >= 18 }
    }

    fn options(&self) -> String {
        let generated = if self.generated { ", publish_generated_columns = stored" } else { "" };
        format!("publish = '{}', publish_via_partition_root = true{generated}", OPERATIONS.join(", "))
    }

    fn fits(&self, publication: &Publication) -> bool {
        let complete = OPERATIONS.iter().all(|name| publication.operations.iter().any(|has| has == name));
        complete && publication.via_root && publication.generated == self.generated
    }
}

/// Why a table that the rules select is not published.
pub(crate) enum LeftOut {
    /// PostgreSQL would refuse UPDATE and DELETE.
    NoIdentity,
    /// Only its owner can publish it.
    NotOwned,
}

/// The tables that have to be added to the publication, and those that cannot be.
pub(crate) fn missing<'f>(
    found: &'f Found,
    rules: &Rules,
    made_full: &BTreeSet<u32>,
) -> (Vec<&'f Table>, Vec<(&'f Table, LeftOut)>) {
    let (mut add, mut left_out) = (Vec::new(), Vec::new());
    let published = |table: &&Table| found.publication.as_ref().is_some_and(|publication| publication.holds(table));
    for table in found.selected(rules).filter(|table| !published(table)) {
        if !table.has_identity() && !made_full.contains(&table.oid) {
            left_out.push((table, LeftOut::NoIdentity));
        } else if !table.owned {
            left_out.push((table, LeftOut::NotOwned));
        } else {
            add.push(table);
        }
    }
    (add, left_out)
}

pub(super) fn create(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>, made_full: &BTreeSet<u32>) {
    let (add, left_out) = missing(found, wanted.rules, made_full);
    let (target, name) = (Target::of(found), &wanted.source.publication);
    match &found.publication {
        None => create_new(plan, found, &target, &add),
        Some(publication) => alter(plan, found, wanted.rules, publication, &target, &add, name),
    }
    for (table, why) in left_out {
        note(plan, found, table, &why);
    }
}

fn create_new(plan: &mut Plan, found: &Found, target: &Target, add: &[&Table]) {
    let (first, rest) = add.split_at(add.len().min(TABLES_PER_STATEMENT));
    let tables = if first.is_empty() { String::new() } else { format!(" FOR TABLE {}", only(found, first)) };
    let sql = format!("CREATE PUBLICATION {}{tables} WITH ({})", found.quoted_publication, target.options());
    let who = "a role that may create publications in this database";
    plan.run_if(found.admin.may_create, who, "the tables whose changes are captured", sql);
    add_tables(plan, found, rest, found.admin.may_create, who);
    if let Some(slot) = &found.slot {
        let message =
            format!("slot {} is older than the publication: changes from before cannot be decoded", slot.name);
        let hint = "drop the slot with `cdc-audit teardown`, set up again, and start with `--accept-gap`";
        plan.note(message, Some(hint.to_owned()));
    }
}

fn alter(
    plan: &mut Plan,
    found: &Found,
    rules: &Rules,
    publication: &Publication,
    target: &Target,
    add: &[&Table],
    name: &str,
) {
    let quoted = &found.quoted_publication;
    let who = format!("{}, who owns the publication", publication.owner);
    plan.exists(match (publication.all_tables, publication.members.len()) {
        (true, _) => format!("publication {name} (all tables)"),
        (false, 0) => format!("publication {name} (no table by name: by schema, or empty)"),
        (false, tables) => format!("publication {name} ({tables} tables by name)"),
    });
    if !target.fits(publication) {
        let sql = format!("ALTER PUBLICATION {quoted} SET ({})", target.options());
        plan.run_if(publication.owned, &who, "every kind of change, under the name of the partitioned table", sql);
    }
    add_tables(plan, found, add, publication.owned, &who);
    let extra = extra(found, rules, publication);
    for batch in extra.chunks(TABLES_PER_STATEMENT) {
        let list: Vec<String> = batch.iter().map(|quoted| format!("ONLY {quoted}")).collect();
        let sql = format!("ALTER PUBLICATION {quoted} DROP TABLE {}", list.join(", "));
        plan.run_if(publication.owned, &who, "tables that the rules do not take", sql);
    }
}

/// Names, as SQL, of the tables that the publication names and the rules do not select.
pub(crate) fn extra(found: &Found, rules: &Rules, publication: &Publication) -> Vec<String> {
    let selected: BTreeSet<u32> = found.selected(rules).map(|table| table.oid).collect();
    let members = publication.members.iter().filter(|member| !selected.contains(&member.oid));
    members.map(|member| member.quoted.clone()).collect()
}

fn add_tables(plan: &mut Plan, found: &Found, add: &[&Table], allowed: bool, who: &str) {
    for batch in add.chunks(TABLES_PER_STATEMENT) {
        let sql = format!("ALTER PUBLICATION {} ADD TABLE {}", found.quoted_publication, only(found, batch));
        plan.run_if(allowed, who, "tables whose changes are captured", sql);
    }
}

/// The names carry ONLY, because each of several tables that inherit from one another is captured by its own rules.
/// Partitions are included all the same.
fn only(found: &Found, tables: &[&Table]) -> String {
    let one = |table: &&Table| match found.filters.get(&table.oid) {
        Some(filter) => format!("ONLY {} WHERE ({})", table.quoted, filter.text),
        None => format!("ONLY {}", table.quoted),
    };
    tables.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn note(plan: &mut Plan, found: &Found, table: &Table, why: &LeftOut) {
    let name = table.name();
    match why {
        LeftOut::NoIdentity => plan.note(
            format!("{name} is left out: without a primary key PostgreSQL would refuse its UPDATE and DELETE"),
            Some(format!("give it a primary key, or run setup with --replica-identity full --table {name}")),
        ),
        LeftOut::NotOwned => plan.note(
            format!("{name} is left out: it belongs to role {}, and {} is no member", table.owner, found.admin.name),
            Some(format!("run `cdc-audit setup --as URL` with a member of {}", table.owner)),
        ),
    }
}
