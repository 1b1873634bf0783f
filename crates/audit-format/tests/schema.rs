//! Compares `docs/schemas`, which describes messages, and `docs/formats.md`, which shows some, with real messages.
//! `UPDATE_EXPECT=1` writes the schemas and the examples again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use audit_core::position::Micros;
use audit_core::quarantine::{Quarantine, Quarantined};
use audit_format::{Encoder, Format, FormatConfig, schema};
use audit_testkit::{Fixture, install};
use serde_json::Value;

/// Reads lines of JSON, first a schema, then messages, and says of each message whether it conforms.
const VALIDATE: &str = "\
import json, sys, jsonschema
first, *rest = sys.stdin.read().splitlines()
schema = json.loads(first)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
for line in rest:
    error = next(validator.iter_errors(json.loads(line)), None)
    print('yes' if error is None else 'no: ' + error.message[:300].replace(chr(10), ' '))
";

/// The versions of `docs/formats.md`, and further versions of every kind.
const LIFE: &str = r#"table public.orders (id int8 key, status text, price numeric(10,2), at timestamptz, doc jsonb) full
    begin at=2026-03-01T09:30:00.25Z lsn=0/1A0B530 xid=739
    context {"actor_id": 7, "actor": {"name": "Ann"}, "reason": "price fix"}
    insert public.orders [42, "draft", "12.50", "2026-03-01 09:30:00+00", "{\"gift\": true}"]
    update public.orders [42, "draft", "12.50", "2026-03-01 09:30:00+00", "{\"gift\": true}"] -> [42, "published", "5.00", "2026-03-01 09:30:00+00", "{\"gift\": true}"]
    update public.orders -> [42, "published", null, {}, {}]
    update public.orders [42, "published", "5.00", null, null] -> [43, "published", "5.00", null, null]
    delete public.orders [43, "published", "5.00", null, null]
    truncate public.orders
    commit
    gap {"lost": "0/1 to 0/2"}
    ---
    chunk public.orders baseline=1 chunk=1 last
    begin
    snapshot public.orders [1, "old", null, null, null]
    commit"#;

fn messages(config: &FormatConfig) -> Vec<String> {
    let batches = Fixture::of(LIFE);
    let mut encoder = Encoder::new(config, "shop");
    let mut messages = Vec::new();
    let versions = || batches.iter().flat_map(|batch| batch.versions());
    let all: Quarantine = versions().map(|version| (version.position(), Quarantined::default())).collect();
    for quarantine in [Quarantine::new(), all] {
        for version in versions().map(|version| version.unless_quarantined(&quarantine)) {
            let result: Result<(), ()> = encoder.messages(&version, Micros(1_772_357_400_500_000), |message| {
                messages.extend(message.value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
                Ok(())
            });
            result.unwrap();
        }
    }
    messages
}

fn config(format: Format, inline_schema: bool) -> FormatConfig {
    FormatConfig { format, inline_schema, ..FormatConfig::default() }
}

fn valid(format: Format, messages: &[String]) -> Vec<String> {
    let mut python = Command::new(install::python())
        .args(["-c", VALIDATE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`cargo xtask test` installs the validator: {error}"));
    let lines = std::iter::once(schema(format).to_string()).chain(messages.iter().cloned());
    let text: String = lines.map(|line| line + "\n").collect();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let said: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(said.len(), messages.len());
    said
}

#[test]
fn real_messages_are_what_the_schemas_say() {
    for (format, inline_schema) in
        [(Format::Record, true), (Format::CloudEvents, true), (Format::Debezium, true), (Format::Debezium, false)]
    {
        let messages = messages(&config(format, inline_schema));
        assert!(messages.len() >= 16);
        for (message, said) in messages.iter().zip(valid(format, &messages)) {
            assert_eq!(said, "yes", "{format:?}: {message}");
        }
        // A message that lacks any of its members does not conform.
        let whole: Value = serde_json::from_str(&messages[0]).unwrap();
        let less = whole.as_object().unwrap().keys().map(|name| {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().shift_remove(name);
            less.to_string()
        });
        let less: Vec<String> = less.collect();
        assert!(valid(format, &less).iter().all(|said| said.starts_with("no")), "{format:?}");
    }
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn same(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "{}: run with UPDATE_EXPECT=1", path.display());
}

#[test]
fn the_schemas_are_written_down() {
    for (format, name) in
        [(Format::Record, "record"), (Format::CloudEvents, "cloudevents"), (Format::Debezium, "debezium")]
    {
        same(&docs(&format!("schemas/{name}.json")), &(serde_json::to_string_pretty(&schema(format)).unwrap() + "\n"));
    }
}

/// The second message of the versions above is each format's example, in a block of JSON after `<!-- NAME -->`.
#[test]
fn the_examples_are_messages() {
    let path = docs("formats.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (format, name) in
        [(Format::Record, "record"), (Format::Debezium, "debezium"), (Format::CloudEvents, "cloudevents")]
    {
        let message: Value = serde_json::from_str(&messages(&config(format, false))[1]).unwrap();
        let start = format!("<!-- {name} -->\n```json\n");
        let (before, rest) = text.split_once(&start).unwrap_or_else(|| panic!("no example of {name}"));
        let (_, after) = rest.split_once("\n```\n").unwrap();
        text = format!("{before}{start}{}\n```\n{after}", serde_json::to_string_pretty(&message).unwrap());
    }
    same(&path, &text);
}
