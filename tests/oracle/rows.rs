//! `show`, `as-of`, `diff` and `blame`: rows at a point, what differs between two points, and who set each value.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::asked::{Asked, hidden, text};
use crate::truth::{Row, Version};

#[derive(Deserialize)]
struct Shown<'r> {
    #[serde(default)]
    exists: bool,
    why: Option<String>,
    #[serde(borrow, default)]
    row: BTreeMap<String, &'r RawValue>,
    #[serde(default)]
    knowledge: BTreeMap<String, String>,
    key: Option<String>,
    version: Option<i64>,
}

#[derive(Deserialize)]
struct Diff<'r> {
    #[serde(borrow)]
    changes: BTreeMap<String, (&'r RawValue, &'r RawValue)>,
    same: BTreeSet<String>,
    unknown: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Blamed<'r> {
    column: String,
    version: Option<i64>,
    by: Option<String>,
    reason: Option<String>,
    #[serde(borrow)]
    before: &'r RawValue,
}

/// A point of a row's history: how it is asked for, and the last line of the log that counts.
type Point = (String, i64);

/// Asks about some keys of each table at some points.
pub fn ask(asked: &mut Asked<'_>) {
    let tables: BTreeSet<&str> = asked.truth.versions.iter().map(|version| version.table.as_str()).collect();
    for table in tables {
        as_of(asked, table);
        for _ in 0..2 {
            let keys: Vec<&str> = asked.truth.of(table).filter_map(|version| version.key.as_deref()).collect();
            let key = *asked.dice.pick(&keys);
            let (one, other) = (point(asked, table, key), point(asked, table, key));
            show(asked, table, key, &one);
            diff(asked, table, key, [&one, &other]);
            blame(asked, table, key, &other);
        }
    }
}

/// Now, a moment between two transactions, or the number of a version of the newest row that had the key.
fn point(asked: &mut Asked<'_>, table: &str, key: &str) -> Point {
    let history = asked.truth.history(table, key);
    let newest = history.iter().max_by_key(|version| first(&history, version)).and_then(|version| version.row);
    let own: Vec<(i64, i64)> =
        history.iter().filter(|version| version.row == newest).filter_map(|v| Some((v.number?, v.n))).collect();
    match asked.dice.below(3) {
        0 => ("now".to_owned(), i64::MAX),
        1 => asked.dice.pick(&asked.moments).clone(),
        _ => {
            let (number, n) = *asked.dice.pick(&own);
            (format!("v{number}"), n)
        }
    }
}

/// The first line of the row of a version.
fn first(history: &[&Version], version: &Version) -> Option<i64> {
    let row = version.row?;
    history.iter().find(|other| other.row == Some(row)).map(|first| first.n)
}

fn show(asked: &mut Asked<'_>, table: &str, key: &str, (point, n): &Point) {
    let question = ["show", table, key, "--as-of", point, "--json"];
    let answer = asked.ask(&question);
    let Some(told) = parsed::<Shown<'_>>(&answer.out) else {
        return asked.blame(&question, [format!("no answer: {}", answer.err)]);
    };
    let Some(last) = asked.truth.row(table, key, *n) else {
        let before = asked.truth.history(table, key).into_iter().rfind(|version| version.n <= *n);
        let why = before.map_or("not_yet", |version| version.event.as_str());
        let is_said = (answer.code, told.exists, told.why.as_deref()) == (8, false, Some(why));
        return asked.blame(&question, (!is_said).then(|| format!("it was not there ({why}): {}", answer.out)));
    };
    let mut wrong = Vec::new();
    if (answer.code, told.exists, told.version, &told.key) != (0, true, last.number, &last.key) {
        wrong.push(format!("it was there, version {:?}, key {:?}: {}", last.number, last.key, answer.out));
    }
    wrong.extend(values(asked, last, &told, *n));
    asked.blame(&question, wrong);
}

/// What is wrong with the values of a row after line `n`, of which `last` is the last version.
fn values(asked: &mut Asked<'_>, last: &Version, told: &Shown<'_>, n: i64) -> Vec<String> {
    let (mut wrong, table) = (Vec::new(), last.table.as_str());
    for (column, value) in last.new.iter().filter(|(column, _)| !hidden(table, column)) {
        let stays = asked.truth.stays(last, column, n);
        let known = stays && (asked.is_full(table) || last.known.contains(column));
        match told.row.get(column).map(|json| text(json, &last.types, column)) {
            Some(_) if !stays => wrong.push(format!("{column} was rewritten by a change of its table")),
            Some(told) if told != *value => wrong.push(format!("{column} is {told:?} and not {value:?}")),
            Some(_) => asked.count("values"),
            None if known => {
                wrong.push(format!("{column} is not known ({:?}): {value:?}", told.knowledge.get(column)));
            }
            None => asked.count("unknown"),
        }
    }
    wrong
}

/// All rows of a table at a moment.
fn as_of(asked: &mut Asked<'_>, table: &str) {
    let (moment, n) = asked.dice.pick(&asked.moments).clone();
    let question = ["as-of", &moment, table, "--json"];
    let answer = asked.ask(&question);
    let told = answer.out.lines().map(|line| parsed::<Shown<'_>>(line).expect("a row"));
    let told: BTreeMap<String, Shown<'_>> = told.map(|row| (row.key.clone().unwrap_or_default(), row)).collect();
    let keys: BTreeSet<&String> = asked.truth.of(table).filter_map(|version| version.key.as_ref()).collect();
    let there = |key: &&String| asked.truth.row(table, key, n).filter(|last| last.key.as_ref() == Some(*key));
    let expected: BTreeMap<&String, &Version> = keys.iter().filter_map(|key| Some((*key, there(key)?))).collect();
    let mut wrong = Vec::new();
    if answer.out.lines().count() != expected.len() || !expected.keys().all(|key| told.contains_key(*key)) {
        let rows: Vec<&String> = told.keys().collect();
        wrong.push(format!("{rows:?} and not {:?}: {}", expected.keys(), answer.err));
    }
    for (key, last) in expected {
        let found = told.get(key).map(|told| values(asked, last, told, n));
        wrong.extend(found.into_iter().flatten().map(|what| format!("{key}: {what}")));
    }
    asked.blame(&question, wrong);
}

fn diff(asked: &mut Asked<'_>, table: &str, key: &str, points: [&Point; 2]) {
    let question = ["diff", table, key, &points[0].0, &points[1].0, "--json"];
    let answer = asked.ask(&question);
    let rows = points.map(|(_, n)| asked.truth.row(table, key, *n));
    let Some(told) = parsed::<Diff<'_>>(&answer.out) else {
        let is_said = answer.code == 8 && rows.iter().all(Option::is_none);
        return asked.blame(&question, (!is_said).then(|| format!("no answer: {}", answer.err)));
    };
    let none = Row::new();
    let sides = rows.map(|row| row.map_or(&none, |row| &row.new));
    let columns: BTreeSet<&String> = sides.iter().flat_map(|side| side.keys()).collect();
    let mut wrong = Vec::new();
    for column in columns.into_iter().filter(|column| !hidden(table, column)) {
        let known = |at: usize| {
            rows[at].is_none_or(|row| {
                let has = asked.is_full(table) || row.known.contains(column);
                has && asked.truth.stays(row, column, points[at].1)
            })
        };
        let alike = rows[0].zip(rows[1]).is_none_or(|(a, b)| a.types.get(column) == b.types.get(column));
        let is_known = known(0) && known(1) && alike;
        let [old, new] = sides.map(|side| side.get(column).cloned().flatten());
        let change = told.changes.get(column).map(|(old, new)| {
            let types = |at: usize| rows[at].or(rows[1 - at]).map(|row| row.types.clone()).unwrap_or_default();
            (text(old, &types(0), column), text(new, &types(1), column))
        });
        let told_same = told.same.contains(column);
        match change {
            Some(change) if change != (old.clone(), new.clone()) => {
                wrong.push(format!("{column}: {change:?} and not {:?}", (old, new)));
            }
            Some(_) | None if told_same && old != new => {
                wrong.push(format!("{column} is not the same: {:?}", (old, new)))
            }
            None if !told_same && is_known => {
                wrong.push(format!("{column} is not known ({:?}): {:?}", told.unknown.get(column), (old, new)));
            }
            None if !told_same => asked.count("unknown"),
            _ => asked.count("values"),
        }
    }
    asked.blame(&question, wrong);
}

fn blame(asked: &mut Asked<'_>, table: &str, key: &str, (point, n): &Point) {
    let question = ["blame", table, key, "--as-of", point, "--json"];
    let answer = asked.ask(&question);
    let Some(last) = asked.truth.row(table, key, *n) else {
        let wrong = (answer.code != 8).then(|| format!("it was not there: {}", answer.out));
        return asked.blame(&question, wrong);
    };
    let mut wrong = Vec::new();
    let told: BTreeMap<String, Blamed<'_>> = answer
        .out
        .lines()
        .map(|line| serde_json::from_str::<Blamed<'_>>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .map(|told| (told.column.clone(), told))
        .collect();
    for column in last.new.keys().filter(|column| !hidden(table, column)) {
        let full = asked.is_full(table);
        let Some((setter, true)) = asked.truth.setter(last, column, full) else { continue };
        if !asked.truth.stays(last, column, *n) {
            continue;
        }
        let before = setter.old.get(column).cloned().flatten();
        let expected = (setter.number, setter.actor.clone(), setter.reason.clone(), before);
        let said = told.get(column).map(|told| {
            let before = text(told.before, &setter.types, column);
            (told.version, told.by.clone(), told.reason.clone(), before)
        });
        match said {
            Some(said) if said == expected => asked.count("setters"),
            said => wrong.push(format!("{column} was set by {expected:?} and not {said:?}")),
        }
    }
    asked.blame(&question, wrong);
}

fn parsed<'r, T: Deserialize<'r>>(text: &'r str) -> Option<T> {
    serde_json::from_str(text).ok()
}
