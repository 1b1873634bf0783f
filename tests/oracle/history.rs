//! `history`: every version of a row, what it changed, its number, who made it and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::asked::{Asked, hidden, text};
use crate::truth::Version;

/// A version as the program tells it.
#[derive(Deserialize)]
pub struct Told<'r> {
    pub position: String,
    pub table_name: String,
    pub event: String,
    pub key: Option<String>,
    pub old_key: Option<String>,
    pub xid: i64,
    pub actor_id: Option<String>,
    pub reason: Option<String>,
    pub context: Option<Value>,
    #[serde(borrow)]
    pub changes: Option<BTreeMap<String, (&'r RawValue, &'r RawValue)>>,
    #[serde(borrow)]
    pub after: Option<BTreeMap<String, &'r RawValue>>,
    #[serde(default)]
    pub version: Option<i64>,
    #[serde(default)]
    pub row: Option<i64>,
    #[serde(default)]
    pub derived: Vec<String>,
    #[serde(default)]
    pub unknown_why: BTreeMap<String, String>,
}

/// Asks for the history of every key of every table.
pub fn ask(asked: &mut Asked<'_>) {
    let truth = asked.truth;
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for version in &truth.versions {
        keys.extend(version.key.iter().chain(&version.old_key).map(|key| (version.table.as_str(), key.as_str())));
    }
    for (table, key) in keys {
        if asked.dice.one_in(3) || table == "public.items" {
            of(asked, table, key);
        }
    }
}

fn of(asked: &mut Asked<'_>, table: &str, key: &str) {
    let question = ["history", table, key, "--json", "--all", "--limit", "10000"];
    let answer = asked.ask(&question);
    let mut expected = asked.truth.history(table, key);
    let mut rows: Vec<i64> = Vec::new();
    for version in &expected {
        rows.extend(version.row.filter(|row| !rows.contains(row)));
    }
    expected.reverse();
    if answer.code != 0 || answer.out.lines().count() != expected.len() {
        let what = format!(
            "{} versions and not {}, exit code {}: {}\n{}",
            answer.out.lines().count(),
            expected.len(),
            answer.code,
            answer.err,
            lines(&answer.out, &expected)
        );
        return asked.blame(&question, [what]);
    }
    for (line, version) in answer.out.lines().zip(expected) {
        let told: Told = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let row = version.row.and_then(|row| rows.iter().position(|other| *other == row)).map(|at| at as i64 + 1);
        let numbered = [("version", told.version, version.number), ("row", told.row, row)];
        let mut wrong: Vec<String> = numbered
            .into_iter()
            .filter(|(_, told, expected)| told != expected)
            .map(|(what, told, expected)| format!("{what} {told:?} and not {expected:?}"))
            .collect();
        wrong.extend(about(&told, version));
        wrong.extend(changes(asked, &told, version));
        asked.count("versions");
        let place = format!("line {} ({} of {:?}, xid {})", version.n, version.event, version.key, version.xid);
        asked.blame(&question, wrong.into_iter().map(|what| format!("{place}: {what}")));
    }
}

/// Both lists, briefly.
fn lines(told: &str, expected: &[&Version]) -> String {
    let told = told.lines().filter_map(|line| serde_json::from_str::<Told>(line).ok());
    let told: Vec<String> = told.map(|told| format!("{}/{}", told.event, told.xid)).collect();
    let expected: Vec<String> = expected.iter().map(|version| format!("{}/{}", version.event, version.xid)).collect();
    format!("   told     {}\n   expected {}", told.join(" "), expected.join(" "))
}

/// What a version says of itself, apart from values.
pub fn about(told: &Told, version: &Version) -> Vec<String> {
    let request = told.context.as_ref().and_then(|context| context["request_id"].as_str()).map(str::to_owned);
    let some = |text: &str| Some(text.to_owned());
    let pairs = [
        ("table", some(&told.table_name), some(&version.table)),
        ("event", some(&told.event), some(&version.event)),
        ("xid", some(&told.xid.to_string()), some(&version.xid.to_string())),
        ("key", told.key.clone(), version.key.clone()),
        ("old key", told.old_key.clone(), version.old_key.clone()),
        ("actor", told.actor_id.clone(), version.actor.clone()),
        ("reason", told.reason.clone(), version.reason.clone()),
        ("request", request, version.request.clone()),
    ];
    let differing = pairs.into_iter().filter(|(_, told, expected)| told != expected);
    differing.map(|(what, told, expected)| format!("{what} {told:?} and not {expected:?}")).collect()
}

/// What it changed. ⚠ What is not known is never different.
fn changes(asked: &mut Asked<'_>, told: &Told, version: &Version) -> Vec<String> {
    let mut wrong = Vec::new();
    let none = BTreeMap::new();
    let changes = told.changes.as_ref().unwrap_or(&none);
    let full = asked.is_full(&version.table);
    wrong.extend((full && !told.derived.is_empty()).then(|| format!("{:?} are derived, and were sent", told.derived)));
    let columns: BTreeSet<&String> = version.old.keys().chain(version.new.keys()).collect();
    let others = changes.keys().chain(told.unknown_why.keys()).filter(|column| !columns.contains(column));
    wrong.extend(others.map(|column| format!("a column {column} that is none of the table's")));
    for column in columns {
        let kind = &version.types;
        let (old, new) = (version.old.get(column).cloned().flatten(), version.new.get(column).cloned().flatten());
        let change = match told.event.as_str() {
            "created" => {
                told.after.as_ref().and_then(|after| after.get(column)).map(|new| (None, text(new, kind, column)))
            }
            _ => changes.get(column).map(|(old, new)| (text(old, kind, column), text(new, kind, column))),
        };
        let hidden = hidden(&version.table, column);
        match (change, told.unknown_why.get(column)) {
            (Some(_), Some(_)) => wrong.push(format!("{column} is both a change and unknown")),
            (Some(_), None) if hidden => asked.count("protected"),
            (Some(change), None)
                if change != (old.clone(), new.clone()) || old == new && version.event == "updated" =>
            {
                wrong.push(format!("{column} is {change:?} and not {:?}", (old, new)));
            }
            (Some(_), None) => asked.count("values"),
            (None, Some(_)) if hidden => asked.count("protected"),
            (None, Some(why)) if full || version.event == "created" || version.sure.contains(column) => {
                wrong.push(format!("{column} is unknown ({why}), although it follows: {:?}", (old, new)));
            }
            (None, Some(_)) => asked.count("unknown"),
            (None, None) if old != new => wrong.push(format!("{column} changed: {:?}", (old, new))),
            (None, None) => {}
        }
    }
    wrong
}
