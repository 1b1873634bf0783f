//! `setup --replica-identity full`: the only part that alters the application's tables, and only if the operator asks
//! for it.

use std::collections::BTreeSet;

use audit_core::rules::matches;

use crate::facts::Table;
use crate::identity::{full_breaks, other_key};
use crate::setup::{Found, Wanted, publication};
use crate::step::Plan;

/// Plans the statements and returns the tables (by oid) that have FULL after them.
pub(super) fn full(plan: &mut Plan, found: &Found, wanted: &Wanted<'_>) -> BTreeSet<u32> {
    let Some(patterns) = wanted.replica_identity_full else { return BTreeSet::new() };
    let target = publication::Target::of(found);
    let selected: Vec<&Table> = found.selected(wanted.rules).collect();
    for pattern in patterns.iter().filter(|pattern| !selected.iter().any(|t| matches(pattern, &t.name().to_string()))) {
        let hint = "name it as schema.table, and check that the rules of the configuration take it";
        plan.refuse(format!("no captured table is called {pattern}"), hint);
    }
    let mut made_full = BTreeSet::new();
    for table in selected {
        let name = table.name().to_string();
        let exactly = patterns.contains(&name);
        if !patterns.is_empty() && !patterns.iter().any(|pattern| matches(pattern, &name)) {
            continue;
        }
        if table.is_full() {
            plan.exists(format!("REPLICA IDENTITY FULL of {name}"));
            made_full.insert(table.oid);
            continue;
        }
        let ours = (wanted.source.publication.as_str(), target.generated);
        if let Some(why) = full_breaks(found.server.major, table, &found.memberships, ours) {
            let message =
                format!("REPLICA IDENTITY FULL on {name} would make PostgreSQL refuse its UPDATE and DELETE: {why}");
            let hint = "change the publication or the table first; until then old values of this table stay unknown";
            match exactly {
                true => plan.refuse(message, hint),
                false => plan.note(message, Some(hint.to_owned())),
            }
            continue;
        }
        if let Some(key) = other_key(table, wanted.rules) {
            let message = format!("{name} has an index as its replica identity, which it loses");
            plan.note(message, Some(format!("write {key}")));
        }
        alter(plan, table, &name);
        made_full.insert(table.oid);
    }
    made_full
}

/// A partitioned table does not pass its identity on, so each partition is altered separately.
fn alter(plan: &mut Plan, table: &Table, name: &str) {
    let why = match table.row_bytes() {
        Some(bytes) => format!("old values of {name}; each UPDATE and DELETE writes about {bytes} bytes more WAL"),
        None => format!("old values of {name}; each UPDATE and DELETE writes the old row to the WAL"),
    };
    let own = (table.quoted.as_str(), table.owned, table.identity() == Some(audit_core::shape::Identity::Full));
    let leaves = table.leaves.iter().map(|leaf| (leaf.quoted.as_str(), leaf.owned, leaf.is_full()));
    for (quoted, owned, _) in std::iter::once(own).chain(leaves).filter(|(_, _, full)| !full) {
        let who = format!("the owner of {quoted}");
        let sql = format!("ALTER TABLE {quoted} REPLICA IDENTITY FULL");
        plan.run_if(owned, &who, &why, sql);
    }
}
