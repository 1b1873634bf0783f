//! Our envelope equals Debezium's, field by field, for every type and every way in which a row can change.

use std::collections::HashMap;

use audit_core::position::Lsn;
use audit_format::{Format, FormatConfig};
use audit_testkit::{shared_db, thorough, unique};
use serde_json::{Map, Value, json};

use crate::messages::{Sent, messages, set_up, source};
use crate::oracle;

const SQL: &str = include_str!("types.sql");

/// Number of messages that Debezium makes of the workload.
const DEBEZIUMS: usize = 38;

/// Columns that are not compared, with the reason. Each is listed in `docs/formats.md`.
const DIFFERENT: &[(&str, &str)] = &[
    ("a_line", "Debezium leaves the type out"),
    ("an_lseg", "Debezium leaves the type out"),
    ("a_box", "Debezium leaves the type out"),
    ("a_path", "Debezium leaves the type out"),
    ("a_polygon", "Debezium leaves the type out"),
    ("a_circle", "Debezium leaves the type out"),
    ("a_tsquery", "Debezium leaves the type out"),
    ("a_pair", "Debezium leaves the type out"),
    ("some_interval", "Debezium leaves the type out"),
    ("some_money", "Debezium leaves the type out"),
    ("a_name", "Debezium gives null, whatever the value is"),
    ("some_mood", "Debezium gives null where an item is null"),
    ("some_time", "Debezium cuts items off at milliseconds"),
    ("a_numeric3_n2", "Debezium reads a negative scale as a large one"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_is_debeziums() {
    let database = shared_db(15).await;
    let (ours, theirs) = (unique("ours"), unique("theirs"));
    let (tables, changes) = SQL.split_once("-- Here they begin.\n").expect("tables, then changes");
    database.execute(tables);
    database.execute(&format!(
        "CREATE PUBLICATION {theirs} FOR ALL TABLES; SELECT pg_create_logical_replication_slot('{theirs}', 'pgoutput');"
    ));
    let source = source(&database.url, &ours);
    set_up(&source).await;
    database.execute(changes);
    let row = database.client().await.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
    let end: Lsn = row.get::<_, String>(0).parse().unwrap();

    let format = FormatConfig { format: Format::Debezium, database: Some("shop".into()), ..FormatConfig::default() };
    let found = messages(source, end, &format).await;
    if thorough() {
        let fresh = oracle::fresh(database.server.port(), &database.name, &theirs, &theirs, DEBEZIUMS);
        same_place(&found, &fresh);
        let shown = once_a_table(fresh.into_iter().map(|sent| shown(sent, &database.name)).collect());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            oracle::record(&shown);
        }
        compare(&found, shown);
    } else {
        compare(&found, oracle::recorded());
    }
}

/// Checks that place and time of each change are the same, because both programs read the same WAL.
fn same_place(ours: &[Sent], theirs: &[Sent]) {
    let places = |sent: &[Sent]| -> Vec<Value> {
        let rows = sent.iter().filter(|sent| sent.table == "public.kinds" || sent.table == "public.toasted");
        rows.filter_map(|sent| sent.value.get("payload"))
            .map(|payload| {
                let source = &payload["source"];
                json!([
                    source["lsn"],
                    source["txId"],
                    source["ts_ms"],
                    source["ts_us"],
                    source["ts_ns"],
                    source["table"],
                    payload["op"]
                ])
            })
            .collect()
    };
    assert_eq!(places(ours), places(theirs));
}

fn compare(ours: &[Sent], theirs: Vec<Sent>) {
    let ours: Vec<Sent> =
        once_a_table(ours.iter().cloned().map(|sent| shown(sent, "")).collect()).into_iter().map(alike).collect();
    let theirs: Vec<Sent> = theirs.into_iter().filter(|sent| !is_theirs_alone(sent)).map(alike).collect();
    let mut found = Vec::new();
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let place = format!("message {at} of {}", theirs.table);
        differences(
            &place,
            &json!([ours.table, ours.key, ours.value]),
            &json!([theirs.table, theirs.key, theirs.value]),
            &mut found,
        );
    }
    assert!(found.is_empty(), "ours and Debezium's:\n{}", found.join("\n"));
    assert_eq!(ours.len(), theirs.len());
}

fn differences(place: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    let inside = |name: &str| format!("{place}.{name}");
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for name in ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name))) {
                let side = |object: &Map<String, Value>| object.get(name).cloned().unwrap_or(json!("nothing"));
                differences(&inside(name), &side(ours), &side(theirs), found);
            }
            if !ours.keys().eq(theirs.keys()) && ours.len() == theirs.len() {
                found.push(format!("{place}: another order"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                let name = ours.get("field").and_then(Value::as_str).map_or(at.to_string(), str::to_owned);
                differences(&inside(&name), ours, theirs, found);
            }
        }
        _ if ours != theirs => found.push(format!("{place}: {ours} is not {theirs}")),
        _ => {}
    }
}

/// Tells whether only Debezium sends a message.
fn is_theirs_alone(sent: &Sent) -> bool {
    let payload = &sent.value["payload"];
    // These are a message of the application, a tombstone without a key, and an update that changed nothing.
    sent.table == "message"
        || sent.key.is_null() && sent.value.is_null()
        || payload["op"] == "u" && payload["before"] == payload["after"]
}

/// Removes what is different in every run, and shortens long values.
fn shown(mut sent: Sent, database: &str) -> Sent {
    if let Some(payload) = sent.value.get_mut("payload").and_then(Value::as_object_mut) {
        let stars = |object: &mut Map<String, Value>, names: &[&str]| {
            for name in names {
                let value = object.get_mut(*name).unwrap_or_else(|| panic!("there is no {name}"));
                let kind = if value.is_string() { "a text" } else { "a number" };
                *value = json!(kind);
            }
        };
        let message = payload.contains_key("message");
        stars(payload, if message { &["ts_ms"] } else { &["ts_ms", "ts_us", "ts_ns"] });
        let source = payload["source"].as_object_mut().unwrap();
        stars(source, &["version", "ts_ms", "ts_us", "ts_ns", "txId", "lsn", "sequence"]);
        if source["db"] == database {
            source["db"] = json!("shop");
        }
    }
    shorten(&mut sent.value);
    sent
}

/// Keeps a table's schemas only where they first appear or have changed.
fn once_a_table(mut messages: Vec<Sent>) -> Vec<Sent> {
    let mut seen = HashMap::new();
    for sent in &mut messages {
        for part in [&mut sent.key, &mut sent.value] {
            let Some(schema) = part.get_mut("schema") else { continue };
            let name = format!("{} {}", sent.table, schema["name"]);
            if seen.get(&name) == Some(schema) {
                *schema = json!("as before");
            } else {
                seen.insert(name, schema.clone());
            }
        }
    }
    messages
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > 200 => *text = format!("{}… {} bytes", &text[..20], text.len()),
        Value::Array(items)
            if items.len() > 100 && items[0].is_number() | items[0].is_string() | items[0].is_boolean() =>
        {
            let count = items.len();
            items.truncate(3);
            items.push(json!(format!("… {count} items")));
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => members.values_mut().for_each(shorten),
        _ => {}
    }
}

/// Removes what is known to differ.
fn alike(mut sent: Sent) -> Sent {
    // Our message has a key that names the event, because brokers refuse messages without a key in compacted topics.
    if sent.value["payload"]["op"] == "t" {
        sent.key = Value::Null;
    }
    let none = &mut Vec::new();
    let fields = sent.value.pointer_mut("/schema/fields").and_then(Value::as_array_mut).unwrap_or(none);
    for side in fields.iter_mut().filter(|field| field["field"] == "before" || field["field"] == "after") {
        let columns = side["fields"].as_array_mut().unwrap();
        columns.retain(|column| !DIFFERENT.iter().any(|(name, _)| column["field"] == *name));
        for column in columns {
            // The stream does not say which columns may be null, and has neither defaults nor the labels of an enum.
            if sent.table == "public.whole" && column["field"] != "id" && column["field"] != "part" {
                column["optional"] = json!(true);
            }
            let column = column.as_object_mut().unwrap();
            column.remove("default");
            if column["field"] == "a_mood" {
                ["name", "version", "parameters"].iter().for_each(|key| drop(column.remove(*key)));
            }
        }
    }
    for side in ["before", "after"] {
        let row = sent.value.pointer_mut(&format!("/payload/{side}")).and_then(Value::as_object_mut);
        let Some(row) = row else { continue };
        row.retain(|column, _| !DIFFERENT.iter().any(|(name, _)| column == name));
        // Debezium leaves arrays with several dimensions out, and makes an array null if one item has no value in
        // Connect.
        let several = row.get("id") == Some(&json!(4)) && row.contains_key("some_text");
        let not_a_number = row.get("id") == Some(&json!(10)) && row.contains_key("some_numeric");
        row.retain(|column, _| {
            !(several && ["some_int4", "some_text"].contains(&column.as_str())
                || not_a_number && column == "some_numeric")
        });
        // Debezium's converter prints a float as the nearest double.
        if let Some(float) = row.get_mut("a_float4").filter(|value| value.is_f64()) {
            *float = json!(float.as_f64().unwrap() as f32);
        }
    }
    sent
}
