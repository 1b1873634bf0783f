#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use audit_core::stored::{Record, json};
use futures::executor::block_on;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json as value};

use super::pass::{Entry, Pass, Then};
use super::*;
use crate::row::tests::{after, at, facts, later, record, table};

/// More memory than any of these tests needs.
const ROOM: usize = 1 << 30;

fn keyed(key: &str, record: Record) -> Record {
    Record { key: Some(key.to_owned()), ..record }
}

fn image(note: &str) -> Value {
    value!({"id": 1, "note": note, "n": "1", "doc": null})
}

fn created(lsn: u64, key: &str, note: &str) -> Record {
    keyed(key, after(lsn, "created", image(note)))
}

fn updated(lsn: u64, key: &str, note: &str) -> Record {
    keyed(key, after(lsn, "updated", image(note)))
}

fn renamed(lsn: u64, from: &str, to: &str, note: &str) -> Record {
    Record { old_key: Some(from.to_owned()), ..updated(lsn, to, note) }
}

fn deleted(lsn: u64, key: &str) -> Record {
    keyed(key, Record { before: Some(json(r#"{"id": 1}"#.into())), ..record(lsn, "deleted") })
}

fn truncated(lsn: u64) -> Record {
    Record { key: None, ..record(lsn, "truncated") }
}

/// The entries of all passes, and the number of passes.
fn entries(facts: &Facts, records: &[Record], memory: usize, since: Option<u64>) -> (Vec<Entry>, usize) {
    let (mut entries, mut passes, mut from) = (Vec::new(), 0, Some(String::new()));
    let end = records.last().map_or(at(1), |last| last.position);
    while let Some(first) = from {
        let mut pass = Pass::new("public.t", facts, memory, first);
        pass.since = since.map(at);
        let versions = stream::iter(records.iter().cloned().map(Ok)).boxed();
        block_on(pass.read(versions)).unwrap();
        let mut finished = pass.finish(end);
        entries.extend(&mut finished);
        from = finished.left_from;
        passes += 1;
    }
    (entries, passes)
}

fn note(standing: &Standing) -> String {
    let known = &standing.state["note"];
    known.value().map_or_else(|| format!("?{}", known.why().unwrap().name()), |json| json.trim_matches('"').to_owned())
}

/// The rows that exist: `key=note`.
fn rows(facts: &Facts, records: &[Record], memory: usize) -> Vec<String> {
    let shown = |entry: Entry| Some(format!("{}={}", entry.key, note(&entry.now?)));
    entries(facts, records, memory, None).0.into_iter().filter_map(shown).collect()
}

/// What became of rows since a position: `+key`, `-key was`, `key was>is`, `?key`.
fn changes(facts: &Facts, records: &[Record], memory: usize, since: u64) -> Vec<String> {
    let shown = |Entry { key, then, now }: Entry| match (then, now) {
        (Then::Untouched, Some(_)) | (Then::New, None) => None,
        (Then::Untouched, None) => Some(format!("{key}: a row that ended was touched")),
        (Then::Row(was), Some(now)) => Some(format!("{key} {}>{}", note(&was), note(&now))),
        (Then::Row(was), None) => Some(format!("-{key} {}", note(&was))),
        (Then::New, Some(_)) => Some(format!("+{key}")),
        (Then::Unseen, Some(_)) => Some(format!("?{key}")),
        (Then::Unseen, None) => Some(format!("-{key} ?")),
    };
    entries(facts, records, memory, Some(since)).0.into_iter().filter_map(shown).collect()
}

#[test]
fn rows_that_ended_are_absent_and_a_key_that_changed_is_followed() {
    let facts = facts(vec![table()], &[]);
    let mut records = vec![
        created(10, "1", "a"),
        created(11, "2", "b"),
        updated(12, "1", "c"),
        deleted(13, "2"),
        created(14, "2", "again"),
        renamed(15, "1", "9", "moved"),
        created(16, "1", "new"),
        keyed("5", after(17, "snapshot", image("read"))),
    ];
    assert_eq!(rows(&facts, &records, ROOM), ["9=moved", "1=new", "2=again", "5=read"]);
    records.extend([truncated(20), created(21, "3", "z")]);
    assert_eq!(rows(&facts, &records, ROOM), ["3=z"]);
}

#[test]
fn a_value_that_was_not_sent_is_carried_on_or_unknown() {
    let unsent = |lsn, key: &str| {
        let image = value!({"id": 1, "n": "2", "doc": null});
        keyed(key, Record { unknown: vec!["note".into()], ..after(lsn, "updated", image) })
    };
    let facts = facts(vec![table()], &[]);
    let records = [created(10, "1", "large"), unsent(20, "1"), unsent(21, "2")];
    assert_eq!(rows(&facts, &records, ROOM), ["1=large", "2=?toast"]);
}

#[test]
fn what_was_lost_since_a_rows_last_version_makes_it_unknown() {
    let gap = Record { key: None, ..record(15, "gap") };
    let facts = facts(vec![table()], &[gap]);
    let records = [created(10, "1", "a"), created(11, "2", "b"), updated(20, "2", "c")];
    assert_eq!(rows(&facts, &records, ROOM), ["1=?gap", "2=c"]);
    assert_eq!(changes(&facts, &records, ROOM, 12), ["1 a>?gap", "2 b>c"]);
}

#[test]
fn a_column_is_unknown_in_rows_that_were_not_touched_since_it_is_there() {
    let with_column = |shape: &mut Value| {
        let column = value!({"name": "added", "type_oid": 25, "typmod": -1, "type_name": "text", "kind": "text",
            "attnum": 5, "in_identity": false});
        shape["columns"].as_array_mut().unwrap().push(column);
        shape["rules"]["columns"]["added"] = value!({});
    };
    let facts = facts(vec![table(), later(2, 20, with_column)], &[]);
    assert_eq!(facts.tracked(facts.shape_at(at(10)).unwrap()), ["id", "note", "n", "doc"]);
    assert_eq!(facts.tracked(facts.shape_at(at(30)).unwrap()), ["id", "note", "n", "doc", "added"]);
    let (entries, _) = entries(&facts, &[created(10, "1", "a"), created(30, "2", "b")], ROOM, None);
    let standing = entries[0].now.as_ref().unwrap();
    let whole = whole(&facts, standing.clone());
    assert_eq!(whole.state["added"], Known::Unknown(Why::Shape(2)));
    assert_eq!(note(&whole), "a");
}

#[test]
fn changes_between_two_positions_are_told_apart() {
    let facts = facts(vec![table()], &[]);
    let records = [
        created(10, "1", "a"),
        created(11, "2", "b"),
        created(12, "3", "c"),
        created(13, "4", "d"),
        updated(20, "1", "x"),
        updated(21, "1", "y"),
        deleted(22, "2"),
        created(23, "2", "another row"),
        renamed(24, "3", "8", "c"),
        created(25, "6", "short-lived"),
        deleted(26, "6"),
        created(27, "7", "new"),
        updated(28, "9", "never seen before"),
        deleted(29, "99"),
    ];
    let expected = ["1 a>y", "-2 b", "+2", "8 c>c", "+7", "?9", "-99 ?"];
    assert_eq!(changes(&facts, &records, ROOM, 20), expected);
    let emptied: Vec<Record> = records[..6].iter().cloned().chain([truncated(30), created(31, "1", "z")]).collect();
    assert_eq!(changes(&facts, &emptied, ROOM, 20), ["-1 a", "+1", "-2 b", "-3 c", "-4 d"]);
}

#[test]
fn a_row_that_moved_between_partitions_is_one_row() {
    let facts = facts(vec![table()], &[]);
    let next = |record: Record| Record { position: at(20).next(), seq: 1, ..record };
    let records = [created(10, "1", "a"), deleted(20, "1"), next(created(20, "1", "b"))];
    assert_eq!(changes(&facts, &records, ROOM, 15), ["1 a>b"]);
    let apart = [created(10, "1", "a"), deleted(20, "1"), created(21, "1", "b")];
    assert_eq!(changes(&facts, &apart, ROOM, 15), ["-1 a", "+1"]);
}

#[test]
fn versions_without_a_key_are_refused_and_quarantined_ones_are_not() {
    let facts = facts(vec![table()], &[]);
    let read = |record: Record| {
        let mut pass = Pass::new("public.t", &facts, ROOM, String::new());
        block_on(pass.read(stream::iter([Ok(record)]).boxed()))
    };
    assert!(matches!(read(Record { key: None, ..created(10, "1", "a") }), Err(RowsError::NoKey { .. })));
    assert!(read(Record { key: None, ..record(10, "error") }).is_ok());
}

/// Random changes of few keys, so that rows come, go, and take each other's keys.
fn random(count: u64) -> (Vec<Record>, BTreeMap<String, String>) {
    let (mut seed, mut records, mut model) = (7_u64, Vec::new(), BTreeMap::new());
    for number in 0..count {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b, what) = ((seed >> 33) % 60, (seed >> 40) % 60, (seed >> 50) % 10);
        let (lsn, key, other, note) = (10 + number, format!("k{a}"), format!("k{b}"), format!("n{number}"));
        let free = !model.contains_key(&key);
        match what {
            0 if number % 50 == 0 => {
                model.clear();
                records.push(truncated(lsn));
            }
            _ if free => {
                model.insert(key.clone(), note.clone());
                records.push(created(lsn, &key, &note));
            }
            1 | 2 => {
                model.remove(&key);
                records.push(deleted(lsn, &key));
            }
            3 | 4 if !model.contains_key(&other) => {
                model.remove(&key);
                model.insert(other.clone(), note.clone());
                records.push(renamed(lsn, &key, &other, &note));
            }
            _ => {
                model.insert(key.clone(), note.clone());
                records.push(updated(lsn, &key, &note));
            }
        }
    }
    (records, model)
}

/// ⚠ What does not fit into the memory is read in another pass, and the answer is the same.
#[test]
fn the_answer_does_not_depend_on_the_memory() {
    let facts = facts(vec![table()], &[]);
    let (records, model) = random(1200);
    let all = rows(&facts, &records, ROOM);
    let mut sorted = all.clone();
    sorted.sort_unstable();
    let mut expected: Vec<String> = model.iter().map(|(key, note)| format!("{key}={note}")).collect();
    expected.sort_unstable();
    assert_eq!(sorted, expected);
    let since = 1_000;
    let changed = changes(&facts, &records, ROOM, since);
    for memory in [12_000, 6_000, 4_000] {
        let (_, passes) = entries(&facts, &records, memory, None);
        assert!(passes > 1, "{memory} bytes hold everything");
        assert_eq!(rows(&facts, &records, memory), all, "{memory}");
    }
    for memory in [30_000, 15_000] {
        assert!(entries(&facts, &records, memory, Some(since)).1 > 1, "{memory} bytes hold everything");
        assert_eq!(changes(&facts, &records, memory, since), changed, "{memory}");
    }
}

/// Rows that all began with one key cannot be divided.
#[test]
fn rows_that_cannot_be_divided_are_an_error() {
    let facts = facts(vec![table()], &[]);
    let mut pass = Pass::new("public.t", &facts, 2_000, String::new());
    let row = |n: u64| [created(10 + 2 * n, "0", "a"), renamed(11 + 2 * n, "0", &n.to_string(), "b")];
    let records: Vec<_> = (1..20).flat_map(row).map(Ok).collect();
    assert!(matches!(block_on(pass.read(stream::iter(records).boxed())), Err(RowsError::Memory { .. })));
}
