//! Other engines over the same lake: what they read, and the statements that make it queryable in them.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

/// What a lake holds, in a form that does not depend on who reads it.
mod checksums;
/// Every engine reads the same values of every type, both ways.
mod same;
/// The statements of `cdc-audit ddl`: run where the engine can be, else parsed.
mod statements;

use std::process::Command;

use audit_testkit::install::python;
use audit_testkit::shared;
use cdc_audit_tests::workload::values::{PRELUDE, TYPES, Type, identifier};
use cdc_audit_tests::world::World;

/// The engines, and how what they read is compared; and those beside them that need more.
const READ: &str = include_str!("read.py");
const DUCKDB_DELTA: &str = include_str!("duckdb_delta.py");
const SPARK: &str = include_str!("spark.py");

/// Every file in `data/`, so that those who list see all.
const LISTED: &str = "data_bytes = \"0 B\"";

const TABLES: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), at timestamptz, due date, tags text[], doc jsonb, \"year\" int); \
     ALTER TABLE items REPLICA IDENTITY FULL; \
     CREATE SCHEMA \"Odd Schema\"; CREATE TABLE \"Odd Schema\".\"a.b\" (id int PRIMARY KEY, \"it's \"\"ü\"\"\" text)";

/// A lake with every value of every type, with columns that come, go and change, with deletes of which only the key is known, and in
/// several files and commits; `lake` are lines of its section.
async fn world(lake: &str) -> World {
    let server = shared(15).await;
    let types: Vec<&Type> = TYPES.iter().collect();
    let columns: Vec<String> = types.iter().map(|kind| format!("{} {}", identifier(kind.name), kind.sql)).collect();
    let every_type = format!(
        "{PRELUDE} CREATE TABLE v (\"Id\" int PRIMARY KEY, {}); ALTER TABLE v REPLICA IDENTITY FULL; {TABLES}",
        columns.join(", ")
    );
    let world = World::on(server).sql(&every_type).lake(&format!("file_age = \"1 s\"\n{lake}")).build().await;
    let longest = types.iter().map(|kind| kind.texts.len()).max().unwrap_or_default();
    let mut values = String::new();
    for number in 0..longest {
        let row: Vec<String> = types.iter().map(|kind| kind.literal(kind.texts[number % kind.texts.len()])).collect();
        values.push_str(&format!("INSERT INTO v VALUES ({number}, {});\n", row.join(", ")));
    }
    values.push_str(
        "INSERT INTO v (\"Id\") VALUES (-1); UPDATE v SET \"Id\" = -\"Id\" - 2 WHERE \"Id\" > 5; DELETE FROM v",
    );
    server.execute(&world.database, &values);
    for round in 0..10 {
        let sql = format!(
            "INSERT INTO items (id, name, price, at, due) SELECT i, 'n' || i, 0.25, '2026-03-01', date '2026-03-01' + i FROM generate_series({round}0, {round}0 + 7) AS i; \
             UPDATE items SET name = 'x' WHERE id % 3 = 0; DELETE FROM items WHERE id % 7 = 0; \
             INSERT INTO \"Odd Schema\".\"a.b\" VALUES ({round}, 'a'); DELETE FROM \"Odd Schema\".\"a.b\" WHERE id % 2 = 0"
        );
        server.execute(&world.database, &sql);
        let alter = match round {
            3 => "ALTER TABLE items ADD COLUMN stock bigint; UPDATE items SET stock = id",
            6 => {
                "ALTER TABLE items ALTER COLUMN price TYPE text; ALTER TABLE items ALTER COLUMN stock TYPE numeric(30,3); \
                 ALTER TABLE items ALTER COLUMN due TYPE timestamptz USING due::timestamp AT TIME ZONE 'UTC'"
            }
            8 => "ALTER TABLE items DROP COLUMN tags; TRUNCATE items",
            _ => "",
        };
        server.execute(&world.database, alter);
        world.catch_up().await;
    }
    world
}

/// Runs a script, in parts, in the Python that has the engines; returns what it printed.
#[track_caller]
fn run(script: &[&str], arguments: &[&str]) -> String {
    let mut python = Command::new(python());
    // ClickHouse reads files below its working folder.
    let output = python.current_dir("/").args(["-c", &script.join("\n")]).args(arguments).output();
    let output = output.expect("`cargo xtask test` installs the engines");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}
