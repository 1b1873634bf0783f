//! Memory stays within its limit, whatever comes. `CDC_AUDIT_MEMORY_ROWS` and `CDC_AUDIT_MEMORY_MB` say how much that is.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use audit_testkit::{Daemon, shared};
use cdc_audit_tests::trail::lsn;
use cdc_audit_tests::world::{SOURCE, World};
use cdc_audit_tests::{hot, lake, thorough};

const MIB: u64 = 1 << 20;

/// A size from the environment, else the larger one in a thorough run.
fn size(name: &str, usual: u64, large: u64) -> u64 {
    let asked = std::env::var(name).ok().map(|size| size.parse().expect("a number"));
    asked.unwrap_or(if thorough() { large } else { usual })
}

/// Waits until both sinks have everything, and returns the most memory that the daemon had.
async fn peak(world: &World, daemon: &mut Daemon) -> u64 {
    let until = lsn(&world.wal_end().await);
    let client = world.hot().await;
    // However long that takes, as long as it goes on.
    let mut last = (0, std::time::Instant::now());
    loop {
        let flushed = (hot::flushed(&client, SOURCE).await, lake::flushed(&world.lake));
        if flushed.0 >= until && flushed.1 >= until {
            return daemon.memory_peak().expect("the daemon runs");
        }
        assert!(daemon.ended().is_none(), "the daemon ended:\n{}", daemon.output());
        let rows = client.query_one("SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('cdc_audit.versions')", &[]);
        let now: i64 = rows.await.expect("the size of the hot table").get(0);
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        assert!(last.1.elapsed() < audit_testkit::PATIENCE, "nothing moves:\n{}", daemon.output());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn assert_below(peak: u64, limit: u64) {
    eprintln!("peak {:.1} MiB under a limit of {} MiB", peak as f64 / MIB as f64, limit / MIB);
    assert!(peak * 10 < limit * 12, "peak {peak} bytes, limit {limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_transaction_takes_no_more_than_the_limit() {
    let rows = size("CDC_AUDIT_MEMORY_ROWS", 200_000, 5_000_000);
    let server = shared(15).await;
    let world = World::on(server)
        .unwitnessed()
        .pipeline("memory_limit = \"256 MiB\"")
        .lake("")
        .sql("CREATE TABLE t (id int PRIMARY KEY, name text, note text, n bigint, at timestamptz)")
        .build()
        .await;
    let sql = format!("INSERT INTO t SELECT i, 'name ' || i, repeat(md5(i::text), 2), i, now() FROM generate_series(1, {rows}) AS i");
    server.execute(&world.database, &sql);
    let mut daemon = world.launch().start();
    // Five minutes are the lake's usual age of a file: a stop closes it.
    daemon.wait_for_line("streaming");
    let client = world.hot().await;
    loop {
        assert!(daemon.ended().is_none(), "the daemon ended:\n{}", daemon.output());
        let stored: i64 = client.query_one("SELECT count(*) FROM cdc_audit.versions", &[]).await.expect("the hot table").get(0);
        if stored == rows as i64 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_below(daemon.memory_peak().expect("the daemon runs"), 256 * MIB);
    daemon.stop();
    world.catch_up().await;
    let counted = |files: Vec<std::path::PathBuf>| files.iter().map(|file| lake::rows(file)).sum::<u64>();
    assert_eq!(counted(lake::files(&world.lake)), rows);
    let distinct = "SELECT count(DISTINCT position) FROM cdc_audit.versions";
    assert_eq!(client.query_one(distinct, &[]).await.expect("the hot table").get::<_, i64>(0), rows as i64);
}

/// The lake has it whole; in hot, whose `jsonb` cannot, stands how large it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_value_takes_no_more_than_the_limit() {
    let bytes = size("CDC_AUDIT_MEMORY_MB", 140, 200) * 1_000_000;
    let server = shared(15).await;
    let world = World::on(server)
        .unwitnessed()
        .pipeline("memory_limit = \"1 GiB\"")
        .sql("CREATE TABLE docs (id int PRIMARY KEY, doc jsonb)")
        .build()
        .await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let sql = format!("INSERT INTO docs SELECT 1, to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, {}) AS i; INSERT INTO docs VALUES (2, '1')", bytes / 32);
    server.execute(&world.database, &sql);
    assert_below(peak(&world, &mut daemon).await, 1024 * MIB);
    assert!(daemon.stop().success(), "{}", daemon.output());
    let told: String = world.hot().await.query_one("SELECT after::text || coalesce(unknown::text, '') FROM cdc_audit.versions WHERE key = '1'", &[]).await.expect("a version").get(0);
    let length = bytes / 32 * 32 + 2;
    assert_eq!(told, format!(r#"{{"id": 1, "doc": {{"$too_large": {length}}}}}{{doc}}"#));
    let versions = lake::by_log(&world.lake);
    let whole = versions.iter().find(|version| version.key.as_deref() == Some("1")).and_then(|version| version.after.as_ref()?.get("doc")?.clone());
    let tables = world.tables().await;
    let expected = tables["public.docs"].rows.iter().find(|row| row["id"].as_deref() == Some("1")).and_then(|row| row["doc"].clone());
    assert_eq!(expected.as_ref().map(String::len), Some(length as usize));
    assert!(whole == expected, "the lake has {:?} bytes of it, or others", whole.map(|text| text.len()));
}
