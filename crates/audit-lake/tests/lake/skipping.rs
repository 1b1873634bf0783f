use std::process::Command;

use audit_lake::layout::table_folder;
use audit_testkit::install::{delta_jars, python};
use audit_testkit::{Fixture, thorough};
use expect_test::expect;
use serde_json::Value;

use crate::common::Lake;

const SCRIPT: &str = include_str!("skipping.py");
const SPARK: &str = include_str!("skipping_spark.py");
const TABLE: &str = "public.t";

/// Four days with a file each, of five row groups with a thousand keys each.
async fn four_days() -> Lake {
    let mut lake = Lake::new();
    lake.config.row_group_rows = 1000;
    let mut fixture = Fixture::default();
    let mut table = "table public.t (id text key, v int4) full\n".to_string();
    let mut sink = lake.taken().await.0;
    for day in 1..=4 {
        let mut text = format!("{table}begin at=2026-03-{day:02}T12:00:00Z\n");
        for row in 0..5000 {
            text.push_str(&format!("insert public.t [\"k{day}{row:06}\", {row}]\n"));
        }
        text.push_str("commit\n");
        crate::common::write(&mut sink, &fixture.batches(&text)).await.unwrap();
        table.clear();
    }
    lake
}

/// What each engine reads for one key and for one day, according to its plan: of four files, and of the twenty row
/// groups in them.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_and_one_day_are_looked_up_in_few_files_and_row_groups() {
    let lake = four_days().await;
    let folder = lake.path().join(table_folder(TABLE));
    let ask = |script: &str, more: &[&str]| {
        // ClickHouse only reads files below its working folder.
        let mut python = Command::new(python());
        python.current_dir("/").args(["-c", script]).arg(&folder).args(["k3001234", "2026-03-03"]).args(more);
        let output = python.output().expect("`cargo xtask test` installs the engines");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    expect![[r#"
        key  log_by_pyarrow        1 file
        key  log_by_polars         1 file
        key  log_by_datafusion     1 file   1 row group
        key  log_by_clickhouse     1 file   1 row group
        key  listing_by_duckdb     4 files  1 row group
        key  listing_by_pyarrow    4 files  1 row group
        key  listing_by_polars     4 files
        key  listing_by_datafusion 1 file   1 row group
        key  listing_by_clickhouse 4 files  1 row group
        day  log_by_pyarrow        1 file
        day  log_by_polars         1 file
        day  log_by_datafusion     1 file   5 row groups
        day  log_by_clickhouse     1 file   5 row groups
        day  listing_by_duckdb     1 file   5 row groups
        day  listing_by_pyarrow    1 file
        day  listing_by_polars     1 file
        day  listing_by_datafusion 1 file
        day  listing_by_clickhouse 1 file   5 row groups
    "#]]
    .assert_eq(&ask(SCRIPT, &[]));
    if thorough() {
        let jars = delta_jars().expect("`cargo xtask test --all` installs them");
        expect![[r#"
            key  log_by_spark      1 file
            key  listing_by_spark  4 files
            day  log_by_spark      1 file
            day  listing_by_spark  1 file
        "#]]
        .assert_eq(&ask(SPARK, &[&jars.to_string_lossy()]));
    }
}

/// The logs have the oldest protocol of Delta: a reader that knows nothing newer (Synapse, Athena, BigQuery) can read
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_asks_nothing_of_its_readers() {
    let lake = four_days().await;
    let log = lake.path().join(table_folder(TABLE)).join("_delta_log");
    let mut protocols = Vec::new();
    let mut configured = Vec::new();
    for entry in std::fs::read_dir(log).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for action in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let of = |name: &str| action.get(name).cloned();
            protocols.extend(of("protocol").map(|protocol| protocol.to_string()));
            let keys = of("metaData").and_then(|metadata| metadata["configuration"].as_object().cloned());
            configured.extend(keys.into_iter().flatten().map(|(key, _)| key).filter(|key| key.starts_with("delta.")));
            assert!(action["add"].get("deletionVector").is_none_or(Value::is_null), "{action}");
        }
    }
    assert_eq!(protocols, [r#"{"minReaderVersion":1,"minWriterVersion":2}"#]);
    configured.sort();
    assert_eq!(
        configured,
        [
            "delta.appendOnly",
            "delta.checkpointInterval",
            "delta.deletedFileRetentionDuration",
            "delta.logRetentionDuration"
        ]
    );
}
