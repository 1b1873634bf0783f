use audit_testkit::shared;
use cdc_audit_tests::decoded::Name;
use cdc_audit_tests::world::World;

/// The hot tables are in the source, and the publication contains them: the daemon does not capture its own writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_own_tables_are_never_captured() {
    let server = shared(15).await;
    let (name, url) = server.new_database();
    let world = World::on(server)
        .source(&name, &url)
        .hot_url(&url)
        .sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
        .publish_all()
        .build()
        .await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    server.execute(
        &world.database,
        "INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) AS i; UPDATE t SET v = 'w'",
    );
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let versions = world.check_published(|name: &Name, _| name.schema == "public").await.hot.len();
    assert_eq!(versions, 1000);
    // With nothing to record, the position stops advancing: a checkpoint makes no WAL that must be stored again.
    world.catch_up().await;
    assert_eq!(world.recorded().await.hot.len(), 1000);
}
