//! What has to be known about a table to read it: [`Described`].

use audit_core::shape::{Relation, TableName};
use postgres_protocol::escape::escape_identifier;
use serde::Deserialize;
use tokio_postgres::Client;

use super::error::BaselineError;
use super::files;
use super::key::{self, Access, access};
use super::store::{Description, Kind};
use crate::catalog::{self, PublishedTable};
use crate::query::rows;

/// A table as it is now.
pub(super) struct Described {
    pub table: PublishedTable,
    pub relation: Relation,
    pub digest: String,
    pub rows: Rows,
}

/// How its rows are read.
pub(super) struct Rows {
    pub access: Access,
    /// Names of the columns, in the relation's order.
    pub columns: Vec<String>,
    /// The publication's row filter, as SQL.
    pub filter: Option<String>,
    /// What the bounds depend on.
    pub identity: Vec<String>,
    /// The table's name, quoted.
    pub name: String,
    /// The table whose files hold the rows: the table itself, or a partition; 0 if there is none.
    pub oid: u32,
    /// The partition to which the baseline is limited.
    pub part: Option<String>,
    partitioned: bool,
}

/// A name quoted as in SQL.
pub(super) fn quoted(name: &TableName) -> String {
    format!("{}.{}", escape_identifier(&name.schema), escape_identifier(&name.table))
}

/// The prefix of the partition in the identity of a baseline that is limited to one.
const PART: &str = "partition ";

/// The entry in a baseline's identity that limits it to the rows of this partition.
pub(super) fn part_identity(part: &str) -> String {
    format!("{PART}{part}")
}

/// The partition to which a baseline is limited: its oid, then the transactions that attached it.
pub(super) fn part_of(identity: &[String]) -> Option<&str> {
    identity.first()?.strip_prefix(PART)
}

/// Describes the table, limited to `part` if that is given. Returns `None` if the table does not exist.
pub(super) async fn describe(
    client: &Client,
    publication: &str,
    oid: u32,
    part: Option<&str>,
) -> Result<Option<Described>, BaselineError> {
    let Some(table) = catalog::table(client, publication, oid).await? else { return Ok(None) };
    let relation = table.relation();
    let mut rows = Rows {
        access: access(client, &table).await?,
        columns: relation.columns.iter().map(|column| column.name.clone()).collect(),
        filter: table.row_filter.clone(),
        identity: part.map(part_identity).into_iter().collect(),
        name: quoted(&table.name),
        oid,
        part: part.map(str::to_owned),
        partitioned: table.catalog.partitioned,
    };
    if let Some(part) = part {
        rows.limit_to(find_part(client, oid, part).await?);
    }
    rows.identity.extend(match &rows.access {
        Access::Key(parts) => key::identity(parts),
        Access::Ctid => files::identity(&files::files(client, rows.oid, false).await?),
    });
    Ok(Some(Described { digest: relation.digest(), relation, table, rows }))
}

#[derive(Deserialize)]
struct Named {
    schema: String,
    table: String,
}

/// The partition, if it is still one of table `root`.
async fn find_part(client: &Client, root: u32, part: &str) -> Result<Option<(u32, TableName)>, BaselineError> {
    let oid: u32 = part.split(' ').next().and_then(|oid| oid.parse().ok()).unwrap_or_default();
    let sql = include_str!("../sql/partition.sql");
    let found: Option<Named> = rows(client, "look for a partition", sql, &[&root, &oid]).await?.pop();
    Ok(found.map(|found| (oid, TableName::new(found.schema, found.table))))
}

impl Described {
    pub fn kind(&self) -> Kind {
        match self.rows.access {
            Access::Key(_) => Kind::Key,
            Access::Ctid => Kind::Ctid,
        }
    }

    /// The key as columns of the relation.
    pub fn key(&self) -> Option<Vec<usize>> {
        match &self.rows.access {
            Access::Key(parts) => Some(parts.iter().map(|part| part.column).collect()),
            Access::Ctid => None,
        }
    }

    /// Whether the bounds of a baseline still serve.
    pub fn fits(&self, stored: &Description) -> bool {
        stored.kind == Some(self.kind())
            && match self.rows.access {
                Access::Key(_) => stored.identity == self.rows.identity,
                // The files are compared when they are read.
                Access::Ctid => stored.snapshot.is_some(),
            }
    }

    /// Whether the table is still the same, as seen by the transaction that reads it.
    pub async fn still_holds(&self, client: &Client, publication: &str) -> Result<bool, BaselineError> {
        let now = catalog::table(client, publication, self.table.catalog.oid).await?;
        Ok(now.is_some_and(|now| now == self.table))
    }
}

impl Rows {
    /// A partition that is no longer one has no rows of the table.
    fn limit_to(&mut self, part: Option<(u32, TableName)>) {
        match part {
            Some((oid, name)) => (self.oid, self.name, self.partitioned) = (oid, quoted(&name), false),
            None => (self.oid, self.filter) = (0, Some("false".to_owned())),
        }
    }

    /// The table that holds all rows, if there is only one.
    pub fn single_oid(&self) -> Option<u32> {
        (!self.partitioned).then_some(self.oid)
    }

    /// Rows of tables that inherit from this one do not belong to it; those of its partitions do.
    pub fn from(&self) -> String {
        if self.partitioned { self.name.clone() } else { format!("ONLY {}", self.name) }
    }
}
