#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use audit_core::position::{Lsn, Micros, Position};
use audit_core::shape::Shape;
use audit_core::stored::{Record, json};
use serde_json::{Value, json as value};

use super::*;
use crate::question::point::Point;

/// A table of which every update is captured: `id`, and `note`, `n` and `doc` of the types that tests need.
pub(crate) fn table() -> Value {
    let column = |name: &str, oid: u32, kind: &str, attnum: i16| {
        value!({"name": name, "type_oid": oid, "typmod": -1, "type_name": kind, "kind": kind, "attnum": attnum,
                "in_identity": name == "id"})
    };
    value!({
        "schema": "public", "table": "t", "schema_version": 1, "digest": "d", "first": at(1).to_string(), "oid": 7,
        "columns": [column("id", 23, "int4", 1), column("note", 25, "text", 2), column("n", 1700, "numeric", 3),
                    column("doc", 3802, "jsonb", 4)],
        "key": ["id"], "key_source": "catalog",
        "rules": {
            "events": ["created", "updated", "deleted", "truncated", "snapshot", "discarded", "restored"],
            "columns": {"id": {}, "note": {}, "n": {}, "doc": {}},
        },
    })
}

/// The same table in another shape, from position `first` on.
pub(crate) fn later(schema_version: u32, first: u64, change: impl FnOnce(&mut Value)) -> Value {
    let mut shape = table();
    shape["schema_version"] = schema_version.into();
    shape["first"] = at(first).to_string().into();
    change(&mut shape);
    shape
}

pub(crate) fn at(lsn: u64) -> Position {
    Position::new(1, Lsn(lsn), 0)
}

pub(crate) fn record(lsn: u64, event: &str) -> Record {
    let mut record: Record = Record {
        source: "shop".into(),
        position: at(lsn),
        table_name: "public.t".into(),
        item_type: "t".into(),
        key: Some("1".into()),
        old_key: None,
        event: event.into(),
        changes: None,
        before: None,
        after: None,
        changed: None,
        before_known: event == "created",
        unknown: Vec::new(),
        carried: Vec::new(),
        included: None,
        actor_id: None,
        actor: None,
        reason: None,
        context: None,
        actor_source: None,
        context_verified: None,
        xid: 7,
        commit_lsn: Lsn(lsn),
        lsn: Lsn(lsn),
        seq: 0,
        committed_at: Micros(lsn as i64 * 1_000_000),
        recorded_at: Micros(0),
        schema_version: 1,
        baseline: None,
        tenant: None,
        summary: String::new(),
    };
    record.baseline = (event == "snapshot").then_some(1);
    record
}

pub(crate) fn after(lsn: u64, event: &str, image: Value) -> Record {
    Record { after: Some(json(image.to_string())), ..record(lsn, event) }
}

/// An update of a table of which the server sends whole old rows, as the hot table has it.
fn full(lsn: u64, changes: Value) -> Record {
    Record { changes: Some(json(changes.to_string())), before_known: true, ..record(lsn, "updated") }
}

pub(crate) fn facts(shapes: Vec<Value>, marks: &[Record]) -> Facts {
    let shapes: Vec<Shape> = shapes.into_iter().map(|shape| serde_json::from_value(shape).unwrap()).collect();
    Facts::new(shapes, marks, true)
}

fn read(facts: &Facts, records: Vec<Record>) -> Vec<Version> {
    let mut fold = Fold::new(facts);
    moves(records).map(|(record, moved)| fold.push(record, moved)).collect()
}

/// What is known of a version's changes: `note ~"a" -> "b"`, and `n ? first` of a column that may have changed.
fn told(version: &Version) -> String {
    let shown = |known: &Known| match known {
        Known::Stated(json) => json.to_string(),
        Known::Derived(json) => format!("~{json}"),
        Known::Unknown(why) => format!("?{}", why.name()),
    };
    let changes = version
        .changes
        .iter()
        .map(|change| format!("{} {} -> {}", change.column, shown(&change.old), shown(&change.new)));
    let unknown = version.unknown.iter().map(|(column, why)| format!("{column} ? {}", why.name()));
    changes.chain(unknown).collect::<Vec<_>>().join(", ")
}

/// What the last of the records is known to have changed.
fn last(shapes: Vec<Value>, marks: &[Record], records: Vec<Record>) -> String {
    told(read(&facts(shapes, marks), records).last().unwrap())
}

fn first_row(note: &str) -> Record {
    after(10, "created", value!({"id": 1, "note": note, "n": "1", "doc": null}))
}

fn update(lsn: u64, note: &str) -> Record {
    after(lsn, "updated", value!({"id": 1, "note": note, "n": "1", "doc": null}))
}

#[test]
fn an_old_value_that_was_not_sent_is_that_of_the_version_before() {
    let versions = read(&facts(vec![table()], &[]), vec![first_row("a"), update(20, "b"), update(30, "b")]);
    assert_eq!(told(&versions[1]), r#"note ~"a" -> "b""#);
    assert_eq!((versions[1].derived_from(), versions[1].number), (Some(at(10)), Some(2)));
    assert_eq!(versions[1].seconds_since_previous(), Some(10));
    assert!(versions[2].is_nothing() && !versions[1].is_nothing());
    let deleted = Record { before: Some(json(r#"{"id": 1}"#.into())), ..record(40, "deleted") };
    let told = last(vec![table()], &[], vec![first_row("a"), update(20, "b"), deleted]);
    assert_eq!(told, r#"doc ~null -> null, id 1 -> null, n ~"1" -> null, note ~"b" -> null"#);
}

/// Condition 1. The version before is the row's own: what another row had under the same key is not its value.
#[test]
fn nothing_is_derived_from_a_row_that_has_ended() {
    let deleted = || Record { before: Some(json(r#"{"id": 1}"#.into())), ..record(15, "deleted") };
    let versions = read(&facts(vec![table()], &[]), vec![first_row("a"), deleted(), update(20, "b")]);
    assert_eq!(told(&versions[2]), "doc ? first, id ? first, n ? first, note ? first");
    assert_eq!((versions[2].row, versions[2].number), (2, Some(1)));
    let truncated = Record { key: None, ..record(15, "truncated") };
    assert!(last(vec![table()], &[], vec![first_row("a"), truncated, update(20, "b")]).contains("note ? first"));
    // A value that the version before does not have is not known either, and one that it carried is.
    let toast = |lsn, note: &str| Record {
        unknown: vec!["doc".into()],
        ..after(lsn, "updated", value!({"id": 1, "note": note, "n": "1"}))
    };
    let row = after(10, "created", value!({"id": 1, "note": "a", "n": "1", "doc": {"x": 1}}));
    let changed = after(30, "updated", value!({"id": 1, "note": "b", "n": "1", "doc": {"x": 2}}));
    let told = last(vec![table()], &[], vec![row, toast(20, "b"), changed.clone()]);
    assert_eq!(told, r#"doc ~{"x":1} -> {"x":2}"#);
    assert_eq!(last(vec![table()], &[], vec![toast(20, "b"), changed]), "doc ? toast");
}

/// Condition 2. A lost update may have changed the value in between.
#[test]
fn nothing_is_derived_across_what_is_missing() {
    let updates = || vec![first_row("a"), update(20, "b")];
    let gap = Record { key: None, ..record(15, "gap") };
    assert!(last(vec![table()], &[gap], updates()).contains("note ? gap"));
    let error = Record { key: None, ..record(15, "error") };
    assert!(last(vec![table()], &[error], updates()).contains("note ? error"));
    let quarantined = vec![first_row("a"), record(15, "error"), update(20, "b")];
    assert!(last(vec![table()], &[], quarantined).contains("note ? error"));
    let mut restored = update(20, "b");
    restored.position.epoch = 2;
    assert!(last(vec![table()], &[], vec![first_row("a"), restored]).contains("note ? epoch"));
    // A gap before both, or after both, concerns neither.
    let gaps = [Record { key: None, ..record(5, "gap") }, Record { key: None, ..record(25, "gap") }];
    assert_eq!(last(vec![table()], &gaps, updates()), r#"note ~"a" -> "b""#);
}

/// The state right before a version is not that of the version before it, if something is missing in between.
#[test]
fn a_point_before_a_version_counts_what_was_lost_until_then() {
    let marks = [Record { key: None, ..record(20, "gap") }];
    let facts = facts(vec![table()], &marks);
    let versions = || vec![first_row("a"), Record { xid: 8, ..update(30, "b") }];
    let before_xid = place(&facts, &versions(), Point::BeforeXid(8)).unwrap();
    for until in [before_xid, at(30).previous(), Some(at(29))] {
        let then = Then::read(&facts, versions(), &marks, until, |_| Through::Nothing);
        let Found::Row(standing) = then.row("1") else { panic!("{until:?}: there was a row") };
        assert_eq!(standing.state["note"], Known::Unknown(Why::Gap(at(20))), "{until:?}");
    }
}

/// Condition 3. An update without a version may have changed the value in between.
#[test]
fn nothing_is_derived_where_updates_made_no_version() {
    let updates = || vec![first_row("a"), Record { schema_version: 3, ..update(30, "b") }];
    let unruled = |shape: &mut Value| drop(shape.as_object_mut().unwrap().remove("rules"));
    let no_updates = |shape: &mut Value| shape["rules"]["events"] = value!(["created", "deleted"]);
    let filtered = |shape: &mut Value| shape["rules"]["where"] = "n > 0".into();
    let shapes = |second| vec![table(), second, later(3, 30, |_| {})];
    assert!(last(shapes(later(2, 20, no_updates)), &[], updates()).contains("note ? not_captured"));
    assert!(last(shapes(later(2, 20, filtered)), &[], updates()).contains("note ? not_captured"));
    assert!(last(shapes(later(2, 20, unruled)), &[], updates()).contains("note ? rules"));
    assert_eq!(last(shapes(later(2, 20, |_| {})), &[], updates()), r#"note ~"a" -> "b""#);
    let unruled = last(vec![later(1, 1, unruled)], &[], vec![first_row("a"), update(20, "b")]);
    assert!(unruled.contains("note ? rules"), "{unruled}");
    // Where neither a new row nor the end of the old one makes a version, the key may be another row's.
    let only = |shape: &mut Value| shape["rules"]["events"] = value!(["updated", "discarded", "restored", "deleted"]);
    assert!(last(vec![later(1, 1, only)], &[], vec![first_row("a"), update(20, "b")]).contains("note ? not_captured"));
}

/// Condition 4. A rewritten table has other values without any update.
#[test]
fn nothing_is_derived_for_another_column_or_another_type() {
    let updates = || vec![first_row("a"), Record { schema_version: 2, ..update(20, "b") }];
    let retyped = |shape: &mut Value| shape["columns"][1]["typmod"] = 14.into();
    let again = |shape: &mut Value| shape["columns"][1]["attnum"] = 9.into();
    let unnumbered = |shape: &mut Value| shape["columns"][1]["attnum"] = Value::Null;
    let recreated = |shape: &mut Value| shape["oid"] = 8.into();
    let changes: [fn(&mut Value); 4] = [retyped, again, unnumbered, recreated];
    for change in changes {
        let told = last(vec![table(), later(2, 20, change)], &[], updates());
        assert!(told.contains("note ? shape"), "{told}");
    }
    // It was another type in between, for which no version of this row was made.
    let shapes = vec![table(), later(2, 15, retyped), later(3, 20, |_| {})];
    let updates = vec![first_row("a"), Record { schema_version: 3, ..update(20, "b") }];
    assert!(last(shapes, &[], updates).contains("note ? shape"));
    // A renamed column is the same one, and a new column that took its name is not.
    let renamed = |shape: &mut Value| {
        shape["columns"][1]["name"] = "body".into();
        shape["rules"]["columns"] = value!({"id": {}, "body": {}, "n": {}, "doc": {}});
    };
    let moved = after(20, "updated", value!({"id": 1, "body": "b", "n": "1", "doc": null}));
    let moved = Record { schema_version: 2, ..moved };
    let told = last(vec![table(), later(2, 20, renamed)], &[], vec![first_row("a"), moved]);
    assert_eq!(told, r#"body ~"a" -> "b""#);
}

/// Condition 5. Where whole old rows are sent, an update of this column alone makes no version.
#[test]
fn nothing_is_derived_for_a_column_whose_updates_are_ignored_under_full() {
    let alone = |shape: &mut Value| shape["rules"]["columns"]["note"] = value!({"ignored_alone": true});
    let with_full = |shape: &mut Value| {
        alone(shape);
        shape["columns"].as_array_mut().unwrap().iter_mut().for_each(|column| column["in_identity"] = true.into());
    };
    let updates = || vec![first_row("a"), Record { schema_version: 3, ..update(30, "b") }];
    let shapes = |between: &dyn Fn(&mut Value)| vec![later(1, 1, alone), later(2, 20, between), later(3, 30, alone)];
    assert_eq!(last(shapes(&alone), &[], updates()), r#"note ~"a" -> "b""#);
    assert!(last(shapes(&with_full), &[], updates()).contains("note ? ignore_alone"));
}

/// Condition 6. Stored texts differ for equal values, or are equal for different ones.
#[test]
fn nothing_is_derived_where_protection_hides_what_changed() {
    let by = |method: &str, rule: &str| {
        let (method, rule) = (method.to_owned(), rule.to_owned());
        move |shape: &mut Value| {
            shape["rules"]["columns"]["note"] = value!({"protection": {"method": method, "rule": rule}})
        }
    };
    let told = |method: &str, old: &str, new: &str| {
        last(vec![later(1, 1, by(method, method))], &[], vec![first_row(old), update(20, new)])
    };
    let protected = "note ? protected";
    for (method, old, new, expected) in [
        ("encrypt", "aes256gcm:k:AA", "aes256gcm:k:BB", protected),
        ("partial", "u***@acme.test", "u***@acme.test", protected),
        ("full", "[REDACTED]", "[REDACTED]", protected),
        ("hash", "hmac-sha256:k1:aa", "hmac-sha256:k2:bb", "note ? rekeyed"),
        ("token", "aes-siv:k1:aa", "aes-siv:k2:bb", "note ? rekeyed"),
        ("hash", "hmac-sha256:k1:aa", "hmac-sha256:k1:aa", ""),
        ("hash", "hmac-sha256:k1:aa", "hmac-sha256:k1:bb", r#"note ~"hmac-sha256:k1:aa" -> "hmac-sha256:k1:bb""#),
        ("partial", "u***@acme.test", "v***@acme.test", r#"note ~"u***@acme.test" -> "v***@acme.test""#),
    ] {
        assert_eq!(told(method, old, new), expected, "{method} {old} {new}");
    }
    // Another method or key on the other side.
    for next in [by("hash", "hash (domain x)"), by("token", "token")] {
        let shapes = vec![later(1, 1, by("hash", "hash")), later(2, 20, next)];
        let updates =
            vec![first_row("hmac-sha256:k:aa"), Record { schema_version: 2, ..update(20, "hmac-sha256:k:bb") }];
        assert_eq!(last(shapes, &[], updates), "note ? rekeyed");
    }
    let bare = vec![table(), later(2, 20, by("full", "full"))];
    let updates = vec![first_row("a"), Record { schema_version: 2, ..update(20, "[REDACTED]") }];
    assert_eq!(last(bare, &[], updates), "note ? rekeyed");
    // What is masked inside of a text.
    let inside = |shape: &mut Value| shape["rules"]["columns"]["note"] = value!({"inside": {"digest": "d"}});
    let masked = |old: &str, new: &str| last(vec![later(1, 1, inside)], &[], vec![first_row(old), update(20, new)]);
    assert_eq!(masked("card ****9012", "card ****9012"), "note ? masked");
    assert_eq!(masked("no card", "no card"), "");
    assert_eq!(masked("card ****9012", "none"), r#"note ~"card ****9012" -> "none""#);
    // A column and its companion hold one value: what one method proves holds for the other.
    let alike = |shape: &mut Value| {
        shape["rules"]["columns"]["note"] = value!({"protection": {"method": "partial", "rule": "partial"}});
        shape["rules"]["columns"]["note__hash"] = value!({"protection": {"method": "hash", "rule": "hash"}});
    };
    let row = |lsn, event, hash: &str| {
        after(
            lsn,
            event,
            value!({"id": 1, "note": "a***", "note__hash": format!("hmac-sha256:k:{hash}"), "n": "1", "doc": null}),
        )
    };
    let told = |hash| last(vec![later(1, 1, alike)], &[], vec![row(10, "created", "aa"), row(20, "updated", hash)]);
    assert_eq!((told("aa").as_str(), told("bb").starts_with(r#"note ~"a***" -> "a***""#)), ("", true));
    let both = |shape: &mut Value| {
        shape["rules"]["columns"]["note"] = value!({"protection": {"method": "partial", "rule": "partial"}});
        shape["rules"]["columns"]["note__encrypt"] = value!({"protection": {"method": "encrypt", "rule": "encrypt"}});
    };
    let row = |lsn, event, note: &str, cipher: &str| {
        after(lsn, event, value!({"id": 1, "note": note, "note__encrypt": cipher, "n": "1", "doc": null}))
    };
    let updates = vec![row(10, "created", "a***", "aes256gcm:k:AA"), row(20, "updated", "b***", "aes256gcm:k:BB")];
    let told = last(vec![later(1, 1, both)], &[], updates);
    assert_eq!(told, r#"note ~"a***" -> "b***", note__encrypt ? protected"#, "a ciphertext opens in its version only");
}

/// Condition 7. The same value may be written in two ways, and a value that is not there is none.
#[test]
fn values_are_compared_by_their_type() {
    let row = |lsn, event, n: &str, doc: Value| after(lsn, event, value!({"id": 1, "note": "12", "n": n, "doc": doc}));
    let told = |old: (&str, Value), new: (&str, Value)| {
        last(vec![table()], &[], vec![row(10, "created", old.0, old.1), row(20, "updated", new.0, new.1)])
    };
    assert_eq!(told(("12", value!({"a": 1, "b": 2})), ("12.0", value!({"b": 2, "a": 1.0}))), "");
    assert_eq!(told(("12", value!(null)), ("12.1", value!(null))), r#"n ~"12" -> "12.1""#);
    assert_eq!(told(("12", value!(null)), ("12", value!({"$json": null}))), r#"doc ~null -> {"$json":null}"#);
    let text = |lsn, event, note: &str| after(lsn, event, value!({"id": 1, "note": note, "n": "1", "doc": null}));
    assert_eq!(
        last(vec![table()], &[], vec![text(10, "created", "12"), text(20, "updated", "12.0")]),
        r#"note ~"12" -> "12.0""#
    );
    let large = |lsn, event, bytes: u64| Record {
        unknown: vec!["doc".into()],
        ..row(lsn, event, "1", value!({"$too_large": bytes}))
    };
    assert_eq!(last(vec![table()], &[], vec![large(10, "created", 7), large(20, "updated", 8)]), "doc ? too_large");
}

#[test]
fn under_full_what_an_update_does_not_name_is_unchanged() {
    let facts = facts(vec![table()], &[]);
    let mut fold = Fold::new(&facts);
    fold.push(first_row("a"), None);
    let version = fold.push(full(20, value!({"n": ["1", "2"]})), None);
    assert_eq!(told(&version), r#"n "1" -> "2""#);
    let state = fold.state("1", at(20)).unwrap().state;
    assert_eq!((state["note"].value(), state["n"].value()), (Some("\"a\""), Some("\"2\"")));
    // Members of a document say nothing about the whole.
    fold.push(full(30, value!({"doc.a": [1, 2]})), None);
    assert_eq!(fold.state("1", at(30)).unwrap().state["doc"], Known::Unknown(Why::Members));
}

#[test]
fn rows_of_one_key_are_numbered_apart_and_a_changed_key_goes_on() {
    let deleted = Record { before_known: true, before: Some(json("{}".into())), ..record(30, "deleted") };
    let renamed = Record { key: Some("2".into()), old_key: Some("1".into()), ..update(20, "a") };
    let other = Record { key: Some("1".into()), ..after(25, "created", value!({"id": 1})) };
    let of_first = Record { key: Some("2".into()), ..update(40, "b") };
    let versions = read(&facts(vec![table()], &[]), vec![first_row("a"), renamed, other, deleted, of_first]);
    let told: Vec<_> = versions.iter().map(|version| (version.row, version.number)).collect();
    assert_eq!(told, [(1, Some(1)), (1, Some(2)), (2, Some(1)), (2, Some(2)), (1, Some(3))]);
    assert_eq!(super::tests::told(&versions[4]), r#"note ~"a" -> "b""#);
    let facts = Facts::new(facts(vec![table()], &[]).newest().cloned().into_iter().collect(), &[], false);
    assert_eq!(read(&facts, vec![update(20, "a")])[0].number, None, "earlier ones were not read");
}

#[test]
fn a_row_that_moved_to_another_partition_was_updated() {
    let created = |lsn, seq| {
        let created = after(lsn, "created", value!({"id": 1, "note": "b", "n": "1", "doc": null}));
        Record { position: Position { seq, ..at(lsn) }, ..created }
    };
    let deleted = || Record { before: Some(json(r#"{"id": 1}"#.into())), ..record(20, "deleted") };
    let versions = read(&facts(vec![table()], &[]), vec![first_row("a"), deleted(), created(20, 1)]);
    assert_eq!((versions.len(), versions[1].record.event.as_str(), versions[1].moved), (2, "updated", true));
    assert_eq!((told(&versions[1]), versions[1].number), (r#"note ~"a" -> "b""#.to_owned(), Some(2)));
    for apart in [created(20, 2), created(21, 1)] {
        let versions = read(&facts(vec![table()], &[]), vec![first_row("a"), deleted(), apart]);
        assert_eq!((versions.len(), versions[2].row), (3, 2));
    }
}

#[test]
fn blame_names_the_version_that_set_a_value() {
    let by = |record: Record, actor: &str| Record { actor_id: Some(actor.into()), ..record };
    let facts = facts(vec![table()], &[]);
    let records = vec![
        Record { baseline: Some(3), ..after(10, "snapshot", value!({"id": 1, "note": "a", "n": "1", "doc": null})) },
        by(update(20, "b"), "ann"),
        by(update(30, "B"), "formatter"),
    ];
    let blamed = |ignored: &str| {
        let (mut fold, mut blame) = (Fold::new(&facts), Blame::default());
        for record in records.clone() {
            let version = fold.push(record, None);
            let ignore = version.record.actor_id.as_deref() == Some(ignored);
            blame.push(&version, if ignore { Through::Version } else { Through::Nothing });
        }
        blame
    };
    let setter = blamed("").setter("note").unwrap().clone();
    assert_eq!((setter.version, setter.actor_id.as_deref(), setter.certain), (Some(3), Some("formatter"), true));
    assert_eq!(setter.before.unwrap().value(), Some("\"b\""));
    assert_eq!(blamed("formatter").setter("note").unwrap().actor_id.as_deref(), Some("ann"));
    let baseline = blamed("").setter("n").unwrap().clone();
    assert_eq!((baseline.certain, baseline.baseline, baseline.before), (false, Some(3), None));
}

#[test]
fn two_states_are_compared_by_type_and_never_across_protections() {
    let facts = facts(
        vec![
            table(),
            later(2, 30, |shape| {
                shape["rules"]["columns"]["note"] = value!({"protection": {"method": "hash", "rule": "hash"}});
            }),
        ],
        &[],
    );
    let mut fold = Fold::new(&facts);
    let mut state = |record: Record| {
        let lsn = record.position;
        fold.push(record, None);
        fold.state("1", lsn).unwrap().state
    };
    let (a, b) = (state(first_row("a")), state(update(20, "b")));
    let c = state(Record { schema_version: 2, ..update(30, "hmac-sha256:k:aa") });
    let side = |schema_version, state| Side { schema_version, state };
    let found = diff(&facts, side(1, &a), side(1, &b));
    assert_eq!(found.changes.iter().map(|change| change.column.as_str()).collect::<Vec<_>>(), ["note"]);
    assert_eq!(diff(&facts, side(1, &b), side(2, &c)).unknown.get("note"), Some(&Why::Rekeyed));
    let absent = State::new();
    assert!(
        diff(&facts, side(1, &absent), side(1, &a)).changes.iter().all(|change| change.old.value() == Some("null"))
    );
}
