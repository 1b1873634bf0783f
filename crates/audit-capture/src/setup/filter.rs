//! Row filters: `where` of `[[tables]]` becomes the publication's own filter, so that excluded rows never leave the
//! server.
//!
//! A filter can harm the application: if it names a column outside the replica identity, PostgreSQL refuses UPDATE and
//! DELETE. So the server is asked first: a publication with the filter is created, read, and rolled back, all in one
//! transaction.

use std::collections::{BTreeMap, BTreeSet};

use audit_core::rules::Rules;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::facts::{Publication, Table};
use crate::query::{QueryError, row};
use crate::setup::{Found, LOCK_TIMEOUT};
use crate::step::Plan;

/// A filter as the server understands it.
#[derive(Clone, Debug, Deserialize)]
struct Seen {
    /// The filter as the server writes it.
    filter: String,
    /// Columns in the filter that are not part of the replica identity.
    outside: Vec<String>,
}

/// A filter that the rules ask for.
pub(crate) struct Filter {
    /// The filter as the rules write it.
    pub text: String,
    seen: Result<Seen, QueryError>,
}

/// The filters that the rules ask for, by the tables' oids.
pub(crate) async fn read(client: &Client, found: &Found, rules: &Rules) -> Result<BTreeMap<u32, Filter>, QueryError> {
    let mut filters = BTreeMap::new();
    for table in found.selected(rules) {
        let Some(text) = rules.for_table(&table.name()).rule.row_filter else { continue };
        let seen = if found.server.major >= MAJOR { probe(client, table, &text).await } else { Ok(Seen::unread()) };
        filters.insert(table.oid, Filter { text, seen });
    }
    Ok(filters)
}

/// The first version in which publications filter rows.
const MAJOR: u32 = 15;

impl Seen {
    fn unread() -> Seen {
        Seen { filter: String::new(), outside: Vec::new() }
    }
}

async fn probe(client: &Client, table: &Table, text: &str) -> Result<Seen, QueryError> {
    const WHAT: &str = "try the row filter";
    let failed = |error| QueryError::new(WHAT, error);
    client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout TO '{LOCK_TIMEOUT}'")).await.map_err(failed)?;
    let create = format!(
        "CREATE PUBLICATION cdc_audit_probe FOR TABLE ONLY {} WHERE ({text}) WITH (publish_via_partition_root = true)",
        table.quoted
    );
    // The statement is prepared, so that the text cannot contain a second one.
    let seen = match client.execute(&create, &[]).await.map_err(failed) {
        Ok(_) => row(client, WHAT, include_str!("../sql/filter.sql"), &[&table.oid]).await,
        Err(error) => Err(error),
    };
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    seen
}

/// Refuses invalid filters, and changes the filters of tables that are already published.
pub(super) fn alter(plan: &mut Plan, found: &Found, made_full: &BTreeSet<u32>) {
    for table in &found.tables {
        let Some(filter) = found.filters.get(&table.oid) else { continue };
        if let Some((message, hint)) = filter.problem(found, table, made_full.contains(&table.oid)) {
            plan.refuse(message, hint);
        }
    }
    let Some(publication) = &found.publication else { return };
    for table in &found.tables {
        let Some(member) = publication.members.iter().find(|member| member.oid == table.oid) else { continue };
        let there = member.filter.as_deref();
        match found.filters.get(&table.oid) {
            Some(filter) if filter.is(there) => {
                plan.exists(format!("row filter of {}", table.name()));
            }
            Some(filter) => replace(plan, found, publication, table, filter),
            None => {
                if let Some(there) = there {
                    let message = format!("the publication filters rows of {}, as no rule asks: {there}", table.name());
                    let sql =
                        format!("ALTER PUBLICATION {} DROP TABLE ONLY {}", found.quoted_publication, table.quoted);
                    plan.note(message, Some(format!("to take all rows run {sql}, then setup again")));
                }
            }
        }
    }
}

/// The replacement is one transaction, or changes in between would be lost.
fn replace(plan: &mut Plan, found: &Found, publication: &Publication, table: &Table, filter: &Filter) {
    let (name, quoted) = (&found.quoted_publication, &table.quoted);
    let sql = format!(
        "BEGIN;\nALTER PUBLICATION {name} DROP TABLE ONLY {quoted};\nALTER PUBLICATION {name} ADD TABLE ONLY {quoted} WHERE ({});\nCOMMIT",
        filter.text
    );
    let who = format!("{}, who owns the publication", publication.owner);
    plan.run_if(publication.owned && table.owned, &who, format!("the rows of {} that are captured", table.name()), sql);
}

impl Filter {
    /// Whether the filter `there`, as the server writes it, is this one.
    fn is(&self, there: Option<&str>) -> bool {
        self.seen.as_ref().is_ok_and(|seen| there == Some(seen.filter.as_str()))
    }

    fn problem(&self, found: &Found, table: &Table, made_full: bool) -> Option<(String, String)> {
        let name = table.name();
        if found.server.major < MAJOR {
            let message = format!("{name}: PostgreSQL {} cannot filter rows", found.server.major);
            return Some((message, format!("upgrade to {MAJOR} or later, or take `where` out of its rules")));
        }
        if found.publication.as_ref().is_some_and(|publication| publication.all_tables) {
            let message = format!("{name}: a publication FOR ALL TABLES cannot filter rows");
            return Some((message, "name the tables in the publication, or take `where` out of the rules".to_owned()));
        }
        if found.publication.as_ref().is_some_and(|publication| publication.schemas.contains(&table.schema)) {
            let message = format!("{name}: of tables that it publishes by their schema, PostgreSQL filters no rows");
            let hint =
                "name the schema's tables in the publication, in place of the schema, or take `where` out of the rules";
            return Some((message, hint.to_owned()));
        }
        match &self.seen {
            // Only the table's owner can publish it and try a filter; that is reported elsewhere.
            _ if !table.owned => None,
            Err(error) => {
                let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
                let hint = "`where` is an SQL expression over the table's own columns, without functions of your own";
                Some((format!("{name}: the server does not take the row filter{cause}"), hint.to_owned()))
            }
            Ok(seen) if !seen.outside.is_empty() && !made_full => {
                let columns = seen.outside.join(", ");
                let message = format!(
                    "{name}: with this row filter PostgreSQL would refuse UPDATE and DELETE: {columns} do not identify a row"
                );
                Some((message, format!("run setup with --replica-identity full --table {name}, or filter by its key")))
            }
            Ok(_) => None,
        }
    }
}
