//! Shapes: the states a table has been in, as the stream described them.
//!
//! A shape belongs to a stretch of the WAL, not to the catalog of today: what a sink has stored of a shape is never
//! derived again, so that all sinks and every replay agree on names, types, key and `schema_version`.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::position::Position;
use crate::value::Kind;

/// A table's name as captured; partitions go by their root's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> TableName {
        TableName { schema: schema.into(), table: table.into() }
    }
}

/// `schema.table`. A part that holds a dot or a quote is quoted as in SQL, so that no two tables share a name.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in [&self.schema, &self.table].into_iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            if part.is_empty() || part.contains(['.', '"']) {
                write!(f, "{dot}\"{}\"", part.replace('"', "\"\""))?;
            } else {
                write!(f, "{dot}{part}")?;
            }
        }
        Ok(())
    }
}

/// REPLICA IDENTITY as the Relation message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

impl Identity {
    /// From `relreplident`.
    pub fn from_byte(byte: u8) -> Option<Identity> {
        Some(match byte {
            b'd' => Identity::Default,
            b'n' => Identity::Nothing,
            b'f' => Identity::Full,
            b'i' => Identity::Index,
            _ => return None,
        })
    }

    pub fn as_byte(self) -> u8 {
        match self {
            Identity::Default => b'd',
            Identity::Nothing => b'n',
            Identity::Full => b'f',
            Identity::Index => b'i',
        }
    }
}

/// A table's descriptor as pgoutput sends it (Logical Replication Message Formats, Relation).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub name: TableName,
    pub identity: Identity,
    pub columns: Vec<RelationColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// Part of the replica identity; under FULL every column is.
    pub in_identity: bool,
}

impl Relation {
    /// Names this state of the table: equal descriptors, and only they, have equal digests.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(&self.oid.to_be_bytes());
        part(self.name.schema.as_bytes());
        part(self.name.table.as_bytes());
        part(&[self.identity.as_byte()]);
        for column in &self.columns {
            part(column.name.as_bytes());
            part(&column.type_oid.to_be_bytes());
            part(&column.typmod.to_be_bytes());
            part(&[u8::from(column.in_identity)]);
        }
        hex::encode(&hash.finalize()[..16])
    }
}

/// Where a shape's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The catalog's primary key; its columns equalled the Relation's when it was read.
    Catalog,
    /// The columns that the Relation message marks.
    Identity,
    /// The shape before had it and its columns still exist; the catalog had already moved on.
    Carried,
    /// The table has none.
    None,
}

/// One state of a table. Stored by every sink in this form (JSON), in the batch that first uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub schema: String,
    pub table: String,
    /// Counts the table's shapes, from 1.
    pub schema_version: u32,
    pub digest: String,
    /// The first change seen in this shape.
    pub first: Position,
    pub columns: Vec<ShapeColumn>,
    /// Names of the key's columns, in key order; empty for a table that has none.
    pub key: Vec<String>,
    pub key_source: KeySource,
    /// Whether an old row in the stream is whole. Under FULL it is, unless a partition has another identity
    /// than the root that labels its rows: then NULL may stand for "not sent".
    pub whole_old_rows: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// The type as the catalog prints it; the OID as text where it was gone already.
    pub type_name: String,
    #[serde(with = "as_text")]
    pub kind: Kind,
    /// `pg_attribute.attnum`, where the catalog matched the stream.
    pub attnum: Option<i16>,
    /// Part of the replica identity: an old row that holds only the identity has a value for it.
    pub in_identity: bool,
}

impl Shape {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::value::Kind;

    pub fn serialize<S: Serializer>(kind: &Kind, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(kind)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Kind, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What the catalog says of a table now. It counts only where its columns equal the Relation's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTable {
    pub oid: u32,
    pub columns: Vec<CatalogColumn>,
    /// Attribute numbers of the primary key, in key order.
    pub primary_key: Vec<i16>,
    /// Of a partitioned table: whether all of its leaves have REPLICA IDENTITY FULL. True for others.
    pub leaves_full: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogColumn {
    pub name: String,
    pub attnum: i16,
    pub type_oid: u32,
    pub typmod: i32,
    pub type_name: String,
    /// Resolved through domains and array element types.
    pub kind: Kind,
    /// The stream has it: a publication may leave columns out.
    pub published: bool,
}

/// All shapes known of one table, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    shapes: Vec<std::sync::Arc<Shape>>,
}

impl History {
    /// Takes in a shape that a sink has stored. Sinks agree, so one that is known changes nothing.
    pub fn restore(&mut self, shape: Shape) {
        if let Err(at) = self.shapes.binary_search_by_key(&shape.schema_version, |s| s.schema_version) {
            self.shapes.insert(at, std::sync::Arc::new(shape));
        }
    }

    /// The shape that holds at `position` if it is the one that `digest` names.
    pub fn find(&self, digest: &str, position: Position) -> Option<&std::sync::Arc<Shape>> {
        self.shapes.iter().rev().find(|shape| shape.first <= position).filter(|shape| shape.digest == digest)
    }

    pub fn latest(&self) -> Option<&std::sync::Arc<Shape>> {
        self.shapes.last()
    }

    /// Adds the shape that `relation` shows from `first` on. `catalog` is what a look-up found, if anything.
    pub fn add(
        &mut self,
        relation: &Relation,
        catalog: Option<&CatalogTable>,
        first: Position,
    ) -> std::sync::Arc<Shape> {
        let catalog = catalog.filter(|table| matches(table, relation));
        let (key, key_source) = key_of(relation, catalog, self.latest().map(|shape| shape.as_ref()));
        let columns = relation.columns.iter().map(|column| shape_column(column, catalog, self.latest())).collect();
        let shape = std::sync::Arc::new(Shape {
            schema: relation.name.schema.clone(),
            table: relation.name.table.clone(),
            schema_version: self.latest().map_or(1, |shape| shape.schema_version + 1),
            digest: relation.digest(),
            first,
            columns,
            key,
            key_source,
            // An unknown catalog decides for caution only where it could matter: old rows of a plain table are whole under FULL.
            whole_old_rows: relation.identity == Identity::Full && catalog.is_none_or(|table| table.leaves_full),
        });
        self.shapes.push(shape.clone());
        shape
    }
}

/// Whether the catalog still describes the table as the stream does: column for column, of those that are published.
fn matches(catalog: &CatalogTable, relation: &Relation) -> bool {
    let published = catalog.columns.iter().filter(|c| c.published).map(|c| (&c.name, c.type_oid, c.typmod));
    catalog.oid == relation.oid && published.eq(relation.columns.iter().map(|c| (&c.name, c.type_oid, c.typmod)))
}

fn key_of(relation: &Relation, catalog: Option<&CatalogTable>, last: Option<&Shape>) -> (Vec<String>, KeySource) {
    let has = |name: &String| relation.columns.iter().any(|c| c.name == *name);
    let marked: Vec<String> = relation.columns.iter().filter(|c| c.in_identity).map(|c| c.name.clone()).collect();
    let primary: Option<Vec<String>> = catalog.and_then(|table| {
        let names = table
            .primary_key
            .iter()
            .map(|attnum| table.columns.iter().find(|c| c.attnum == *attnum).map(|c| c.name.clone()));
        names.collect::<Option<Vec<_>>>().filter(|names| !names.is_empty() && names.iter().all(has))
    });
    let carried = || last.map(|shape| &shape.key).filter(|key| !key.is_empty() && key.iter().all(has)).cloned();
    match relation.identity {
        // An old row holds the identity's columns alone: a primary key outside them would be unknown in every deletion.
        Identity::Default | Identity::Index => match primary {
            Some(primary) if primary.len() == marked.len() && primary.iter().all(|n| marked.contains(n)) => {
                (primary, KeySource::Catalog)
            }
            _ if marked.is_empty() => match primary {
                Some(primary) => (primary, KeySource::Catalog),
                None => (Vec::new(), KeySource::None),
            },
            _ => match carried().filter(|key| key.len() == marked.len() && key.iter().all(|n| marked.contains(n))) {
                Some(key) => (key, KeySource::Carried),
                None => (marked, KeySource::Identity),
            },
        },
        Identity::Full | Identity::Nothing => match (primary, catalog) {
            (Some(primary), _) => (primary, KeySource::Catalog),
            (None, Some(_)) => (Vec::new(), KeySource::None),
            (None, None) => match carried() {
                Some(key) => (key, KeySource::Carried),
                None => (Vec::new(), KeySource::None),
            },
        },
    }
}

fn shape_column(
    column: &RelationColumn,
    catalog: Option<&CatalogTable>,
    last: Option<&std::sync::Arc<Shape>>,
) -> ShapeColumn {
    let known = catalog.and_then(|table| table.columns.iter().find(|c| c.name == column.name));
    // A type keeps its meaning under its OID: what the shape before knew of it still holds.
    let before = last
        .and_then(|shape| shape.columns.iter().find(|c| c.type_oid == column.type_oid && c.typmod == column.typmod));
    let kind = known.map(|c| c.kind.clone()).or_else(|| Kind::of(column.type_oid, column.typmod));
    ShapeColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        typmod: column.typmod,
        type_name: known
            .map(|c| c.type_name.clone())
            .or_else(|| before.map(|c| c.type_name.clone()))
            .unwrap_or_else(|| column.type_oid.to_string()),
        kind: kind.or_else(|| before.map(|c| c.kind.clone())).unwrap_or(Kind::Text),
        attnum: known.map(|c| c.attnum),
        in_identity: column.in_identity,
    }
}
