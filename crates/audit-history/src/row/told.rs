//! A version as readers are told of it: [`Told`].

use std::collections::{BTreeMap, BTreeSet};

use audit_core::json::{members, unquote};
use audit_core::position::Position;
use audit_core::stored::{Json, Record, json, summary};
use serde::Serialize;
use serde_json::value::RawValue;

use super::facts::Facts;
use super::fold::Version;
use super::undone::{UndoOf, Undone};

/// The record of a version with what was found out about it. It serialises to the record's JSON form with further
/// fields.
#[derive(Clone, Serialize)]
pub struct Told {
    /// Its `changes`, `changed` and `summary` have the old values that are derived.
    #[serde(flatten)]
    pub record: Record,
    /// Counts the row's versions, from 1; null if earlier ones were not read, and for a truncation.
    pub version: Option<u32>,
    /// Counts the rows that had the key, from 1; null for a truncation.
    pub row: Option<u32>,
    pub seconds_since_previous: Option<i64>,
    /// Whether the row was moved to another partition.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
    /// Columns whose old values are derived.
    pub derived: Vec<String>,
    pub derived_from: Option<Position>,
    /// Columns that may have changed, or whose values are not known, and why.
    pub unknown_why: BTreeMap<String, &'static str>,
    /// The versions that it put back.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub undo_of: BTreeSet<Position>,
    /// The version that put it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_by: Option<Position>,
}

impl Told {
    /// `raw` keeps the names that columns had when the version was made.
    pub fn of(facts: &Facts, version: &Version, undone: &Undone, raw: bool) -> Told {
        let schema_version = version.record.schema_version;
        let name = |column: &str| match raw {
            true => facts.stored(schema_version, column).into_owned(),
            false => column.to_owned(),
        };
        Told {
            record: record(facts, version, raw, &name),
            version: version.number,
            row: (version.row > 0).then_some(version.row),
            seconds_since_previous: version.seconds_since_previous(),
            moved: version.moved,
            derived: version.derived().map(&name).collect(),
            derived_from: version.derived_from(),
            unknown_why: version.unknown.iter().map(|(column, why)| (name(column), why.name())).collect(),
            undo_of: UndoOf::of(&version.record).unwrap_or_default().positions,
            undone_by: undone.by(version.record.position),
        }
    }
}

fn record(facts: &Facts, version: &Version, raw: bool, name: &impl Fn(&str) -> String) -> Record {
    let mut record = version.record.clone();
    if facts.renames(record.schema_version) && !raw {
        rename(facts, &mut record);
    }
    let stated = record.before_known && record.changes.is_some();
    if (version.is_update() || record.event == "deleted") && !stated {
        let known = !version.changes.is_empty() || version.unknown.is_empty();
        record.changes = known.then(|| changes(facts, version, name));
        if version.is_update() {
            let changed = || version.changes.iter().map(|change| name(&change.column)).collect();
            record.changed = known.then(changed);
        }
        record.summary = summary(&record.event, record.changes.as_deref(), record.changes.is_some());
    }
    record
}

fn changes(facts: &Facts, version: &Version, name: &impl Fn(&str) -> String) -> Json {
    let mut changes: Vec<_> = version.changes.iter().collect();
    changes.sort_by_cached_key(|change| facts.place(&change.column));
    let side = |known: &super::Known| known.value().unwrap_or(super::Known::NULL).to_owned();
    let change = |change: &&super::Change| {
        let column = serde_json::Value::from(name(&change.column));
        format!("{column}: [{}, {}]", side(&change.old), side(&change.new))
    };
    json(format!("{{{}}}", changes.iter().map(change).collect::<Vec<_>>().join(", ")))
}

/// Gives columns the names that they have now.
fn rename(facts: &Facts, record: &mut Record) {
    let schema_version = record.schema_version;
    let shown = |stored: &str| facts.shown(schema_version, stored).into_owned();
    let objects = [&mut record.changes, &mut record.before, &mut record.after, &mut record.included];
    for object in objects.into_iter().flatten() {
        let member =
            |(name, value): (&str, &str)| format!("{}: {value}", serde_json::Value::from(shown(&unquote(name))));
        let renamed: Vec<String> = members(object.get()).map(member).collect();
        *object = json(format!("{{{}}}", renamed.join(", ")));
    }
    let lists = record.changed.iter_mut().chain([&mut record.unknown, &mut record.carried]);
    lists.flatten().for_each(|name| *name = shown(name));
    record.summary = summary(&record.event, record.changes.as_deref().map(|json: &RawValue| json), record.before_known);
}
