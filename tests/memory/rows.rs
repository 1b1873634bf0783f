use audit_testkit::{ObjectKind, ObjectServer, shared, unique};
use cdc_audit_tests::lake::{Snapshot, tables};
use cdc_audit_tests::thorough;
use cdc_audit_tests::world::World;

use crate::{assert_within, peak};

/// Nothing waits for the end of a transaction, and no memory grows with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_any_size_passes_within_the_limit() {
    passes(None).await;
}

/// For a bucket a file is kept in memory until it is complete, within the memory that the sink may hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_any_size_passes_within_the_limit_into_a_bucket() {
    let store = ObjectServer::shared(ObjectKind::S3).await;
    passes(Some(store)).await;
}

async fn passes(store: Option<&ObjectServer>) {
    let (rows, mib) = if thorough() { (5_000_000, 256) } else { (200_000, 96) };
    let server = shared(15).await;
    let mut world = World::on(server);
    if let Some(store) = store {
        let prefix = unique("lake");
        world = world.lake_in(&store.lake(&prefix, store.port()), Some(store.folder(&prefix)));
    }
    let world = world
        .sql("CREATE TABLE t (id bigint PRIMARY KEY, customer int, status text, total numeric(12,2), at timestamptz)")
        .pipeline(&format!("memory_limit = \"{mib} MiB\""))
        .build()
        .await;
    server.execute(
        &world.database,
        &format!(
            "INSERT INTO t SELECT i, i % 1000, 'status ' || i % 7, i / 100.0, now() FROM generate_series(1, {rows}) AS i"
        ),
    );
    let limit = mib << 20;
    let peak = peak(&world, limit).await;

    let sql = "SELECT count(*), count(DISTINCT seq), max(seq) FROM cdc_audit.versions";
    let stored = world.hot().await.query_one(sql, &[]).await.unwrap();
    assert_eq!((stored.get::<_, i64>(0), stored.get::<_, i64>(1), stored.get::<_, i64>(2)), (rows, rows, rows - 1));
    let files = Snapshot::read(&tables(&world.lake)["public.t"]).files;
    assert_eq!(files.values().map(|file| file.records.unwrap()).sum::<u64>(), rows as u64);
    assert_within(peak, limit);
}
