//! Shapes: the states that a table has been in, as the stream described them.
//!
//! A shape belongs to a stretch of the WAL, not to today's catalog. When the stream passes the same place again, the
//! key and the `schema_version` that a sink has stored are used, so that all sinks and every replay agree on them.
//! Columns and types are never taken from a sink: protection depends on them, and others may write to a sink.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::position::Position;
use crate::value::Kind;

pub use self::history::{Former, History};
pub use self::names::{ColumnNames, Rename};
pub use self::rules::{ColumnProtection, ColumnRules, InsideRules, ShapeRules};

mod history;
mod names;
mod rules;

/// A table's name as captured; a partition has the name of its root.
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

/// `schema.table`. A part that contains a dot or a quote is quoted as in SQL, so that no two tables share a name.
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

/// REPLICA IDENTITY as the Relation message states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

impl Identity {
    /// Converts from `relreplident`.
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
    /// Whether it is part of the replica identity; under FULL every column is.
    pub in_identity: bool,
}

impl Relation {
    /// Identifies this state of the table: equal descriptors, and only they, have equal digests.
    pub fn digest(&self) -> String {
        let mut parts = Parts::default();
        parts.add(&self.oid.to_be_bytes());
        parts.add(self.name.schema.as_bytes());
        parts.add(self.name.table.as_bytes());
        parts.add(&[self.identity.as_byte()]);
        for column in &self.columns {
            parts.add(column.name.as_bytes());
            parts.add(&column.type_oid.to_be_bytes());
            parts.add(&column.typmod.to_be_bytes());
            parts.add(&[u8::from(column.in_identity)]);
        }
        parts.digest()
    }
}

/// Where a shape's key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The catalog's primary key; the catalog's columns equalled the Relation's when it was read.
    Catalog,
    /// The columns that the Relation message marks.
    Identity,
    /// The catalog had already changed. The previous shape had this key, or else the catalog has it now, and its
    /// columns exist in this shape.
    Carried,
    /// The table has no key.
    None,
}

/// One state of a table. Stored by every sink in this form (JSON), in the batch that first uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub schema: String,
    pub table: String,
    /// The number of the shape among the table's shapes, from 1. It is 0 until the first version is made in this shape:
    /// a shape without versions is not counted, because no sink would know it when the stream passes again.
    pub schema_version: u32,
    /// Identifies everything that decisions depend on; see [`Shape::digest`]. Earlier releases wrote
    /// [`Relation::digest`].
    pub digest: String,
    /// The position of the first version made in this shape.
    pub first: Position,
    pub columns: Vec<ShapeColumn>,
    /// Names of the key's columns, in key order; empty for a table without a key.
    pub key: Vec<String>,
    pub key_source: KeySource,
    /// The table's oid; `None` in shapes that earlier releases stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<u32>,
    /// Whether the table is partitioned, so that a row can move from one partition to another; `None` if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitioned: Option<bool>,
    /// What was captured in this shape, and how it was protected; `None` in shapes that earlier releases stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<ShapeRules>,
    /// Proves that a daemon of this source made the shape; see [`crate::context::Contexts::seal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeColumn {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    /// The type as the catalog prints it, or the OID as text if the type no longer existed.
    pub type_name: String,
    /// Types that the type consists of, as the catalog prints them: a domain's base, elements of an array, fields of a
    /// row, bounds of a range. They are not stored; the catalog is asked.
    #[serde(skip)]
    pub holds: Vec<String>,
    #[serde(with = "as_text")]
    pub kind: Kind,
    /// `pg_attribute.attnum`, if the catalog matched the stream.
    pub attnum: Option<i16>,
    /// Whether it is part of the replica identity: an old row that contains only the identity has a value for it.
    pub in_identity: bool,
}

impl Shape {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    /// Whether `relation` shows the table in this shape. Nothing that is read back from a sink is used without this
    /// check.
    pub fn is_of(&self, relation: &Relation) -> bool {
        let own = self.columns.iter().map(|c| (&c.name, c.type_oid, c.typmod, c.in_identity));
        let table = match self.oid {
            Some(oid) => oid == relation.oid,
            None => self.digest == relation.digest(),
        };
        table
            && self.name() == relation.name
            && own.eq(relation.columns.iter().map(|c| (&c.name, c.type_oid, c.typmod, c.in_identity)))
    }

    /// Whether both shapes lead to the same decisions.
    fn equals(&self, other: &Shape) -> bool {
        let columns = |shape: &Shape| {
            let column = |c: &ShapeColumn| (c.name.clone(), c.type_oid, c.typmod, c.type_name.clone(), c.kind.clone());
            shape.columns.iter().map(column).collect::<Vec<_>>()
        };
        self.has_numbers_of(other) && self.key == other.key && columns(self) == columns(other)
    }

    /// Whether every column that has a number in both shapes has the same one. ⚠ A column that was dropped and added
    /// again looks the same in the stream, and has the same digest, but a later rename of it is recognised only by its
    /// new number.
    pub fn has_numbers_of(&self, other: &Shape) -> bool {
        self.columns.iter().zip(&other.columns).all(|(a, b)| match (a.attnum, b.attnum) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        })
    }

    /// The [`Shape::digest`] of the shape that `relation` shows.
    fn digest_of(&self, relation: &Relation) -> String {
        let mut parts = Parts::default();
        parts.add(relation.digest().as_bytes());
        self.key.iter().for_each(|name| parts.add(name.as_bytes()));
        for column in &self.columns {
            parts.add(column.type_name.as_bytes());
            parts.add(column.kind.to_string().as_bytes());
        }
        parts.digest()
    }

    /// The same state of the table under these rules: another shape, which is not counted yet.
    pub fn under(&self, rules: ShapeRules, relation: &Relation, first: Position) -> Shape {
        let mut parts = Parts::default();
        parts.add(self.digest_of(relation).as_bytes());
        // A struct of texts and numbers can always be serialised.
        parts.add(serde_json::to_string(&rules).unwrap_or_default().as_bytes());
        Shape { schema_version: 0, digest: parts.digest(), first, rules: Some(rules), seal: None, ..self.clone() }
    }

    /// The text that a seal covers: everything but the seal.
    pub fn unsealed(&self) -> String {
        let plain = Shape { seal: None, ..self.clone() };
        // A struct of texts and numbers can always be serialised.
        serde_json::to_string(&plain).unwrap_or_default()
    }

    /// The same of a table whose columns have other attribute numbers.
    pub fn without_numbers(&self) -> Shape {
        let mut shape = self.clone();
        shape.columns.iter_mut().for_each(|column| column.attnum = None);
        shape
    }

    pub fn column(&self, name: &str) -> Option<&ShapeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A hash over parts, each with its length, so that two different lists of parts never hash the same bytes.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn digest(self) -> String {
        hex::encode(&self.0.finalize()[..16])
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

/// The catalog's present description of a table. It is used only if its columns equal the Relation's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTable {
    pub oid: u32,
    pub partitioned: bool,
    pub columns: Vec<CatalogColumn>,
    /// Attribute numbers of the primary key, in key order.
    pub primary_key: Vec<i16>,
    /// Types of the stream's columns that the table's own columns do not show, because it has changed since or no
    /// longer exists.
    pub types: Vec<CatalogType>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogType {
    pub type_oid: u32,
    pub typmod: i32,
    pub type_name: String,
    /// See [`ShapeColumn::holds`].
    pub holds: Vec<String>,
    pub kind: Kind,
}

impl CatalogTable {
    /// Whether the catalog still describes the table as the stream does, comparing each published column.
    pub fn matches(&self, relation: &Relation) -> bool {
        let published = self.columns.iter().filter(|c| c.published).map(|c| (&c.name, c.type_oid, c.typmod));
        self.oid == relation.oid && published.eq(relation.columns.iter().map(|c| (&c.name, c.type_oid, c.typmod)))
    }

    /// The columns of the primary key.
    fn primary_key(&self) -> Vec<&CatalogColumn> {
        let named = |attnum: &i16| self.columns.iter().find(|c| c.attnum == *attnum);
        self.primary_key.iter().map(named).collect::<Option<Vec<_>>>().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogColumn {
    pub name: String,
    pub attnum: i16,
    pub type_oid: u32,
    pub typmod: i32,
    pub type_name: String,
    /// See [`ShapeColumn::holds`].
    pub holds: Vec<String>,
    /// The kind, resolved through domains and array element types.
    pub kind: Kind,
    /// Whether the stream has the column: a publication may leave columns out.
    pub published: bool,
}
