//! What has to be known of a table to read it: [`Described`].

use audit_core::shape::Relation;
use tokio_postgres::Client;

use super::error::BaselineError;
use super::files;
use super::key::{self, Access, access};
use super::read::quoted;
use super::store::{Description, Kind};
use crate::catalog::{self, PublishedTable};

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
    /// Names, in the relation's order.
    pub columns: Vec<String>,
    /// The publication's row filter, as SQL.
    pub filter: Option<String>,
    /// What bounds depend on.
    pub identity: Vec<String>,
    /// Quoted.
    pub name: String,
    partitioned: bool,
}

/// `None` where the table does not exist.
pub(super) async fn describe(client: &Client, publication: &str, oid: u32) -> Result<Option<Described>, BaselineError> {
    let Some(table) = catalog::table(client, publication, oid).await? else { return Ok(None) };
    let access = access(client, &table).await?;
    let identity = match &access {
        Access::Key(parts) => key::identity(parts),
        Access::Ctid => files::identity(&files::files(client, oid).await?),
    };
    let relation = table.relation();
    let rows = Rows {
        access,
        columns: relation.columns.iter().map(|column| column.name.clone()).collect(),
        filter: table.row_filter.clone(),
        identity,
        name: quoted(&table.name),
        partitioned: table.partitioned,
    };
    Ok(Some(Described { digest: relation.digest(), relation, table, rows }))
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

    /// Whether the table is still the same, in the transaction that reads it.
    pub async fn still_holds(&self, client: &Client, publication: &str) -> Result<bool, BaselineError> {
        let now = catalog::table(client, publication, self.table.catalog.oid).await?;
        Ok(now.is_some_and(|now| now == self.table))
    }
}

impl Rows {
    /// Rows of tables that inherit from this one are none of its own; those of its partitions are.
    pub fn from(&self) -> String {
        if self.partitioned { self.name.clone() } else { format!("ONLY {}", self.name) }
    }
}
