//! What a row's versions are read with: the table's shapes, and where something is missing.

use std::borrow::Cow;
use std::collections::HashMap;

use audit_core::position::Position;
use audit_core::shape::{ColumnRules, Shape, ShapeColumn};
use audit_core::stored::Record;
use audit_core::table::companion_of;

use super::known::{Known, Why};

/// A place in the stream at which something is missing for every row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    pub position: Position,
    pub why: Why,
}

/// The shapes of one table and the breaks in what was captured of it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// In the order of the stream, which need not be that of their numbers.
    shapes: Vec<Shape>,
    /// In the order of the stream.
    breaks: Vec<Break>,
    /// By schema version: the columns that are called otherwise now, with that name.
    renamed: HashMap<u32, Vec<(String, String)>>,
    /// Whether the versions that are read begin with the first one of each row.
    complete: bool,
}

impl Facts {
    /// `marks` are the `gap` records of the source and the table's `error` records that name no row. `complete` says
    /// that no earlier versions of the row exist than those that are read.
    pub fn new(mut shapes: Vec<Shape>, marks: &[Record], complete: bool) -> Facts {
        shapes.sort_by_key(|shape| (shape.first, shape.schema_version));
        let mut breaks: Vec<Break> = marks.iter().filter_map(Break::of).collect();
        breaks.sort_by_key(|mark| mark.position);
        let renamed = shapes.iter().filter_map(|shape| {
            let renamed = |column: &ShapeColumn| Some((column.name.clone(), newest_name(&shapes, shape, column)?));
            let renamed: Vec<_> = shape.columns.iter().filter_map(renamed).collect();
            (!renamed.is_empty()).then_some((shape.schema_version, renamed))
        });
        let renamed = renamed.collect();
        Facts { shapes, breaks, renamed, complete }
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The newest shape.
    pub fn newest(&self) -> Option<&Shape> {
        self.shapes.last()
    }

    pub fn shape(&self, schema_version: u32) -> Option<&Shape> {
        self.shapes.iter().find(|shape| shape.schema_version == schema_version)
    }

    /// The shape that the table is in at a position.
    pub fn shape_at(&self, at: Position) -> Option<&Shape> {
        let passed = self.shapes.partition_point(|shape| shape.first <= at);
        self.shapes.get(passed.saturating_sub(1))
    }

    /// The columns that a shape tracks, under the names that they have now, in the table's order.
    pub fn tracked(&self, shape: &Shape) -> Vec<String> {
        let own = || shape.columns.iter().map(|column| &column.name);
        let stored: Vec<&String> = match &shape.rules {
            Some(rules) => rules.columns.keys().collect(),
            None => own().collect(),
        };
        let mut shown: Vec<String> =
            stored.into_iter().map(|name| self.shown(shape.schema_version, name).into_owned()).collect();
        shown.sort_by_cached_key(|column| self.place(column));
        shown
    }

    /// The shapes that begin after `from` and not after `to`.
    pub(super) fn shapes_between(&self, from: Position, to: Position) -> &[Shape] {
        between(&self.shapes, |shape| shape.first, from, to)
    }

    /// The first break after `from` and not after `to`.
    pub(super) fn break_between(&self, from: Position, to: Position) -> Option<Why> {
        let lost = between(&self.breaks, |mark| mark.position, from, to).first().map(|mark| mark.why);
        lost.or((from.epoch != to.epoch).then_some(Why::Epoch))
    }

    /// Whether nothing between two positions makes a value unknown, or a column another one.
    pub fn is_calm(&self, from: Position, to: Position) -> bool {
        self.break_between(from, to).is_none() && self.shapes_between(from, to).is_empty()
    }

    /// The name that a column of a shape has now. A column that was dropped keeps its last name, unless another column
    /// has taken it.
    pub fn shown<'n>(&self, schema_version: u32, stored: &'n str) -> Cow<'n, str> {
        self.translated(schema_version, stored, |(from, to)| (from, to))
    }

    /// The name under which a shape has the column that is called `shown` now.
    pub fn stored<'n>(&self, schema_version: u32, shown: &'n str) -> Cow<'n, str> {
        self.translated(schema_version, shown, |(from, to)| (to, from))
    }

    /// Whether columns of a shape are called otherwise now.
    pub fn renames(&self, schema_version: u32) -> bool {
        self.renamed.contains_key(&schema_version)
    }

    fn translated<'n>(
        &self,
        schema_version: u32,
        name: &'n str,
        way: impl Fn(&(String, String)) -> (&String, &String),
    ) -> Cow<'n, str> {
        let Some(renamed) = self.renamed.get(&schema_version) else { return Cow::Borrowed(name) };
        let find = |name: &str| renamed.iter().map(&way).find(|(from, _)| *from == name).map(|(_, to)| to);
        let companion = || {
            let base = companion_of(name)?;
            Some(format!("{}{}", find(base)?, name.strip_prefix(base)?))
        };
        find(name).cloned().or_else(companion).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// The rules of the column that is called `shown` now, in a shape.
    pub fn rules(&self, schema_version: u32, shown: &str) -> Option<&ColumnRules> {
        rules_of(self.shape(schema_version)?, &self.stored(schema_version, shown))
    }

    /// The columns of a shape that are not tracked, under the names that they have now.
    pub fn untracked(&self, schema_version: u32) -> Vec<String> {
        let Some((shape, rules)) = self.shape(schema_version).and_then(|shape| Some((shape, shape.rules.as_ref()?)))
        else {
            return Vec::new();
        };
        let untracked = shape.columns.iter().filter(|column| !rules.columns.contains_key(&column.name));
        untracked.map(|column| self.shown(schema_version, &column.name).into_owned()).collect()
    }

    /// The place of a column that is called `shown`: that of the newest shape, others after all of it.
    pub fn place(&self, shown: &str) -> (usize, String) {
        let columns = self.newest().map(|shape| shape.columns.as_slice()).unwrap_or_default();
        let at = |name: &str| columns.iter().position(|column| column.name == name);
        let at = at(shown).or_else(|| companion_of(shown).and_then(at)).unwrap_or(usize::MAX);
        (at, shown.to_owned())
    }
}

/// What is known of a value, for programs; `None` for one that a version states.
pub fn knowledge(facts: &Facts, schema_version: u32, column: &str, known: &Known) -> Option<String> {
    let protection = facts.rules(schema_version, column).and_then(|rules| rules.protection.as_ref());
    match (known, protection) {
        (Known::Unknown(why), _) => Some(format!("unknown:{}", why.name())),
        (_, Some(protection)) => Some(format!("protected:{}", protection.method.name())),
        (Known::Derived(_), None) => Some("derived".to_owned()),
        (Known::Stated(_), None) => None,
    }
}

fn between<T>(list: &[T], place: impl Fn(&T) -> Position, from: Position, to: Position) -> &[T] {
    let start = list.partition_point(|item| place(item) <= from);
    let end = list.partition_point(|item| place(item) <= to);
    list.get(start..end).unwrap_or_default()
}

impl Break {
    fn of(record: &Record) -> Option<Break> {
        let why = match record.event.as_str() {
            "gap" => Why::Gap(record.position),
            "error" => Why::Error(record.position),
            _ => return None,
        };
        Some(Break { position: record.position, why })
    }
}

/// The present name of a column, if it is not the one that the shape has.
fn newest_name(shapes: &[Shape], shape: &Shape, column: &ShapeColumn) -> Option<String> {
    let newest = shapes.last().filter(|newest| newest.oid.is_some() && newest.oid == shape.oid)?;
    let numbered = |shape: &'_ Shape| shape.columns.iter().position(|other| other.attnum == column.attnum);
    let last = |other: &Shape| numbered(other).map(|at| other.columns[at].name.clone());
    column.attnum?;
    let last = shapes.iter().rev().filter(|other| other.oid == shape.oid).find_map(last)?;
    let taken = newest.column(&last).is_some_and(|now| now.attnum.is_some() && now.attnum != column.attnum);
    match taken {
        true => Some(format!("{last} (dropped)")),
        false => (last != column.name).then_some(last),
    }
}

/// The rules of a column of a shape; of a companion those of its own.
pub(super) fn rules_of<'s>(shape: &'s Shape, stored: &str) -> Option<&'s ColumnRules> {
    shape.rules.as_ref()?.columns.get(stored)
}

/// Whether the whole old row was sent in this shape.
pub(super) fn is_full(shape: &Shape) -> bool {
    !shape.columns.is_empty() && shape.columns.iter().all(|column| column.in_identity)
}

/// The name, in `next`, of the column that is called `stored` in `shape`: the same one, with the same type.
pub(super) fn same_column(shape: &Shape, next: &Shape, stored: &str) -> Option<String> {
    if shape.schema_version == next.schema_version {
        return Some(stored.to_owned());
    }
    let companion = companion_of(stored).filter(|_| shape.column(stored).is_none());
    let column = shape.column(companion.unwrap_or(stored))?;
    let is_same = |other: &&ShapeColumn| {
        let number = column.attnum.is_some() && column.attnum == other.attnum;
        number && (column.type_oid, column.typmod, &column.kind) == (other.type_oid, other.typmod, &other.kind)
    };
    let same = next.columns.iter().find(is_same).filter(|_| shape.oid.is_some() && shape.oid == next.oid)?;
    match companion {
        Some(base) => Some(format!("{}{}", same.name, stored.strip_prefix(base)?)),
        None => Some(same.name.clone()),
    }
}
