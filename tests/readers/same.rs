use audit_testkit::install::{delta_jars, duckdb_delta};
use audit_testkit::thorough;
use serde_json::Value;

use crate::{DUCKDB_DELTA, LISTED, READ, SPARK, checksums, run, world};

const LOG: [&str; 4] = ["log_by_deltalake", "log_by_polars", "log_by_datafusion", "log_by_clickhouse"];
const LISTING: [&str; 5] =
    ["listing_by_duckdb", "listing_by_pyarrow", "listing_by_polars", "listing_by_datafusion", "listing_by_clickhouse"];

/// Compares each way of each engine with the files as they are, and the files with the database.
#[tokio::test(flavor = "multi_thread")]
async fn every_engine_reads_the_same_values_of_every_type() {
    reads(LISTED, &[&LOG[..], &LISTING].concat(), &["log_by_spark", "listing_by_spark"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_in_one_column_and_another_compression_are_read_too() {
    let lake = format!("{LISTED}\npartition_by = \"date\"\ncompression = \"gzip\"");
    reads(&lake, &[&LOG[..], &LISTING].concat(), &["log_by_spark", "listing_by_spark"]).await;
}

/// Only the log names fresh files, so engines read them by the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_fresh_is_read_by_the_log() {
    reads("partition_by = \"hour\"\ncompression = \"snappy\"", &LOG, &["log_by_spark"]).await;
}

async fn reads(lake: &str, engines: &[&str], large: &[&str]) {
    let world = world(lake).await;
    world.check().await;
    let expected = checksums::of_lake(&world.lake);
    let lake = world.lake.to_str().expect("a plain path");
    let show = |engines: &[&str]| format!("for read in [{}]:\n    show(read)\n", engines.join(", "));
    compare(&expected, engines, &run(&[READ, &show(engines)], &[lake]));
    let duckdb = ["log_by_duckdb"];
    let script = [DUCKDB_DELTA, READ, &show(&duckdb)];
    compare(&expected, &duckdb, &run(&script, &[lake, &duckdb_delta().to_string_lossy()]));
    if thorough() {
        let jars = delta_jars().expect("`cargo xtask test --all` installs them");
        compare(&expected, large, &run(&[READ, SPARK, &show(large)], &[lake, &jars.to_string_lossy()]));
    }
}

#[track_caller]
fn compare(expected: &Value, engines: &[&str], told: &str) {
    let mut told = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    for engine in engines {
        let seen = told.next().expect("an engine");
        assert_eq!(seen["engine"], *engine);
        let mut wrong = Vec::new();
        for (table, expected) in expected.as_object().into_iter().flatten() {
            let seen = &seen["tables"][table];
            if seen["rows"] != expected["rows"] {
                wrong.push(format!("{table}: {} rows, not {}", seen["rows"], expected["rows"]));
            }
            let columns = expected["columns"].as_object().into_iter().flatten();
            let other = columns.filter(|(name, sum)| seen["columns"][*name] != **sum);
            wrong.extend(other.map(|(name, _)| format!("{table}.{name} differs")));
        }
        assert!(wrong.is_empty(), "{engine}:\n{}", wrong.join("\n"));
    }
}
