//! Other engines over the same lake: `deltalake` and DuckDB by the Delta log, DuckDB and PyArrow by listing the files.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use audit_testkit::{install::python, shared};
use cdc_audit_tests::trail::Version;
use cdc_audit_tests::world::World;
use expect_test::expect;
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("read.py");

const TABLES: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), at timestamptz, tags text[], doc jsonb, \"year\" int); \
     ALTER TABLE items REPLICA IDENTITY FULL; \
     CREATE SCHEMA \"Odd Schema\"; CREATE TABLE \"Odd Schema\".\"a.b\" (id int PRIMARY KEY)";

/// What a version is to an engine that reads columns.
fn shown(version: &Version) -> Value {
    let id = version.image().and_then(|row| row.get("id")?.as_deref()?.parse::<i64>().ok());
    json!([version.position, version.table, version.event, version.key, id, version.committed_at])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_engine_sees_each_version_once() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLES).build().await;
    // Several files and commits, and columns that come, go and change.
    for round in 0..10 {
        let sql = format!(
            "INSERT INTO items (id, name, price, at) SELECT i, 'n' || i, 0.25, '2026-03-01' FROM generate_series({round}0, {round}0 + 7) AS i; \
             UPDATE items SET name = 'x' WHERE id % 3 = 0; DELETE FROM items WHERE id % 7 = 0; \
             INSERT INTO \"Odd Schema\".\"a.b\" VALUES ({round})"
        );
        server.execute(&world.database, &sql);
        let alter = match round {
            3 => "ALTER TABLE items ADD COLUMN stock bigint; UPDATE items SET stock = id",
            6 => "ALTER TABLE items ALTER COLUMN price TYPE text",
            8 => "ALTER TABLE items DROP COLUMN tags; TRUNCATE items",
            _ => "",
        };
        server.execute(&world.database, alter);
        world.catch_up().await;
    }
    let recorded = world.check().await;
    let expected: Vec<Value> = recorded.by_log.iter().map(shown).collect();

    let mut python = Command::new(python());
    let output =
        python.args(["-c", SCRIPT]).arg(&world.lake).output().expect("`cargo xtask test` installs the engines");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut told = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    for engine in ["log_by_deltalake", "log_by_duckdb", "listing_by_duckdb", "listing_by_pyarrow"] {
        let seen = told.next().expect("an engine");
        assert_eq!(seen["engine"], engine);
        assert_eq!(seen["versions"].as_array().expect("versions"), &expected, "{engine}");
    }
    let typed = serde_json::to_string_pretty(&told.next().expect("types")).expect("JSON");
    expect![[r#"
        {
          "types": {
            "price": "PrimitiveType(\"decimal(10,2)\")",
            "price__2": "PrimitiveType(\"string\")",
            "at": "PrimitiveType(\"timestamp\")",
            "stock": "PrimitiveType(\"long\")",
            "year": "PrimitiveType(\"integer\")",
            "year__2": "PrimitiveType(\"integer\")"
          },
          "spent": "14.00"
        }"#]]
    .assert_eq(&typed);
}
