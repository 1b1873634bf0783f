//! Tests other engines with the same lake: what they read, and the statements that make it queryable in them.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

/// The content of a lake, in a form that does not depend on the reader.
mod checksums;
/// Every engine reads the same values of every type, by the log and by listing.
mod same;
/// The statements of `cdc-audit ddl`: run if the engine is available here, or else parsed.
mod statements;

use std::process::Command;

use audit_testkit::install::python;
use audit_testkit::shared;
use cdc_audit_tests::workload::values::{PRELUDE, TYPES, Type, identifier};
use cdc_audit_tests::world::World;

/// The script with the engines and the comparison of what they read, and another one for a DuckDB with its reader of
/// Delta logs.
const READ: &str = include_str!("read.py");
const DUCKDB_DELTA: &str = include_str!("duckdb_delta.py");
const SPARK: &str = include_str!("spark.py");

/// The key that puts every file into `data/`, so that engines that list files see all of them.
const LISTED: &str = "data_bytes = \"0 B\"";

const TABLES: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2), at timestamptz, due date, tags text[], doc jsonb, \"year\" int); \
     ALTER TABLE items REPLICA IDENTITY FULL; \
     CREATE SCHEMA \"Odd Schema\"; CREATE TABLE \"Odd Schema\".\"a.b\" (id int PRIMARY KEY, \"it's \"\"ü\"\"\" text)";

/// Makes a lake with every value of every type, with columns that are added, dropped and changed, with deletes of which
/// only the key is known, and with several files and commits. `lake` contains lines of its section.
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

/// Runs a script, given in parts, in the Python that has the engines, and returns what it printed.
#[track_caller]
fn run(script: &[&str], arguments: &[&str]) -> String {
    let mut python = Command::new(python());
    // ClickHouse reads only files below its working folder.
    let output = python.current_dir("/").args(["-c", &script.join("\n")]).args(arguments).output();
    let output = output.expect("`cargo xtask test` installs the engines");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}
