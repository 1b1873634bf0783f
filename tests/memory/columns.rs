use audit_testkit::shared;
use cdc_audit_tests::lake::{Snapshot, tables};
use cdc_audit_tests::thorough;
use cdc_audit_tests::world::World;

use crate::{assert_within, peak_with};

/// A column that is NULL still takes its width in memory.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_columns_as_a_table_may_have_pass_within_the_limit() {
    let rows = if thorough() { 200_000 } else { 20_000 };
    let columns: String = (1..1600).map(|at| format!(", c{at} numeric(10,2)")).collect();
    passes(&format!("CREATE TABLE t0 (id int PRIMARY KEY{columns})"), 1, rows).await;
}

/// There are many tables, and each has an open file.
#[tokio::test(flavor = "multi_thread")]
async fn many_tables_of_many_columns_pass_within_the_limit() {
    let rows = if thorough() { 20_000 } else { 4_000 };
    let columns: String = (1..200).map(|at| format!(", c{at} bigint")).collect();
    let create = |at| format!("CREATE TABLE t{at} (id int PRIMARY KEY{columns});");
    passes(&(0..50).map(create).collect::<String>(), 50, rows).await;
}

/// Makes one transaction with `rows` rows for each table, in turn.
async fn passes(create: &str, count: usize, rows: u64) {
    let server = shared(15).await;
    let world = World::on(server)
        .sql(create)
        .without_hot()
        // This is long after the last row, so that only memory decides when files are closed before.
        .lake("file_age = \"20 s\"")
        .pipeline("memory_limit = \"144 MiB\"")
        .build()
        .await;
    let step = rows / 20;
    let inserts: String = (0..20 * count as u64)
        .map(|at| {
            let (table, first) = (at % count as u64, at / count as u64 * step);
            format!("INSERT INTO t{table} (id) SELECT generate_series({first}, {});", first + step - 1)
        })
        .collect();
    server.execute(&world.database, &inserts);
    let limit = 144 << 20;
    let peak = peak_with(&world, limit, async || u64::MAX).await;
    for at in 0..count {
        let files = Snapshot::read(&tables(&world.lake)[&format!("public.t{at}")]).files;
        assert_eq!(files.values().map(|file| file.records.unwrap()).sum::<u64>(), rows);
    }
    assert_within(peak, limit);
}
