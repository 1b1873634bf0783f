//! Debezium's own messages: recorded in `debezium.jsonl`, and made again in thorough runs.
//!
//! This command records them: `CDC_AUDIT_TEST_ALL=1 UPDATE_EXPECT=1 cargo test --release --workspace
//! --features cdc-audit/fault-points --test debezium`.

use std::process::{Command, Stdio};

use audit_testkit::install;
use serde_json::{Value, json};

use crate::messages::Sent;

const RECORDED: &str = include_str!("debezium.jsonl");
const DUMP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/audit-install/debezium/Dump.java");

/// Reads the recorded messages.
pub fn recorded() -> Vec<Sent> {
    let sent = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let table = line["table"].as_str().unwrap().to_owned();
        Sent { table, key: line["key"].take(), value: line["value"].take() }
    };
    RECORDED.lines().map(sent).collect()
}

/// Lets Debezium make `count` messages from a slot.
pub fn fresh(port: u16, database: &str, slot: &str, publication: &str, count: usize) -> Vec<Sent> {
    let jars = install::debezium().expect("`cargo xtask test --all` installs Debezium");
    let output = Command::new("java")
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"])
        .arg(jars.join("*"))
        .arg(DUMP)
        .args([&port.to_string(), database, slot, publication, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .expect("Java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let sent = |line: &str| {
        let mut parts = line.split('\t');
        let table = parts.next()?.strip_prefix("shop.")?.to_owned();
        let mut json = || serde_json::from_str::<Value>(parts.next()?).ok();
        Some(Sent { table, key: json()?, value: json()? })
    };
    text.lines().map(|line| sent(line).unwrap_or_else(|| panic!("not a message: {line}"))).collect()
}

/// Stores Debezium's messages for machines without Java.
pub fn record(messages: &[Sent]) {
    let line = |sent: &Sent| json!({ "table": sent.table, "key": sent.key, "value": sent.value }).to_string() + "\n";
    let text: String = messages.iter().map(line).collect();
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/debezium/debezium.jsonl"), text).unwrap();
}
