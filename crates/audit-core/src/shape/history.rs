//! The shapes of one table, and how the next one is found: [`History`].
//!
//! Shapes are remembered in sinks, and others may write to sinks. So what sinks have stored decides only two things:
//! which number a shape has, and which key it had when the stream passed the first time. Columns are compared with the
//! Relation message, and types come from the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{CatalogTable, Identity, KeySource, Relation, RelationColumn, Shape, ShapeColumn};
use crate::context::Author;
use crate::position::Position;
use crate::value::Kind;

/// All known shapes of one table, in the order of the stream.
#[derive(Clone, Debug, Default)]
pub struct History {
    shapes: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    shape: Arc<Shape>,
    author: Author,
}

impl History {
    /// Adds a shape that a sink has stored. Of several shapes with one number the first counts, but one whose author is
    /// known better comes before any other.
    pub fn restore(&mut self, shape: Shape, author: Author) {
        match self.shapes.iter().position(|known| known.shape.schema_version == shape.schema_version) {
            Some(at) if self.shapes[at].author <= author => {}
            Some(at) => {
                self.shapes.remove(at);
                self.insert(Known { shape: Arc::new(shape), author });
            }
            None => self.insert(Known { shape: Arc::new(shape), author }),
        }
    }

    /// ⚠ Shapes are ordered by position in the stream, not by number: a shape that is met again after a restart may get
    /// a higher number than a later one.
    fn insert(&mut self, known: Known) {
        let place = |shape: &Shape| (shape.first, shape.schema_version);
        let at = self.shapes.partition_point(|other| place(&other.shape) <= place(&known.shape));
        self.shapes.insert(at, known);
    }

    /// The shape that was last recorded at or before `position`.
    fn at(&self, position: Position) -> Option<&Known> {
        self.shapes.iter().rev().find(|known| known.shape.first <= position)
    }

    /// The position at which the next shape was recorded.
    pub fn next_after(&self, position: Position) -> Option<Position> {
        self.shapes.iter().map(|known| known.shape.first).find(|first| *first > position)
    }

    /// The shape that `relation` shows at `position`. `catalog` is what a look-up found now, if anything. `again` says
    /// that the stream has passed here before and some sink has what was recorded then, so the key from that time is
    /// used.
    pub fn shape(
        &self,
        relation: &Relation,
        catalog: Option<&CatalogTable>,
        position: Position,
        again: bool,
    ) -> Arc<Shape> {
        let before = self.at(position).map(|known| known.shape.as_ref());
        let now = catalog.filter(|table| table.matches(relation));
        let stored = before.filter(|before| again && before.is_of(relation));
        let (key, key_source) = match stored {
            Some(stored) => (stored.key.clone(), stored.key_source),
            None => key_of(relation, catalog, before),
        };
        let mut shape = Shape {
            schema: relation.name.schema.clone(),
            table: relation.name.table.clone(),
            schema_version: 0,
            digest: String::new(),
            first: position,
            columns: relation.columns.iter().map(|column| self.column(column, catalog, now, position)).collect(),
            key,
            key_source,
            oid: Some(relation.oid),
            // A table stays one, or stays none, as long as it has its oid.
            partitioned: catalog.filter(|table| table.oid == relation.oid).map(|table| table.partitioned),
            rules: None,
            seal: None,
        };
        shape.digest = shape.digest_of(relation);
        if let Some(before) = before.filter(|before| before.is_of(relation) && before.equals(&shape)) {
            shape.schema_version = before.schema_version;
            shape.first = before.first;
            shape.digest.clone_from(&before.digest);
            shape.partitioned = before.partitioned;
            shape.rules.clone_from(&before.rules);
            shape.seal.clone_from(&before.seal);
        }
        Arc::new(shape)
    }

    /// Counts a shape in which a first version is made at `position`. ⚠ It gets the smallest free number: if no sink
    /// has stored the shapes in between, the same numbers are assigned again.
    pub fn number(&mut self, shape: &Shape, position: Position, seal: impl Fn(&Shape) -> Option<String>) -> Arc<Shape> {
        let last = self.at(position);
        // A chunk of a baseline may have counted it meanwhile.
        let same = |known: &Shape| known.digest == shape.digest && known.has_numbers_of(shape);
        if let Some(counted) = last.filter(|known| known.author == Author::Own && same(&known.shape)) {
            return counted.shape.clone();
        }
        let last = last.map_or(0, |known| known.shape.schema_version);
        let used = |number: u32| self.shapes.iter().any(|known| known.shape.schema_version == number);
        let schema_version = (last.saturating_add(1)..).find(|number| !used(*number)).unwrap_or(u32::MAX);
        let mut shape = Shape { schema_version, first: position, seal: None, ..shape.clone() };
        shape.seal = seal(&shape);
        let shape = Arc::new(shape);
        self.insert(Known { shape: shape.clone(), author: Author::Own });
        shape
    }

    /// Makes a shape that is counted at once, for callers that do not follow a stream.
    pub fn add(&mut self, relation: &Relation, catalog: Option<&CatalogTable>, first: Position) -> Arc<Shape> {
        let shape = self.shape(relation, catalog, first, false);
        if shape.schema_version > 0 { shape } else { self.number(&shape, first, |_| None) }
    }

    /// Every shape, with who made it; those of this process are our own.
    pub fn shapes(&self) -> impl Iterator<Item = (&Arc<Shape>, Author)> {
        self.shapes.iter().map(|known| (&known.shape, known.author))
    }

    /// ⚠ The name of a column's type, what the type consists of, and the form of its values come from the catalog, or
    /// from the server's fixed numbers. Otherwise someone could claim that a protected column has a type that no rule
    /// matches; therefore a type that no longer exists counts as every type. Only the form of the values is taken from
    /// a trusted shape, so that a column keeps its form when the stream passes again.
    fn column(
        &self,
        column: &RelationColumn,
        catalog: Option<&CatalogTable>,
        now: Option<&CatalogTable>,
        position: Position,
    ) -> ShapeColumn {
        let known = now.and_then(|table| table.columns.iter().find(|c| c.name == column.name));
        let same = |oid: u32, typmod: i32| oid == column.type_oid && typmod == column.typmod;
        let of_type = catalog.and_then(|table| table.types.iter().find(|t| same(t.type_oid, t.typmod)));
        let trusted = self.at(position).filter(|known| known.author == Author::Own).map(|known| &known.shape);
        let before = trusted.and_then(|shape| shape.columns.iter().find(|c| same(c.type_oid, c.typmod)));
        let named = known.map(|c| &c.type_name).or(of_type.map(|t| &t.type_name));
        let holds = known.map(|c| &c.holds).or(of_type.map(|t| &t.holds));
        let kind = known.map(|c| c.kind.clone()).or_else(|| Kind::of(column.type_oid, column.typmod));
        let kind = kind.or_else(|| of_type.map(|t| t.kind.clone())).or_else(|| before.map(|c| c.kind.clone()));
        ShapeColumn {
            name: column.name.clone(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            type_name: named.cloned().unwrap_or_else(|| column.type_oid.to_string()),
            holds: holds.cloned().unwrap_or_default(),
            kind: kind.unwrap_or(Kind::Text),
            attnum: known.map(|c| c.attnum),
            in_identity: column.in_identity,
        }
    }
}

fn key_of(relation: &Relation, catalog: Option<&CatalogTable>, last: Option<&Shape>) -> (Vec<String>, KeySource) {
    let has = |name: &String| relation.columns.iter().any(|c| c.name == *name);
    let marked: Vec<String> = relation.columns.iter().filter(|c| c.in_identity).map(|c| c.name.clone()).collect();
    let carried = || last.map(|shape| &shape.key).filter(|key| !key.is_empty() && key.iter().all(has)).cloned();
    let names = |table: &CatalogTable| table.primary_key().iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let now = catalog.filter(|table| table.matches(relation));
    let primary = now.map(names).filter(|names| !names.is_empty() && names.iter().all(has));
    match relation.identity {
        // An old row has only the identity's columns: a primary key outside them would be unknown in every deletion.
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
        Identity::Full | Identity::Nothing => match (primary, now) {
            (Some(primary), _) => (primary, KeySource::Catalog),
            (None, Some(_)) => (Vec::new(), KeySource::None),
            // ⚠ Otherwise the rows that are in the WAL from before a migration would never have a key.
            (None, None) => match carried().or_else(|| later_key(relation, catalog?)) {
                Some(key) => (key, KeySource::Carried),
                None => (Vec::new(), KeySource::None),
            },
        },
    }
}

/// The primary key of a table that has changed since, if its columns are in the stream as they are in the catalog.
fn later_key(relation: &Relation, catalog: &CatalogTable) -> Option<Vec<String>> {
    let key = catalog.primary_key();
    let sent = |column: &&super::CatalogColumn| {
        relation.columns.iter().any(|c| c.name == column.name && c.type_oid == column.type_oid)
    };
    let serves = catalog.oid == relation.oid && !key.is_empty() && key.iter().all(sent);
    serves.then(|| key.iter().map(|column| column.name.clone()).collect())
}

/// What earlier shapes of the same table say about its present columns. A column keeps its attribute number under a new
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Earlier names by the present name of the column, the latest first.
    pub names: BTreeMap<String, Vec<String>>,
    /// Columns that no longer exist or have another name, which cannot be decided; each with the columns that it may be
    /// now.
    pub unclear: BTreeMap<String, Vec<String>>,
    /// Columns that a trusted shape had.
    pub seen: BTreeSet<String>,
}

impl Former {
    /// `earlier` are the shapes with the same oid, oldest first, each with whether it is trusted. ⚠ An untrusted one
    /// may still show that a column was protected under another name, because that protects more columns and never
    /// fewer.
    pub fn of<'a>(shape: &Shape, earlier: impl Iterator<Item = (&'a Shape, bool)>) -> Former {
        let numbers: HashMap<i16, &str> =
            shape.columns.iter().filter_map(|column| Some((column.attnum?, column.name.as_str()))).collect();
        let names: HashSet<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
        let numbered = numbers.len() == shape.columns.len();
        let mut former = Former::default();
        // Trusted shapes come first, and among them the latest.
        let (trusted, others): (Vec<_>, Vec<_>) = earlier.partition(|(_, trusted)| *trusted);
        for (other, trusted) in trusted.into_iter().rev().chain(others.into_iter().rev()) {
            if trusted {
                former.seen.extend(other.columns.iter().map(|column| column.name.clone()));
            }
            for column in &other.columns {
                match column.attnum.and_then(|attnum| numbers.get(&attnum)) {
                    Some(now) if *now == column.name => {}
                    Some(now) => former.renamed(now, &column.name),
                    None if names.contains(column.name.as_str()) || numbered && column.attnum.is_some() => {}
                    None => former.lost(shape, other, &column.name),
                }
            }
        }
        former
    }

    /// Adds the names that the table's columns have by now, if the stream lags behind the catalog: an operator who
    /// writes rules for the new names also means what the stream still has under the old ones. ⚠ Only the attribute
    /// number in a trusted shape shows which column it is; without it, it may be any column that has a new name.
    pub fn ahead<'a>(
        &mut self,
        shape: &Shape,
        earlier: impl DoubleEndedIterator<Item = &'a Shape> + Clone,
        catalog: &CatalogTable,
    ) {
        let published = || catalog.columns.iter().filter(|column| column.published);
        for column in shape.columns.iter().filter(|column| published().all(|now| now.name != column.name)) {
            let number = earlier.clone().rev().find_map(|shape| shape.column(&column.name)?.attnum);
            for later in published().filter(|later| shape.column(&later.name).is_none()) {
                match number {
                    Some(number) if number == later.attnum => self.renamed(&column.name, &later.name),
                    Some(_) => {}
                    None => self.unclear.entry(later.name.clone()).or_default().push(column.name.clone()),
                }
            }
        }
    }

    fn renamed(&mut self, now: &str, before: &str) {
        let names = self.names.entry(now.to_owned()).or_default();
        if !names.iter().any(|name| name == before) {
            names.push(before.to_owned());
        }
    }

    fn lost(&mut self, shape: &Shape, other: &Shape, column: &str) {
        let new = || shape.columns.iter().filter(|c| other.column(&c.name).is_none()).map(|c| c.name.clone());
        self.unclear.entry(column.to_owned()).or_insert_with(|| new().collect());
    }
}
