//! The published tables at one moment: [`Listed`]; and what is not captured although the rules select it:
//! [`Uncaptured`].
//!
//! A table needs a baseline unless the stream has had all of its rows. For a table without a record, the present
//! catalog decides, compared with a point in the past at which everything published was accounted for. The
//! stream has had every row if all of this holds: the table was created after that point, under its present name, in
//! its present schema and with its present file; it is published by an entry for all tables, or for all tables of its
//! schema, that existed at that point; and the publication and the rules are as they were. In every other case its rows
//! are read. A row may then have both `created` and `snapshot`, but none is missing.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use audit_core::rules::Rules;
use audit_core::shape::TableName;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::published::{publishes, with_published};
use crate::query::{QueryError, rows};
use crate::select::names;
use crate::setup::publication::OPERATIONS;

/// A published table.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Listed {
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// The catalog entries by which it is published.
    pub by: BTreeSet<String>,
    /// The number of rows, an estimate.
    #[serde(rename = "estimate")]
    pub rows: u64,
    pub keyed: bool,
    /// Whether it was created after the point that it was compared with, and is still what it was created as.
    pub born: bool,
    /// Partitions that were attached after that point: each as its oid and the transactions that attached it.
    pub joined: Vec<String>,
}

impl Listed {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

/// The condition that the row of `alias` was written before transaction $`from`. Numbers below 3 belong to no
/// transaction; a number at a distance of 2^31 or more cannot be distinguished from one before the wraparound.
fn older(alias: &str, from: u8) -> String {
    let (xid, now) = (format!("{alias}.xmin::text::bigint"), "(SELECT xid FROM now)");
    format!(
        "coalesce({xid} < 3 OR {now} - ${from} >= 2147483648 \
         OR mod({xid} - mod(${from}, 4294967296) + 4294967296, 4294967296) >= {now} - ${from}, true)"
    )
}

/// The tables that the publication publishes now, with whether each was created after transaction `made`, and which
/// partitions were attached by transaction `joined` or a later one. Both are points at which everything published was
/// accounted for. Another publication or other rules invalidate the first point; a partition is still new under them.
pub(super) async fn list(
    client: &Client,
    publication: &str,
    made: Option<i64>,
    joined: Option<i64>,
) -> Result<Vec<Listed>, QueryError> {
    let sql = include_str!("../sql/listing.sql")
        .replace("{old_table}", &older("a", 2))
        .replace("{old_link}", &older("i", 3))
        .replace("{old_schema}", &older("n", 3));
    let sql = with_published(client, &sql).await?;
    let made_from = made.map(|xid| xid + 1);
    rows(client, "list the published tables", &sql, &[&publication, &made_from, &joined]).await
}

/// The properties of a publication at one moment.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Publishes {
    /// Changes with each ALTER PUBLICATION … SET (…).
    pub version: String,
    pub via_root: bool,
    pub operations: BTreeSet<String>,
    /// Entries by which it publishes tables that are not named one by one.
    pub by: BTreeSet<String>,
}

/// Returns `None` if there is no such publication.
pub(super) async fn read_publication(client: &Client, publication: &str) -> Result<Option<Publishes>, QueryError> {
    let sql = publishes(client).await?;
    Ok(rows(client, "read the publication", &sql, &[&publication]).await?.pop())
}

/// The digest of the rules. Changes under another digest may have passed under other rules. Another version of the
/// program may compute another digest for the same rules; the cost of that is an unnecessary baseline.
pub(super) fn digest(rules: &Rules) -> String {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&rules.tables).unwrap_or_default().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// What the rules select and the publication does not send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncaptured {
    /// Tables that are not published.
    pub tables: BTreeSet<String>,
    /// Those of them that were captured before: what has changed since they left the publication is unknown.
    pub left: BTreeSet<String>,
    /// Kinds of changes that are not published.
    pub operations: Vec<&'static str>,
    /// Whether partitions are published under their own names.
    pub partitions_by_name: bool,
}

#[derive(Deserialize)]
struct Candidate {
    schema: String,
    table: String,
    extension: bool,
}

/// Compares the publication with the rules.
pub(super) async fn uncaptured(
    client: &Client,
    publication: &str,
    publishes: &Publishes,
    rules: &Rules,
) -> Result<Uncaptured, QueryError> {
    let sql = with_published(client, include_str!("../sql/unpublished.sql")).await?;
    let found: Vec<Candidate> =
        self::rows(client, "list the tables that are not published", &sql, &[&publication]).await?;
    let taken = found.into_iter().filter_map(|candidate| {
        let name = TableName::new(&candidate.schema, &candidate.table);
        let taken = rules.for_table(&name).captured() && (!candidate.extension || names(rules, &name));
        taken.then(|| name.to_string())
    });
    Ok(Uncaptured {
        tables: taken.collect(),
        left: BTreeSet::new(),
        operations: OPERATIONS.into_iter().filter(|name| !publishes.operations.contains(*name)).collect(),
        partitions_by_name: !publishes.via_root,
    })
}

/// The names of `listed`.
pub(super) fn names_of(listed: &[Listed]) -> HashSet<String> {
    listed.iter().map(|listed| listed.name().to_string()).collect()
}
