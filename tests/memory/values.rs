use arrow::array::AsArray;
use audit_testkit::shared;
use cdc_audit_tests::lake::{Snapshot, tables};
use cdc_audit_tests::thorough;
use cdc_audit_tests::world::World;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::{assert_within, peak, stop};

/// Values above this size have only a marker in the hot table: half of the 256 MiB to which PostgreSQL limits `jsonb`.
const HOT_MAX: usize = 128 << 20;

/// Length and digest of the values of `t`, in the order of their keys.
type Values = Vec<(usize, String)>;

/// Large values that hardly compress follow each other between small rows.
#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass_within_the_limit() {
    let (bytes, mib) = if thorough() { (200_000_000, 1024) } else { (20_000_000, 144) };
    let server = shared(15).await;
    let world = World::on(server)
        .sql("CREATE TABLE t (id int PRIMARY KEY, v jsonb)")
        .pipeline(&format!("memory_limit = \"{mib} MiB\""))
        .build()
        .await;
    // zstd compresses base64 of digests only to three quarters.
    let line = "translate(encode(sha512((i || ' ' || id)::text::bytea), 'base64'), E'\\n=', '')";
    let value =
        format!("SELECT left(string_agg({line}, ''), {} - 2) FROM generate_series(1, {bytes} / 86 + 1) AS i", bytes);
    for statement in [
        "INSERT INTO t SELECT i, '{}' FROM generate_series(1, 1000) AS i",
        &format!("INSERT INTO t SELECT id, to_jsonb(({value})) FROM generate_series(2001, 2003) AS id"),
        "INSERT INTO t SELECT i, '{}' FROM generate_series(3001, 4000) AS i",
    ] {
        server.execute(&world.database, statement);
    }
    let limit = mib << 20;
    let peak = peak(&world, limit).await;

    let sql = "SELECT octet_length(v::text), encode(sha256(convert_to(v::text, 'UTF8')), 'hex') FROM t \
               WHERE id BETWEEN 2001 AND 2003 ORDER BY id";
    let rows = world.client().await.query(sql, &[]).await.unwrap();
    let expected: Values = rows.iter().map(|row| (row.get::<_, i32>(0) as usize, row.get(1))).collect();
    assert_eq!(expected.iter().map(|(length, _)| *length).collect::<Vec<_>>(), [bytes; 3]);
    assert_eq!(in_lake(&world), expected);

    let (seen, wanted) = match bytes > HOT_MAX {
        true => ("(after -> 'v')::text || array_to_string(unknown, ' ')", format!("{{\"$too_large\": {bytes}}}v")),
        false => ("octet_length((after -> 'v')::text)::text", bytes.to_string()),
    };
    let sql = format!("SELECT {seen} FROM cdc_audit.versions WHERE key BETWEEN '2001' AND '2003' AND length(key) = 4");
    let stored = world.hot().await.query(&sql, &[]).await.unwrap();
    assert_eq!(stored.iter().map(|row| row.get(0)).collect::<Vec<String>>(), [&wanted[..]; 3]);
    let count = world.hot().await.query_one("SELECT count(*) FROM cdc_audit.versions", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 2003);
    assert_within(peak, limit);
}

/// A baseline has the same limit: a row that does not fit is refused by name and not fetched; other tables continue.
#[tokio::test(flavor = "multi_thread")]
async fn large_rows_of_a_baseline_pass_within_the_limit_or_are_refused_by_name() {
    let mib = 128;
    let world = World::on(shared(15).await)
        .baseline()
        .sql(
            "CREATE TABLE huge (id int PRIMARY KEY, v text); INSERT INTO huge VALUES (1, repeat('x', 200000000)); \
             CREATE TABLE heap (v text); ALTER TABLE heap REPLICA IDENTITY FULL; INSERT INTO heap VALUES (repeat('x', 200000000)); \
             CREATE TABLE large (id int PRIMARY KEY, v text); INSERT INTO large SELECT g, repeat('x', 15000000) FROM generate_series(1, 6) g; \
             CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO other SELECT g, repeat('x', 15000000) FROM generate_series(1, 6) g",
        )
        .pipeline(&format!("memory_limit = \"{mib} MiB\""))
        .build()
        .await;
    let mut daemon = world.launch().start();
    let line = daemon.wait_for_line("has a row of 200000000 bytes, and the memory limit allows 16777216 for one row");
    assert!(line.contains("raise pipeline.memory_limit to at least 827 MiB"), "{line}");
    daemon.wait_for("what fits is there", |daemon| {
        ["public.large", "public.other"]
            .iter()
            .all(|table| daemon.output().lines().any(|line| line.contains("baseline complete") && line.contains(table)))
    });
    let refused = |table: &str| {
        let named = format!("table=public.{table} ");
        daemon.output().lines().any(|line| line.contains(&named) && line.contains("has a row of 200000000 bytes"))
    };
    assert!(refused("huge") && refused("heap"), "{}", daemon.output());
    let peak = daemon.memory_peak().expect("the daemon runs");
    stop(&mut daemon);
    eprintln!("peak {} MiB under a limit of {mib} MiB", peak >> 20);
    assert_within(peak, mib << 20);
}

/// Reads the large values from the lake.
fn in_lake(world: &World) -> Values {
    let table = &tables(&world.lake)["public.t"];
    let files = Snapshot::read(table).files;
    assert_eq!(files.values().map(|file| file.records.unwrap()).sum::<u64>(), 2003);
    let mut found = Vec::new();
    for path in files.keys() {
        let file = std::fs::File::open(table.join(path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let columns = ProjectionMask::columns(reader.parquet_schema(), ["cdc_key", "v"]);
        for batch in reader.with_projection(columns).with_batch_size(100).build().unwrap() {
            let batch = batch.unwrap();
            let column = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
            let (keys, values) = (column("cdc_key"), column("v"));
            let rows = (0..batch.num_rows()).filter(|&row| values.value(row).len() > 10);
            found.extend(rows.map(|row| (keys.value(row).to_owned(), digest(values.value(row)))));
        }
    }
    found.sort();
    found.into_iter().map(|(_, value)| value).collect()
}

fn digest(value: &str) -> (usize, String) {
    use sha2::Digest;
    (value.len(), hex::encode(sha2::Sha256::digest(value)))
}

/// Any role may write a message of any length. A message that is not ours takes no memory, and of ours only the
/// beginning is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_logical_message_of_any_size_passes_within_the_smallest_limit() {
    let (bytes, mib) = (if thorough() { 500_000_000 } else { 150_000_000 }, 80);
    let server = shared(15).await;
    let world = World::on(server)
        .sql("CREATE TABLE t (id int PRIMARY KEY)")
        .pipeline(&format!("memory_limit = \"{mib} MiB\""))
        .build()
        .await;
    for statement in [
        "INSERT INTO t VALUES (1)",
        "SELECT pg_logical_emit_message(false, 'x', repeat('x', 60000000))",
        &format!("SELECT pg_logical_emit_message(true, 'another', repeat('x', {bytes}))"),
        &format!("SELECT pg_logical_emit_message(true, repeat('cdc-audit', {bytes} / 9), '')"),
        &format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'cdc-audit', '{{\"actor_id\": 7, \"x\": \"' || repeat('x', {bytes}) || '\"}}'); \
             INSERT INTO t VALUES (2); COMMIT"
        ),
        "INSERT INTO t VALUES (3)",
    ] {
        server.execute(&world.database, statement);
    }
    let limit = mib << 20;
    let peak = peak(&world, limit).await;
    let sql = "SELECT key || coalesce(' ' || actor_id || ' ' || context, '') FROM cdc_audit.versions ORDER BY position";
    let stored = world.hot().await.query(sql, &[]).await.unwrap();
    let stored: Vec<String> = stored.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, ["1", "2 7 {\"actor_id\": 7, \"truncated\": true}", "3"]);
    assert_within(peak, limit);
}
