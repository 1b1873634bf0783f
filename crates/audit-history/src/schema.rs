//! What a table has looked like: its shapes, and what changed from one to the next ([`steps`]).

use std::collections::BTreeSet;
use std::fmt;

use audit_core::position::Position;
use audit_core::shape::{ColumnNames, ColumnRules, Rename, Shape, ShapeColumn};
use audit_core::table::companion_of;
use serde::Serialize;

/// A shape, and how it differs from the one before.
#[derive(Debug, Serialize)]
pub struct Step {
    pub schema_version: u32,
    /// Of the first version in this shape.
    pub position: Position,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    /// Empty for the first shape.
    pub changes: Vec<Change>,
}

/// A column as it was in a shape.
#[derive(Debug, Serialize)]
pub struct Column {
    pub name: String,
    /// The name that it has now.
    pub now: String,
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it was recorded; `None` if that is not known.
    pub tracked: Option<bool>,
    pub protection: Option<String>,
}

/// What changed from one shape to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The table was made again, or restored: the numbers of its columns say nothing of those before.
    NewTable,
    Added {
        column: String,
        #[serde(rename = "type")]
        type_name: String,
    },
    Dropped {
        column: String,
    },
    /// `declared` by `[[tables.renames]]`; otherwise seen in the catalog.
    Renamed {
        from: String,
        to: String,
        declared: bool,
    },
    Retyped {
        column: String,
        from: String,
        to: String,
    },
    Key {
        from: Vec<String>,
        to: Vec<String>,
    },
    /// Which old values are sent: `full`, or the columns.
    Identity {
        from: String,
        to: String,
    },
    Tracked {
        column: String,
        tracked: bool,
    },
    Protection {
        column: String,
        from: Option<String>,
        to: Option<String>,
    },
    Events {
        from: Vec<String>,
        to: Vec<String>,
    },
    Where {
        from: Option<String>,
        to: Option<String>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        match self {
            Change::NewTable => f.write_str("another table, or restored"),
            Change::Added { column, type_name } => write!(f, "+ {column} {type_name}"),
            Change::Dropped { column } => write!(f, "- {column}"),
            Change::Renamed { from, to, declared: false } => write!(f, "{from} → {to}"),
            Change::Renamed { from, to, declared: true } => write!(f, "{from} → {to} (declared)"),
            Change::Retyped { column, from, to } => write!(f, "{column} {from} → {to}"),
            Change::Key { from, to } => write!(f, "key {} → {}", list(from), list(to)),
            Change::Identity { from, to } => write!(f, "replica identity {from} → {to}"),
            Change::Tracked { column, tracked: true } => write!(f, "{column} recorded from now on"),
            Change::Tracked { column, tracked: false } => write!(f, "{column} no longer recorded"),
            Change::Protection { column, from, to } => {
                write!(f, "{column} protected: {} → {}", or_none(from), or_none(to))
            }
            Change::Events { from, to } => write!(f, "events {} → {}", list(from), list(to)),
            Change::Where { from, to } => write!(f, "where {} → {}", or_none(from), or_none(to)),
        }
    }
}

/// Compares each shape with the one before, in the order of the stream.
pub fn steps(mut shapes: Vec<Shape>, declared: &[Rename]) -> Vec<Step> {
    shapes.sort_by_key(|shape| (shape.first, shape.schema_version));
    let names = ColumnNames::of(&shapes, declared);
    let before = std::iter::once(None).chain(shapes.iter().map(Some));
    let step = |(before, shape): (Option<&Shape>, &Shape)| Step {
        schema_version: shape.schema_version,
        position: shape.first,
        columns: shape.columns.iter().map(|column| Column::of(shape, column, &names)).collect(),
        key: shape.key.clone(),
        changes: before.map(|before| Pair { before, after: shape, names: &names }.changes()).unwrap_or_default(),
    };
    before.zip(&shapes).map(step).collect()
}

impl Column {
    fn of(shape: &Shape, column: &ShapeColumn, names: &ColumnNames) -> Column {
        let rules = shape.rules.as_ref();
        Column {
            name: column.name.clone(),
            now: names.shown(shape.schema_version, &column.name).into_owned(),
            type_name: column.type_name.clone(),
            tracked: rules.map(|rules| rules.columns.contains_key(&column.name)),
            protection: rules.and_then(|rules| protection(rules.columns.get(&column.name)?)),
        }
    }
}

/// How a column is protected; `None` if it is not.
fn protection(rules: &ColumnRules) -> Option<String> {
    let whole = rules.protection.as_ref().map(|protection| match &protection.key {
        Some(key) => format!("{} under {key}", protection.rule),
        None => protection.rule.clone(),
    });
    let inside = rules.inside.as_ref().map(|inside| format!("inside ({})", &inside.digest));
    let parts: Vec<String> = whole.into_iter().chain(inside).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Which old values are sent.
fn identity(shape: &Shape, name: impl Fn(&str) -> String) -> String {
    let sent: Vec<String> =
        shape.columns.iter().filter(|column| column.in_identity).map(|column| name(&column.name)).collect();
    match sent.len() {
        0 => "none".to_owned(),
        count if count == shape.columns.len() => "full".to_owned(),
        _ => sent.join(", "),
    }
}

/// Two shapes of which one follows the other.
struct Pair<'s> {
    before: &'s Shape,
    after: &'s Shape,
    names: &'s ColumnNames,
}

impl Pair<'_> {
    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.is_one_object() {
            changes.push(Change::NewTable);
        }
        let columns = |shape: &Shape| shape.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let after = |name: &String| self.after_of(name).map(|name| (name.clone(), self.after.column(&name)));
        let followed: BTreeSet<String> = columns(self.before).iter().filter_map(|name| self.after_of(name)).collect();
        for column in &self.before.columns {
            match after(&column.name) {
                Some((name, Some(now))) => changes.extend(self.of_column(column, &name, now)),
                _ => changes.push(Change::Dropped { column: column.name.clone() }),
            }
        }
        let new = self.after.columns.iter().filter(|column| !followed.contains(&column.name));
        changes.extend(
            new.map(|column| Change::Added { column: column.name.clone(), type_name: column.type_name.clone() }),
        );
        let key: Vec<String> = self.before.key.iter().filter_map(|name| self.after_of(name)).collect();
        if key != self.after.key {
            changes.push(Change::Key { from: self.before.key.clone(), to: self.after.key.clone() });
        }
        let from = identity(self.before, |name| self.after_of(name).unwrap_or_else(|| name.to_owned()));
        let to = identity(self.after, str::to_owned);
        if from != to {
            changes.push(Change::Identity { from, to });
        }
        changes.extend(self.of_rules());
        changes
    }

    fn is_one_object(&self) -> bool {
        let (before, after) = (self.before, self.after);
        let oids = before.oid.zip(after.oid);
        before.first.epoch == after.first.epoch && oids.is_none_or(|(before, after)| before == after)
    }

    /// The name, after, of a column before.
    fn after_of(&self, name: &str) -> Option<String> {
        let (before, after) = (self.before.schema_version, self.after.schema_version);
        let shown = self.names.shown(before, name);
        let stored = self.names.find(after, &shown)?.into_owned();
        let base = companion_of(&stored).filter(|_| self.after.column(&stored).is_none()).unwrap_or(&stored);
        self.after.column(base).is_some().then_some(stored.clone())
    }

    fn of_column(&self, column: &ShapeColumn, name: &str, now: &ShapeColumn) -> Vec<Change> {
        let mut changes = Vec::new();
        if column.name != name {
            let seen = self.is_one_object() && column.attnum.is_some() && column.attnum == now.attnum;
            changes.push(Change::Renamed { from: column.name.clone(), to: name.to_owned(), declared: !seen });
        }
        if column.type_name != now.type_name {
            let (from, to) = (column.type_name.clone(), now.type_name.clone());
            changes.push(Change::Retyped { column: name.to_owned(), from, to });
        }
        changes
    }

    fn of_rules(&self) -> Vec<Change> {
        let Some((before, after)) = self.before.rules.as_ref().zip(self.after.rules.as_ref()) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        let mut followed = BTreeSet::new();
        for (column, rules) in &before.columns {
            let Some(name) = self.after_of(column) else { continue };
            match after.columns.get(&name) {
                Some(now) if protection(rules) != protection(now) => {
                    let (from, to) = (protection(rules), protection(now));
                    changes.push(Change::Protection { column: name.clone(), from, to });
                }
                Some(_) => {}
                None => changes.push(Change::Tracked { column: name.clone(), tracked: false }),
            }
            followed.insert(name);
        }
        let was_there = |name: &&String| {
            let columns = self.before.columns.iter();
            columns.filter_map(|column| self.after_of(&column.name)).any(|after| after == **name)
        };
        let new = after.columns.keys().filter(|name| !followed.contains(*name)).filter(was_there);
        changes.extend(new.map(|column| Change::Tracked { column: column.clone(), tracked: true }));
        if before.events != after.events {
            changes.push(Change::Events { from: before.events.clone(), to: after.events.clone() });
        }
        if before.filter != after.filter {
            changes.push(Change::Where { from: before.filter.clone(), to: after.filter.clone() });
        }
        changes
    }
}
