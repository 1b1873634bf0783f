//! Reads versions as changes of the tables that are there now: [`resolve`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use audit_core::json::{members, unquote};
use audit_core::position::Position;
use audit_core::rules::{Rules, TableRules, UndoRule};
use audit_core::shape::{ColumnRules, Shape, ShapeColumn};
use audit_core::stored::{Json, Record};
use audit_core::value::Kind;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use crate::catalog::{Catalog, Table};
use crate::net::{Cell, Change, Event};
use crate::text::text_of;
use crate::{Error, Refusal};

/// Versions, oldest first, and the shapes of their tables by name.
pub struct Trail {
    pub records: Vec<Record>,
    pub shapes: HashMap<String, Vec<Shape>>,
    /// What is derived of versions without old values.
    pub derived: HashMap<Position, Derived>,
}

/// Old values that earlier versions of the row have, by the names that the columns have in the table's
/// latest shape. A column that it does not
/// name was not changed by an update.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// JSON texts, as stored.
    pub old: HashMap<String, String>,
    /// Columns of which it is not known, and why.
    pub unknown: HashMap<String, String>,
}

/// The changes, the tables, and the columns that are not there any more.
pub struct Resolved {
    pub changes: Vec<Change>,
    pub catalog: Catalog,
    /// By table.
    pub dropped: BTreeMap<String, BTreeSet<String>>,
}

/// Finds the tables and columns of versions in the database. Columns are followed through renames by their numbers.
///
/// # Errors
/// Fails if the server cannot be asked, or if a version cannot be undone.
pub async fn resolve(client: &Client, trail: &Trail, rules: &Rules) -> Result<Resolved, Error> {
    let mut found = Resolved { changes: Vec::new(), catalog: Catalog::default(), dropped: BTreeMap::new() };
    for record in &trail.records {
        let event = event(record)?;
        let shapes = trail.shapes.get(&record.table_name);
        let shape = shapes.and_then(|shapes| shapes.iter().find(|shape| shape.schema_version == record.schema_version));
        let shape = shape.ok_or_else(|| {
            Refusal::new(format!("the trail does not have the columns of {} at {}", record.table_name, record.position))
        })?;
        let place = found.catalog.add(client, shape).await?;
        let place = place
            .ok_or_else(|| Refusal::new(format!("there is no table {} in the database any more", record.table_name)))?;
        let rules = rules.for_table(&shape.name());
        if rules.rule.undo == Some(UndoRule::Never) {
            let what =
                format!("nothing of {} is put back: the configuration has undo = \"never\" for it", record.table_name);
            return Err(Refusal::new(what).into());
        }
        let table = &mut found.catalog.tables[place];
        table.key = key(table, shape, &rules)?;
        table.columns.iter_mut().for_each(|column| column.accompanies = rules.is_ignored_alone(&column.name));
        let lost = found.dropped.entry(table.name.clone()).or_default();
        let derived = trail.derived.get(&record.position);
        let derived = derived.map(|derived| (derived, newest(shapes)));
        found.changes.push(change(record, event, (place, table), (shape, &rules), (derived, lost))?);
    }
    found.dropped.retain(|_, columns| !columns.is_empty());
    found.catalog.read_foreign(client).await?;
    Ok(found)
}

fn event(record: &Record) -> Result<Event, Refusal> {
    let of = format!("version {} of {}", record.position, record.table_name);
    match record.event.as_str() {
        "created" => Ok(Event::Created),
        "updated" | "discarded" | "restored" => Ok(Event::Updated),
        "deleted" => Ok(Event::Deleted),
        "truncated" => Err(Refusal::new(format!("{of} is a TRUNCATE, which recorded no rows"))
            .hint("put rows back one by one with `rollback`")),
        "snapshot" => Err(Refusal::new(format!("{of} is no change: it is what the row was when it was first read"))),
        other => Err(Refusal::new(format!("{of} ({other}) is no change of a row"))),
    }
}

/// The columns of the key as they are called now, each with the kind that it has in stored keys.
fn key(table: &Table, shape: &Shape, rules: &TableRules) -> Result<Vec<(String, Kind)>, Refusal> {
    let names = rules.rule.key.as_ref().unwrap_or(&shape.key);
    if names.is_empty() {
        return Err(Refusal::new(format!("{} has no key, so that a row of it cannot be told from others", table.name)));
    }
    let column = |name: &String| {
        let gone = || Refusal::new(format!("{name}, a column of the key of {}, is not there any more", table.name));
        let column = shape.column(name).ok_or_else(gone)?;
        if withheld(rules, shape, column).is_some() {
            return Err(Refusal::new(format!("{name}, a column of the key of {}, is protected", table.name))
                .hint("without its values a row cannot be found in the source"));
        }
        Ok((now(table, shape, column).ok_or_else(gone)?, column.kind.clone()))
    };
    names.iter().map(column).collect()
}

/// What a column is called now.
fn now(table: &Table, shape: &Shape, column: &ShapeColumn) -> Option<String> {
    let same = |live: &&crate::catalog::Column| match column.attnum.filter(|_| shape.oid == Some(table.oid)) {
        Some(number) => live.attnum == number,
        None => live.name == column.name,
    };
    table.columns.iter().find(same).map(|live| live.name.clone())
}

fn newest(shapes: Option<&Vec<Shape>>) -> Option<&Shape> {
    shapes?.iter().max_by_key(|shape| shape.schema_version)
}

/// What a column is called in the latest shape.
fn told<'s>(latest: &'s Shape, shape: &Shape, column: &'s ShapeColumn) -> &'s String {
    let number = column.attnum.filter(|_| latest.oid.is_some() && latest.oid == shape.oid);
    let same = |of: &&ShapeColumn| number.is_some() && of.attnum == number;
    latest.columns.iter().find(same).map_or(&column.name, |of| &of.name)
}

/// Why a column's values in the trail are not those of the database.
fn withheld(rules: &TableRules, shape: &Shape, column: &ShapeColumn) -> Option<&'static str> {
    if let Some(then) = &shape.rules {
        // ⚠ Rules of today may show what those of that time have masked.
        match then.columns.get(&column.name) {
            None => return Some("not recorded"),
            Some(ColumnRules { protection: Some(protection), .. }) => return Some(protection.method.name()),
            Some(_) => {}
        }
    }
    match rules.methods(column).first() {
        Some(rule) => Some(rule.method.name()),
        None if rules.may_be_lost(column) => Some("perhaps protected under another name"),
        None if !rules.is_recorded(&column.name) => Some("not recorded"),
        None => None,
    }
}

/// Whether protection replaces parts of the column's values, now or when they were recorded.
fn is_searched(rules: &TableRules, shape: &Shape, column: &ShapeColumn) -> bool {
    let then = shape.rules.as_ref().and_then(|rules| rules.columns.get(&column.name));
    rules.inside(column).is_some() || then.is_some_and(|then| then.inside.is_some())
}

const NOT_SENT: &str = "the server did not send it";

fn change(
    record: &Record,
    event: Event,
    (place, table): (usize, &Table),
    (shape, rules): (&Shape, &TableRules),
    (derived, dropped): (Option<(&Derived, Option<&Shape>)>, &mut BTreeSet<String>),
) -> Result<Change, Refusal> {
    let key = record.key.clone().ok_or_else(|| {
        Refusal::new(format!("version {} of {} does not say which row it is about", record.position, table.name))
    })?;
    let sides = Sides::of(record);
    let mut columns = BTreeMap::new();
    for column in &shape.columns {
        let Some((old, new)) = sides.of_column(event, column) else { continue };
        let Some(name) = now(table, shape, column) else {
            dropped.insert(column.name.clone());
            continue;
        };
        let read = |json: Option<&str>| match (withheld(rules, shape, column), json) {
            (Some(why), _) => Cell::Withheld(why),
            (None, Some(json)) => cell(column, json, is_searched(rules, shape, column)),
            (None, None) => Cell::Unknown(NOT_SENT.to_owned()),
        };
        // ⚠ What is derived has the names of the latest shape, which a column that was renamed since does not have.
        let derived = derived
            .map(|(derived, latest)| (derived, latest.map_or(&column.name, |latest| told(latest, shape, column))));
        let Some(old) = older(derived, event, read(old), read) else { continue };
        columns.insert(name, (old, read(new)));
    }
    for column in shape.columns.iter().filter(|column| sides.has_members && rules.expansion(column).is_some()) {
        let why = Cell::Withheld("recorded member by member");
        columns.extend(now(table, shape, column).map(|name| (name, (why.clone(), why.clone()))));
    }
    let position = record.position;
    Ok(Change { position, table: place, event, key, old_key: record.old_key.clone(), columns })
}

/// The old value, with what is derived of it; `None` if the column was not changed.
fn older(
    derived: Option<(&Derived, &String)>,
    event: Event,
    sent: Cell,
    read: impl Fn(Option<&str>) -> Cell,
) -> Option<Cell> {
    let (Some((derived, name)), Cell::Unknown(_)) = (derived, &sent) else { return Some(sent) };
    match (derived.old.get(name), derived.unknown.get(name)) {
        (Some(json), _) => Some(read(Some(json))),
        (None, Some(why)) => Some(Cell::Unknown(why.clone())),
        (None, None) => (event == Event::Deleted).then_some(sent),
    }
}

/// The values of a record by the names that it has.
struct Sides<'r> {
    changes: Option<HashMap<String, [&'r RawValue; 2]>>,
    before: HashMap<String, &'r str>,
    after: HashMap<String, &'r str>,
    /// Some changes are recorded under the names of members of documents.
    has_members: bool,
}

fn image(json: &Option<Json>) -> HashMap<String, &str> {
    let all = json.as_deref().map(|json| members(json.get())).into_iter().flatten();
    all.map(|(name, value)| (unquote(name).into_owned(), value)).collect()
}

impl<'r> Sides<'r> {
    fn of(record: &'r Record) -> Sides<'r> {
        let update = matches!(record.event.as_str(), "updated" | "discarded" | "restored");
        let changes = record.changes.as_deref().filter(|_| update && record.before_known);
        let changes = changes.map(|json| {
            let pair =
                |(name, pair): (&'r str, &'r str)| Some((unquote(name).into_owned(), serde_json::from_str(pair).ok()?));
            members(json.get()).filter_map(pair).collect::<HashMap<_, _>>()
        });
        let named = record.changed.iter().flatten().any(|name| name.contains(['.', ':']));
        let has_members = changes.is_some() && named;
        Sides { changes, before: image(&record.before), after: image(&record.after), has_members }
    }

    /// What the version says about a column; `None` if it did not change it.
    fn of_column(&self, event: Event, column: &ShapeColumn) -> Option<(Option<&str>, Option<&str>)> {
        const NULL: Option<&str> = Some("null");
        let name = column.name.as_str();
        let (before, after) = (self.before.get(name).copied(), self.after.get(name).copied());
        match (event, &self.changes) {
            (Event::Created, _) => Some((NULL, after)),
            (Event::Deleted, _) => Some((before, NULL)),
            (Event::Updated, Some(changes)) => changes.get(name).map(|[old, new]| (Some(old.get()), Some(new.get()))),
            // A value that an update does not send again is one that it did not change.
            (Event::Updated, None) => after.map(|after| (before, Some(after))),
        }
    }
}

fn cell(column: &ShapeColumn, json: &str, is_searched: bool) -> Cell {
    if json.starts_with(r#"{"$too_large""#) {
        return Cell::Unknown("it was too large to be recorded".to_owned());
    }
    match text_of(&column.kind, json) {
        Ok(Some(text)) if is_protected(&text, is_searched) => Cell::Withheld("perhaps protected when it was recorded"),
        Ok(text) => Cell::Known(text),
        Err(()) => Cell::Unknown("it is not stored in its type's form".to_owned()),
    }
}

/// Whether a text looks like what protection leaves of a value. `is_searched`: protection also replaces parts of it.
fn is_protected(text: &str, is_searched: bool) -> bool {
    const WHOLE: [&str; 4] = ["[REDACTED", "hmac-sha256:", "aes256gcm:", "aes-siv:"];
    let masked = || text.contains("***") || WHOLE.iter().any(|mark| text.contains(mark));
    WHOLE.iter().any(|mark| text.starts_with(mark)) || (is_searched && masked())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protection_leaves_is_recognised() {
        for (text, is_searched, expected) in [
            ("[REDACTED]", false, true),
            ("[REDACTED:15chars]", false, true),
            ("hmac-sha256:k1:00", false, true),
            ("aes256gcm:k1:00", false, true),
            ("a text with *** in it", false, false),
            ("card ***1234", true, true),
            ("a plain text", true, false),
        ] {
            assert_eq!(is_protected(text, is_searched), expected, "{text}");
        }
    }
}
