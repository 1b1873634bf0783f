//! The published tables as the catalog describes them now: [`published`], [`table`].
//!
//! Two readers need the same facts. The stream's Relation messages have neither attribute numbers nor, under REPLICA
//! IDENTITY FULL, a primary key: a look-up adds them, and is used only if it agrees with the message. A baseline has no
//! message at all: it makes its shape from [`PublishedTable::relation`], which is, column for column and flag for flag,
//! what pgoutput would send of the table as it is now (`logicalrep_write_attrs` in the server's `proto.c`). So both
//! ways lead to the same digest, and no shape is counted twice.

mod kind;

use std::collections::BTreeSet;

use audit_core::shape::{CatalogColumn, CatalogTable, CatalogType, Identity, Relation, RelationColumn, TableName};
use serde::Deserialize;
use tokio_postgres::Client;

use crate::published::with_published;
use crate::query::{QueryError, major, rows};

/// A table that a publication publishes; for a partitioned one, the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    pub name: TableName,
    pub identity: Identity,
    /// Attribute numbers of the replica identity's index, in its order. Empty under FULL and NOTHING, and if the
    /// default identity finds no primary key that it can use (a deferrable one cannot be used).
    pub identity_key: Vec<i16>,
    /// Whether all leaves of a partitioned table have REPLICA IDENTITY FULL; true for other tables.
    pub leaves_full: bool,
    /// Every column of the table, whether published or not, and the primary key.
    pub catalog: CatalogTable,
    /// Facts about each of `catalog.columns`.
    pub columns: Vec<ColumnFacts>,
    /// Whether the publication names this table's columns one by one.
    pub has_column_list: bool,
    /// The publication's WHERE clause for this table, as SQL.
    pub row_filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnFacts {
    pub generated: Generated,
    /// Whether a large value is stored apart, and not sent if an update leaves it unchanged.
    pub toastable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    No,
    Stored,
    /// Computed when read; PostgreSQL 18 and later.
    Virtual,
}

impl PublishedTable {
    /// The Relation message that pgoutput would send now.
    pub fn relation(&self) -> Relation {
        let published = self.catalog.columns.iter().filter(|column| column.published);
        let columns = published.map(|column| RelationColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            in_identity: self.identity == Identity::Full || self.identity_key.contains(&column.attnum),
        });
        Relation { oid: self.catalog.oid, name: self.name.clone(), identity: self.identity, columns: columns.collect() }
    }

    /// Names of the published columns whose unchanged large values only an old row can supply.
    pub fn toastable(&self) -> impl Iterator<Item = &str> {
        let columns = self.catalog.columns.iter().zip(&self.columns);
        columns.filter(|(column, facts)| column.published && facts.toastable).map(|(column, _)| column.name.as_str())
    }
}

/// Every table of the publication, by name. Empty if the publication does not exist.
///
/// # Errors
/// Returns a [`QueryError`] if the catalog cannot be read.
pub async fn published(client: &Client, publication: &str) -> Result<Vec<PublishedTable>, QueryError> {
    let mut tables = read(client, publication, None, true).await?;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// One table as the publication would publish it; `None` if there is no such table (any more).
///
/// # Errors
/// Returns a [`QueryError`] if the catalog cannot be read.
pub async fn table(client: &Client, publication: &str, oid: u32) -> Result<Option<PublishedTable>, QueryError> {
    Ok(read(client, publication, Some(oid), true).await?.pop())
}

/// What the catalog knows about a relation of the stream: the table, if it still exists, and the types of its columns
/// if the table no longer tells them. ⚠ Types are never taken from a stored shape, because protection depends on them.
///
/// # Errors
/// Returns a [`QueryError`] if the catalog cannot be read.
pub async fn of_relation(client: &Client, publication: &str, relation: &Relation) -> Result<CatalogTable, QueryError> {
    // The row filter is left out: some servers print it only under a lock on the table, and the stream would have to
    // wait for that lock.
    let found = read(client, publication, Some(relation.oid), false).await?.pop().map(|table| table.catalog);
    let gone =
        || CatalogTable { oid: 0, partitioned: false, columns: Vec::new(), primary_key: Vec::new(), types: Vec::new() };
    match found {
        Some(table) if table.matches(relation) => Ok(table),
        found => Ok(CatalogTable { types: types(client, relation).await?, ..found.unwrap_or_else(gone) }),
    }
}

/// The types of a relation's columns, as far as they still exist.
async fn types(client: &Client, relation: &Relation) -> Result<Vec<CatalogType>, QueryError> {
    let (oids, typmods): (Vec<u32>, Vec<i32>) = relation.columns.iter().map(|c| (c.type_oid, c.typmod)).unzip();
    let found: Vec<TypeName> =
        rows(client, "read the types", include_str!("sql/type_names.sql"), &[&oids, &typmods]).await?;
    let kinds = kind::Kinds::read(client, found.iter().map(|found| found.oid)).await?;
    let of = |found: TypeName| CatalogType {
        kind: kinds.of(found.oid, found.typmod),
        holds: kinds.names_in(found.oid),
        type_oid: found.oid,
        typmod: found.typmod,
        type_name: found.name,
    };
    Ok(found.into_iter().map(of).collect())
}

#[derive(Deserialize)]
struct TypeName {
    oid: u32,
    typmod: i32,
    name: String,
}

#[derive(Deserialize)]
struct TableRow {
    oid: u32,
    schema: String,
    table: String,
    partitioned: bool,
    identity: u8,
    generated_published: bool,
    column_list: Option<BTreeSet<i16>>,
    row_filter: Option<String>,
    primary_key: Option<Vec<i16>>,
    identity_key: Option<Vec<i16>>,
    leaves_full: bool,
    columns: Vec<ColumnRow>,
}

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    attnum: i16,
    type_oid: u32,
    typmod: i32,
    type_name: String,
    generated: String,
    toastable: bool,
}

/// Row filters exist since 15. A table that its whole schema brings in has none.
const ROW_FILTER: &str = "(
        SELECT pg_get_expr(r.prqual, r.prrelid)
        FROM pg_publication_rel r
        WHERE r.prrelid = c.oid AND r.prpubid = (SELECT oid FROM publication) AND NOT EXISTS (
            SELECT FROM pg_publication_namespace s WHERE s.pnpubid = r.prpubid AND s.pnnspid = c.relnamespace
        )
    )";

async fn read(
    client: &Client,
    publication: &str,
    oid: Option<u32>,
    with_filter: bool,
) -> Result<Vec<PublishedTable>, QueryError> {
    let what = "read the catalog";
    let major = major(client).await?;
    let row_filter = if major >= 15 && with_filter { ROW_FILTER } else { "NULL" };
    let unfinished_key = if major >= 18 { "c.relkind = 'p' AND i.indisprimary" } else { "false" };
    let sql = with_published(client, include_str!("sql/tables.sql")).await?;
    let sql = sql.replace("{row_filter}", row_filter).replace("{unfinished_key}", unfinished_key);
    let found: Vec<TableRow> = rows(client, what, &sql, &[&publication, &oid]).await?;
    let types: Vec<u32> = found.iter().flat_map(|table| table.columns.iter().map(|column| column.type_oid)).collect();
    let kinds = kind::Kinds::read(client, types.into_iter()).await?;
    Ok(found.into_iter().filter_map(|row| row.build(&kinds)).collect())
}

impl TableRow {
    /// Returns `None` for a replica identity that is unknown to PostgreSQL.
    fn build(self, kinds: &kind::Kinds) -> Option<PublishedTable> {
        let (published, columns): (Vec<bool>, _) = self.columns.iter().map(|column| self.facts(column)).unzip();
        let catalog_column = |(column, published): (ColumnRow, bool)| CatalogColumn {
            kind: kinds.of(column.type_oid, column.typmod),
            holds: kinds.names_in(column.type_oid),
            published,
            name: column.name,
            attnum: column.attnum,
            type_oid: column.type_oid,
            typmod: column.typmod,
            type_name: column.type_name,
        };
        Some(PublishedTable {
            identity: Identity::from_byte(self.identity)?,
            identity_key: self.identity_key.unwrap_or_default(),
            columns,
            has_column_list: self.column_list.is_some(),
            row_filter: self.row_filter,
            catalog: CatalogTable {
                oid: self.oid,
                partitioned: self.partitioned,
                columns: self.columns.into_iter().zip(published).map(catalog_column).collect(),
                primary_key: self.primary_key.unwrap_or_default(),
                types: Vec::new(),
            },
            leaves_full: self.leaves_full,
            name: TableName { schema: self.schema, table: self.table },
        })
    }

    /// Whether the stream has the column (`logicalrep_should_publish_column` of version 18; older servers accept no
    /// generated columns in lists, and publish none), and the other facts about it.
    fn facts(&self, column: &ColumnRow) -> (bool, ColumnFacts) {
        let generated = match column.generated.as_str() {
            "" => Generated::No,
            "v" => Generated::Virtual,
            _ => Generated::Stored,
        };
        let published = match &self.column_list {
            Some(list) => list.contains(&column.attnum),
            None => match generated {
                Generated::No => true,
                Generated::Stored => self.generated_published,
                Generated::Virtual => false,
            },
        };
        (published, ColumnFacts { generated, toastable: column.toastable })
    }
}
