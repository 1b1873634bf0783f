//! Checks that the record in a message is byte for byte the record that readers are shown.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use audit_core::batch::{Batch, Version};
use audit_core::context::Context;
use audit_core::method::Method;
use audit_core::position::{Lsn, Micros, Position};
use audit_core::protect::{MacKey, Policy};
use audit_core::quarantine::{Quarantine, Quarantined};
use audit_core::record;
use audit_core::rules::{Rules, TableRule};
use audit_core::stored::{Json, Record, json};
use audit_core::table::Table;
use audit_core::version::Event;
use audit_format::{Encoder, FormatConfig};
use audit_testkit::Fixture;
use proptest::prelude::*;

const RECORDED_AT: Micros = Micros(1_772_323_299_000_001);

#[derive(Debug, PartialEq)]
struct Sent {
    key: Option<String>,
    value: Option<String>,
    op: Option<&'static str>,
}

fn sent(config: &FormatConfig, batches: &[Batch], quarantined: bool) -> Vec<Sent> {
    let mut encoder = Encoder::new(config, "shop");
    let mut sent = Vec::new();
    let versions = || batches.iter().flat_map(|batch| batch.versions());
    let all: Quarantine = versions().map(|version| (version.position(), Quarantined::default())).collect();
    let quarantine = if quarantined { all } else { Quarantine::new() };
    for version in versions().map(|version| version.unless_quarantined(&quarantine)) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let result: Result<(), ()> = encoder.messages(&version, RECORDED_AT, |message| {
            sent.push(Sent { key: message.key.map(text), value: message.value.map(text), op: message.op });
            Ok(())
        });
        result.unwrap();
    }
    sent
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Json> {
    let mut out = Vec::new();
    write(&mut out).then(|| json(String::from_utf8(out).unwrap()))
}

/// Makes the record that readers are shown, field by field.
fn record_of(version: &Version<'_>) -> Record {
    stored(version).complete()
}

/// Makes the record as it is stored, without what only repeats other fields.
fn stored(version: &Version<'_>) -> Record {
    let transaction = version.transaction();
    let image = |image: Option<audit_core::batch::Image<'_>>| {
        written(|out| image.map(|image| record::write_image(out, image)).is_some())
    };
    let document = |text: Option<&str>| text.map(|text| json(text.to_owned()));
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Record {
        source: "shop".into(),
        position: version.position(),
        table_name: version.table().name.to_string(),
        item_type: version.table().item_type.clone(),
        key: owned(version.key()),
        old_key: owned(version.old_key()),
        event: version.event().name().into(),
        changes: written(|out| record::write_changes(out, version)),
        before: image(version.before()),
        after: image(version.after()),
        changed: record::changed_columns(version).map(|names| names.map(str::to_owned).collect()),
        before_known: version.before_known(),
        unknown: record::unknown_columns(version).map(str::to_owned).collect(),
        carried: Vec::new(),
        included: written(|out| record::write_included(out, version)),
        actor_id: owned(version.actor_id()),
        actor: document(version.actor()),
        reason: owned(version.reason()),
        context: document(version.context().map(|context| context.json.as_str())),
        actor_source: owned(version.actor_source().map(|source| source.name())),
        context_verified: version.context_verified(),
        xid: transaction.xid,
        commit_lsn: transaction.commit_lsn,
        lsn: version.lsn(),
        seq: version.position().seq,
        committed_at: transaction.committed_at,
        recorded_at: RECORDED_AT,
        schema_version: version.table().shape.schema_version,
        baseline: version.baseline(),
        tenant: owned(version.tenant()),
        summary: String::new(),
    }
}

const FULL: FormatConfig = FormatConfig {
    format: audit_format::Format::Record,
    tombstones: None,
    full_changes: true,
    inline_schema: true,
    decimals: audit_format::Decimals::Precise,
    database: None,
};

fn fixture() -> Fixture {
    let rule = TableRule {
        name: "public.*".into(),
        protect: [("secret".to_owned(), Method::Hash.into()), ("pin".to_owned(), Method::Full.into())].into(),
        include: Some(vec!["owner".into()]),
        tenant: Some("owner".into()),
        actor_column: Some("editor".into()),
        reason_column: Some("why".into()),
        ..TableRule::default()
    };
    let rules = Rules { tables: vec![rule], ..Rules::default() };
    let key = |id| Some(MacKey::new(id, b"0123456789abcdef"));
    Fixture::under(rules, Policy { hash_key: key("k1"), row_key: key("row"), ..Policy::default() })
}

const COLUMNS: &str = "id int8 key, part text key, name text, price numeric(18,4), ratio float8, at timestamptz, born date, doc jsonb, \
     raw json, tags text[], bin bytea, flag bool, secret text, pin text, owner text, editor text, why text";

/// A value for each of [`COLUMNS`], as JSON for the fixture.
fn row() -> impl Strategy<Value = Vec<serde_json::Value>> {
    let text = || prop_oneof![4 => "[a-z_\"\\\\\u{1}\né😀 ]{0,80}".prop_map(serde_json::Value::from), 1 => Just(serde_json::Value::Null)];
    let of = |texts: &'static [&'static str]| prop_oneof![6 => prop::sample::select(texts).prop_map(serde_json::Value::from), 1 => Just(serde_json::Value::Null)];
    let toast = prop_oneof![3 => text(), 1 => Just(serde_json::json!({}))];
    (
        (any::<i64>().prop_map(serde_json::Value::from), "[a-z\"]{1,9}".prop_map(serde_json::Value::from), toast),
        (of(&["1.5000", "-0.0001", "NaN"]), of(&["1.5", "-0", "1e+300", "NaN", "-Infinity"])),
        (
            of(&["2026-03-01 09:30:00+00", "0044-03-15 12:00:00.5+00 BC", "infinity"]),
            of(&["2026-03-01", "infinity"]),
            of(&[
                "{\"a\": [1.50, null]}",
                "null",
                "\"q\\n\\\"\"",
                "[\"é\", \"\\u0001\"]",
                "12345678901234567890.1234567890",
            ]),
        ),
        (
            of(&["{\"a\":1, \"a\": -0}"]),
            of(&["{}", "{\"a,b\",NULL}", "[0:1]={a,b}"]),
            of(&["\\x00ff", "\\x"]),
            of(&["t", "f"]),
        ),
        (text(), text(), text(), text(), text()),
    )
        .prop_map(
            |((id, part, name), (price, ratio), (at, born, doc), (raw, tags, bin, flag), (s, p, o, e, w))| {
                vec![id, part, name, price, ratio, at, born, doc, raw, tags, bin, flag, s, p, o, e, w]
            },
        )
}

fn script() -> impl Strategy<Value = String> {
    let change = (0..6u8, row(), row()).prop_map(|(which, old, new)| {
        let whole = |row: &[serde_json::Value]| {
            // Only a new row can have unchanged TOAST values.
            let known =
                row.iter().map(|value| if value.is_object() { serde_json::json!("old") } else { value.clone() });
            serde_json::Value::Array(known.collect()).to_string()
        };
        let key: Vec<_> =
            (0..old.len()).map(|at| if at < 2 { old[at].clone() } else { serde_json::Value::Null }).collect();
        let (old, key, known) = (whole(&old), serde_json::Value::Array(key).to_string(), whole(&new));
        let new = serde_json::Value::Array(new).to_string();
        match which {
            0 => format!("insert public.t {known}"),
            1 => format!("update public.t {old} -> {new}"),
            2 => format!("update public.t key {key} -> {new}"),
            3 => format!("update public.t -> {new}"),
            4 => format!("delete public.t {old}"),
            _ => format!("delete public.t key {key}"),
        }
    });
    let context = prop::sample::select(vec![
        "{}",
        r#"{"actor_id": 7, "actor": {"name": "Ann \"é\""}, "reason": "a\nb"}"#,
        "loose",
    ]);
    let steps = prop::collection::vec((prop::option::of(context), change), 1..6);
    (prop::sample::select(vec!["full", "default", "nothing"]), steps).prop_map(|(identity, steps)| {
        let mut text = format!("table public.t ({COLUMNS}) {identity}\nbegin\n");
        for (context, change) in steps {
            text.extend(context.map(|context| format!("context {context}\n")));
            text.push_str(&change);
            text.push('\n');
        }
        text + "truncate public.t\ncommit"
    })
}

proptest! {
    #[test]
    fn a_message_is_the_record_to_the_byte(script in script()) {
        let batches = fixture().batches(&script);
        let (messages, full) = (sent(&FormatConfig::default(), &batches, false), sent(&FULL, &batches, false));
        let versions: Vec<Version<'_>> = batches.iter().flat_map(|batch| batch.versions()).collect();
        prop_assert_eq!((messages.len(), full.len()), (versions.len(), versions.len()));
        for ((message, full), version) in messages.iter().zip(full).zip(&versions) {
            let whole = record_of(version);
            let expected = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(full.value.as_deref(), Some(expected.as_str()));
            // Each value of a created, snapshot or deleted row appears once; the summary is the same.
            let once = serde_json::to_string(&Record { changes: stored(version).changes, ..whole }).unwrap();
            prop_assert_eq!(message.value.as_deref(), Some(once.as_str()));
            let noted = format!("{{\"$event\":\"{}\",\"position\":\"{}\"}}", version.event().name(), version.position());
            let noted = (version.event() == Event::Truncated).then_some(noted);
            prop_assert_eq!(message.key.as_deref(), noted.as_deref().or(version.key()));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&expected).is_ok() && !expected.contains('\n'));
        }
    }
}

const LIFE: &str = r#"table public.users (id int4 key, name text)
    begin
    insert public.users [1, "Ann"]
    update public.users [1, "Ann"] -> [1, "Bea"]
    update public.users [1, "Bea"] -> [2, "Bea"]
    delete public.users [2, "Bea"]
    truncate public.users
    commit"#;

#[test]
fn a_row_of_a_baseline_and_a_gap_are_records_too() {
    let batches = Fixture::of(
        "table public.users (id int4 key, name text)
         gap {\"lost\": \"0/1 to 0/2\"}
         ---
         chunk public.users baseline=2 chunk=1 last
         begin
         snapshot public.users [1, \"Ann\"]
         commit",
    );
    let expected: Vec<String> = batches
        .iter()
        .flat_map(|batch| batch.versions())
        .map(|version| serde_json::to_string(&record_of(&version)).unwrap())
        .collect();
    let values: Vec<String> = sent(&FULL, &batches, false).into_iter().filter_map(|message| message.value).collect();
    assert_eq!(values, expected);
    assert!(
        values[0].contains(r#""event":"gap""#)
            && values[1].contains(r#""changes":{"id": [null, 1], "name": [null, "Ann"]}"#)
    );
}

#[test]
fn a_tombstone_follows_for_each_key_that_is_gone() {
    let batches = Fixture::of(LIFE);
    let config = FormatConfig { tombstones: Some(true), ..FormatConfig::default() };
    // The truncation concerns no row, and no other message has its key.
    let plain =
        |key: String| if key.starts_with(r#"{"$event":"truncated","#) { "a truncation".to_owned() } else { key };
    let shown: Vec<(Option<String>, bool, Option<&str>)> =
        sent(&config, &batches, false).into_iter().map(|m| (m.key.map(plain), m.value.is_some(), m.op)).collect();
    let key = |key: &str| Some(key.to_owned());
    let expected = [
        (key("1"), true, None),
        (key("1"), true, None),
        (key("2"), true, None),
        (key("1"), false, Some("tombstone")),
        (key("2"), true, None),
        (key("2"), false, Some("tombstone")),
        (key("a truncation"), true, None),
    ];
    assert_eq!(shown, expected);
    assert_eq!(sent(&FormatConfig::default(), &batches, false).len(), 5);
}

#[test]
fn a_message_is_one_line() {
    let mut batch = Batch::default();
    let context = Context::parse(b"{\n  \"actor\": {\r\n\t\"name\": \"Ann\"},\n\"reason\": \"a\\nb\"}").unwrap();
    batch.note(Event::Gap, &Arc::new(Table::pseudo("cdc_audit.gap")), Position::default(), Lsn::ZERO, context);
    let value = sent(&FormatConfig::default(), &[batch], false).remove(0).value.unwrap();
    assert!(!value.contains(['\n', '\r', '\t']), "{value}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&value).unwrap()["context"]["reason"], "a\nb");
}

#[test]
fn nothing_of_a_row_but_its_key_is_in_the_record_of_a_quarantined_version() {
    let batches = fixture().batches(
        r#"table public.t (id int4 key, name text, owner text)
           begin
           context {"actor_id": "7", "reason": "geheim"}
           insert public.t [1, "geheim", "geheim"]
           commit"#,
    );
    let config = FormatConfig { tombstones: Some(true), ..FormatConfig::default() };
    let [message] = sent(&config, &batches, true).try_into().unwrap();
    let value = message.value.unwrap();
    assert!(!value.contains("geheim"), "{value}");
    let parsed: serde_json::Value = serde_json::from_str(&value).unwrap();
    assert_eq!(parsed["event"], Event::Error.name());
    assert_eq!(
        (&parsed["key"], &parsed["actor_id"], &parsed["actor_source"]),
        (&"1".into(), &"7".into(), &"context".into())
    );
    assert_eq!(
        (&parsed["context"]["event"], &parsed["context"]["error"]),
        (&"created".into(), &"refused by the sink and quarantined".into())
    );
    assert_eq!(parsed["summary"], "A change was quarantined here.");
    let whole = sent(&config, &batches, false).remove(0).value.unwrap();
    let names = |text: &str| {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&value), names(&whole));
}
